"""What a peer can make an association hold, in real memory (tracemalloc), pattern by pattern."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from agent.errors import ProtocolViolation
from agent.net.sctp.association import REPLIES_MAX, Association
from agent.net.sctp.config import SctpConfig
from agent.net.sctp.events import Ended
from agent.net.sctp.packet import CHUNKS_MAX, FLAG_BEGIN, FLAG_END, FLAG_UNORDERED, ChunkType, Framer, chunk_bytes
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather

WINDOW_BYTES_MAX = 256 * 1024
FRAGMENTS = 20_000
"""Far more than there is room for, at what each costs."""
BATCH_BYTES = 64 * 1024
WHOLE = FLAG_BEGIN | FLAG_END


class Hostile:
    """Frames DATA and I-DATA of one byte, as many to a packet as it takes."""

    def __init__(self, framer: Framer, tsn: int, packet_bytes: int) -> None:
        self._framer = framer
        self._first = tsn
        self._packet_bytes = packet_bytes

    def data(self, offset: int, flags: int, stream: int, sequence: int) -> bytes:
        return self._framer.data(flags, (self._first + offset) & 0xFFFFFFFF, stream, sequence & 0xFFFF, 53, memoryview(b"x"))[12:]

    def idata(self, offset: int, flags: int, stream: int, message: int, fragment: int) -> bytes:
        tsn, last = (self._first + offset) & 0xFFFFFFFF, 53 if flags & FLAG_BEGIN else fragment
        return self._framer.idata(flags, tsn, stream, message & 0xFFFFFFFF, last, memoryview(b"x"))[12:]

    def packets(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        body, count = b"", 0
        for chunk in chunks:
            if len(body) + len(chunk) + 12 > self._packet_bytes or count == CHUNKS_MAX:
                yield self._framer.packet(body)
                body, count = b"", 0
            body, count = body + chunk, count + 1
        yield self._framer.packet(body)

    def padded(self, chunk: bytes) -> bytes:
        """A chunk that takes a whole large packet, the rest of which is padding."""
        return chunk + chunk_bytes(ChunkType.PAD, bytes(self._packet_bytes - len(chunk) - 20))


Pattern = Callable[[Hostile, int], bytes]
IDATA: dict[str, Pattern] = {
    "ever new messages": lambda h, n: h.idata(n, FLAG_BEGIN, 0, n, 0),
    "ever new unordered messages": lambda h, n: h.idata(n, FLAG_BEGIN | FLAG_UNORDERED, 0, n, 0),
    "messages that lack their first fragment": lambda h, n: h.idata(n, FLAG_END, 0, n, 5),
    "one message in tiny fragments": lambda h, n: h.idata(n, 0 if n else FLAG_BEGIN, 0, 0, n),
    "every other fragment of one message": lambda h, n: h.idata(n, 0, 0, 0, 2 + 2 * n),
    "the same, backwards": lambda h, n: h.idata(n, 0, 0, 0, 2 * (FRAGMENTS - n)),
    "whole messages behind one that is missing": lambda h, n: h.idata(n, WHOLE, 0, n + 1, 0),
    "whole messages behind a hole": lambda h, n: h.idata(n + 1, WHOLE, 0, n + 1, 0),
    "every other TSN": lambda h, n: h.idata(2 * n + 1, FLAG_BEGIN, 0, n, 0),
    "every other TSN, then the rest": lambda h, n: h.idata((2 * n + 1) % FRAGMENTS, FLAG_BEGIN, 0, n, 0),
    "ever new streams": lambda h, n: h.idata(n, WHOLE, n & 0xFFFF, 0, 0),
    "in packets full of padding": lambda h, n: h.padded(h.idata(n, FLAG_BEGIN, 0, n, 0)),
    "whole, in packets full of padding": lambda h, n: h.padded(h.idata(n, WHOLE, 0, n + 1, 0)),
    "fragments in packets full of padding": lambda h, n: h.padded(h.idata(n, 0, 0, 0, 1 + n)),
    "the same again and again": lambda h, n: h.idata(0, FLAG_BEGIN, 0, 0, 0),
}
DATA: dict[str, Pattern] = {
    "ever new messages": lambda h, n: h.data(n, FLAG_BEGIN, 0, n),
    "one message in tiny fragments": lambda h, n: h.data(n, 0 if n else FLAG_BEGIN, 0, 0),
    "no beginnings": lambda h, n: h.data(n, 0, 0, 0),
    "no beginnings, behind a hole": lambda h, n: h.data(n + 1, 0, 0, 0),
    "whole messages behind one that is missing": lambda h, n: h.data(n, WHOLE, n // 30_000, 1 + n % 30_000),
    "every other TSN": lambda h, n: h.data(2 * n + 1, FLAG_BEGIN, 0, n),
    "ever new streams": lambda h, n: h.data(n, WHOLE, n & 0xFFFF, 0),
    "in packets full of padding": lambda h, n: h.padded(h.data(n + 1, 0, 0, 0)),
}
PATTERNS = [(name, True) for name in IDATA] + [(name, False) for name in DATA]


def victim(*, interleave: bool) -> tuple[Association, Hostile, VirtualLink]:
    """An open association, and who sends to it."""
    half = WINDOW_BYTES_MAX // 2
    config = SctpConfig(window_bytes=half, window_bytes_max=WINDOW_BYTES_MAX, message_bytes_max=half, interleave=interleave)
    link = VirtualLink(1, Weather(), config)
    link.begin()
    assert link.run(5, lambda: all(end.association.is_open for end in link.ends))
    association, attacker = link.ends[1].association, link.ends[0].association
    framer = attacker._framer
    return association, Hostile(framer, attacker._handshake.tsn, config.packet_bytes_max), link


def attack(association: Association, hostile: Hostile, pattern: Pattern, link: VirtualLink) -> int:
    """Send the fragments as a host would take them, until the association ends; the most memory held between two batches."""
    gc.collect()
    tracemalloc.start()
    before, most, batch = tracemalloc.get_traced_memory()[0], 0, []
    for packet in hostile.packets(pattern(hostile, n) for n in range(FRAGMENTS)):
        batch.append(packet)
        if sum(map(len, batch)) < BATCH_BYTES:
            continue
        link.now += 0.01
        association.receive_all(batch, link.now)
        batch.clear()
        ended = [event for event in association.events() if isinstance(event, Ended)]
        while association.transmit(link.now):
            pass
        most = max(most, tracemalloc.get_traced_memory()[0] - before)
        if ended:
            assert isinstance(ended[0].error, ProtocolViolation)
            break
    tracemalloc.stop()
    return most


@pytest.mark.parametrize(("name", "interleave"), PATTERNS)
def test_memory_stays_within_twice_the_window(name: str, interleave: bool) -> None:
    association, hostile, link = victim(interleave=interleave)
    most = attack(association, hostile, (IDATA if interleave else DATA)[name], link)
    assert most < 2 * WINDOW_BYTES_MAX + BATCH_BYTES


def test_answers_that_the_socket_does_not_take_are_bounded() -> None:
    association, hostile, link = victim(interleave=True)
    question = chunk_bytes(ChunkType.HEARTBEAT, bytes(1000))
    for packet in hostile.packets(question for _ in range(5000)):
        association.receive(packet, link.now)
    assert len(association.transmit(link.now)) <= REPLIES_MAX + 1
    for packet in hostile.packets(iter([question])):
        association.receive(packet, link.now)
    assert len(association.transmit(link.now)) == 1
