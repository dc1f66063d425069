"""The short way comes to the same as the long one, whatever arrives in whatever order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.express import Run, fragment_packets, leading_run
from agent.net.sctp.outbound import Part
from agent.net.sctp.packet import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED, Framer, parse
from agent.net.sctp.partial import FRAGMENT_BYTES_MIN, MESSAGE_BYTES, STRAY_BYTES
from agent.net.sctp.reassembly import Message, Reassembler
from agent.net.sctp.receiver import Receiver

TAG = 0x01020304
MESSAGE_BYTES_MAX = 4000
SIZE = 100


def framer(*, zero_checksum: bool = True) -> Framer:
    framer = Framer(5000, 5000)
    framer.tag = TAG
    framer.zero_checksum = zero_checksum
    return framer


def part(payload: bytes, flags: int = FLAG_BEGIN | FLAG_END, *, number: int = 0, message: int = 7) -> Part:
    return Part(1, 53, flags, message, number, memoryview(payload))


@pytest.mark.parametrize("zero_checksum", [True, False])
@pytest.mark.parametrize("interleave", [True, False])
@pytest.mark.parametrize("flags", range(4))
@pytest.mark.parametrize("size", [1, SIZE, SIZE + 1, 2 * SIZE, 5 * SIZE - 2, 5 * SIZE])
def test_packets_of_a_part_are_those_of_its_fragments(size: int, flags: int, interleave: bool, zero_checksum: bool) -> None:
    if size % SIZE and not flags & FLAG_END:
        return  # only the end of a message is shorter
    payload = random.Random(size).randbytes(size)
    number = 0 if flags & FLAG_BEGIN else 3
    writer = framer(zero_checksum=zero_checksum)
    packets = fragment_packets(writer, part(payload, flags, number=number), 0xFFFFFFFE, SIZE, interleave=interleave)
    wanted = []
    for index, at in enumerate(range(0, size, SIZE)):
        own = (flags & FLAG_BEGIN) * (not index) | (flags & FLAG_END) * (at + SIZE >= size)
        tsn, piece = (0xFFFFFFFE + index) & 0xFFFFFFFF, memoryview(payload[at : at + SIZE])
        if interleave:
            wanted.append(writer.idata(own, tsn, 1, 7, 53 if own & FLAG_BEGIN else number + index, piece))
        else:
            wanted.append(writer.data(own, tsn, 1, 7, 53, piece))
    assert packets == wanted


def test_a_run_ends_with_its_message_and_where_something_is_out_of_order() -> None:
    payload = bytes(range(250))
    whole = fragment_packets(framer(), part(payload), 0xFFFFFFFF, SIZE, interleave=True)
    after = fragment_packets(framer(), part(payload, message=8), 2, SIZE, interleave=True)
    run = leading_run(whole + after, 0, TAG)
    assert run == Run(0xFFFFFFFF, 3, 1, 7, 0, 53, [payload[:100], payload[100:200], payload[200:]], 250)
    assert leading_run(whole, 1, TAG) == Run(0, 1, 1, 7, 1, 0, [payload[100:200], payload[200:]], 150)
    swapped = leading_run([whole[0], whole[2], whole[1]], 0, TAG)
    assert swapped is not None
    assert len(swapped.payloads) == 1


def test_whatever_is_special_goes_the_long_way() -> None:
    (packet,) = fragment_packets(framer(), part(bytes(8)), 5, SIZE, interleave=True)
    assert leading_run([packet], 0, TAG) is not None
    for altered in (
        packet[:-1],
        packet + bytes(4),
        packet[:32],
        b"",
        packet[:8] + b"\1" + packet[9:],  # with a checksum
        packet[:12] + b"\0" + packet[13:],  # another kind of chunk
        packet[:13] + bytes([FLAG_UNORDERED | 3]) + packet[14:],
        packet[:14] + b"\0\x14" + packet[16:],  # no payload
    ):
        assert leading_run([altered], 0, TAG) is None
    assert leading_run([packet], 0, TAG + 1) is None


class Way:
    """A receiving half, fed the short way where that is possible or always the long one."""

    def __init__(self, *, short: bool) -> None:
        self.short = short
        self.reassembler = Reassembler(message_bytes_max=MESSAGE_BYTES_MAX, interleave=True, streams=1024)
        self.receiver = Receiver(10, self.reassembler, WindowBudget(0), window_bytes=1 << 16, window_bytes_max=1 << 16)
        self.messages: list[Message] = []
        self.error = ""
        self.short_ones = 0

    def feed(self, packets: list[bytes]) -> None:
        at = 0
        while at < len(packets) and not self.error:
            try:
                at += self.take(packets, at)
            except ProtocolViolation as error:
                self.error = str(error)

    def take(self, packets: list[bytes], at: int) -> int:
        run = leading_run(packets, at, TAG) if self.short else None
        messages = self.receiver.run(run) if run is not None else None
        if run is not None and messages is not None:
            self.messages += messages
            self.short_ones += len(run.payloads)
            return len(run.payloads)
        for chunk in parse(packets[at], zero_checksum=True)[1]:
            self.messages += self.receiver.data(chunk)  # type: ignore[arg-type]
        return 1

    def state(self) -> tuple[object, ...]:
        receiver = self.receiver
        return self.messages, self.error, receiver.cumulative, self.reassembler.held_bytes, receiver.sack(), receiver._round_bytes


Fragment = tuple[int, int, int, int, int]
"""Stream, flags, message, number, payload bytes."""


def fragments(stream: int, message: int, count: int, last_bytes: int) -> list[Fragment]:
    return [
        (stream, FLAG_BEGIN * (not n) | FLAG_END * (n == count - 1), message, n, SIZE if n < count - 1 else last_bytes)
        for n in range(count)
    ]


def wrong(fragment: Fragment, rng: random.Random) -> Fragment:
    """One of its fields is another."""
    fields = list(fragment)
    at = rng.randrange(4)
    fields[at] = rng.randrange((3, 8, 3, 6)[at])
    return tuple(fields)  # type: ignore[return-value]


def packets_in_order(rng: random.Random) -> list[bytes]:
    """Messages of some streams, in bursts and turns, a few fragments wrong, missing or twice; the TSNs have no holes."""
    waiting: dict[int, list[Fragment]] = {0: [], 1: [], 2: []}
    for stream, queue in waiting.items():
        for message in range(rng.randrange(4)):
            queue += fragments(stream, message, rng.choice((1, 2, 8, 41)), rng.randrange(1, SIZE + 1))
    faults = rng.choice((0, 0, 1, 3))
    sent: list[Fragment] = []
    while any(waiting.values()):
        queue = waiting[rng.choice([stream for stream in waiting if waiting[stream]])]
        for _ in range(min(len(queue), rng.choice((1, 3, 10)))):
            sent.append(queue.pop(0))
    for _ in range(faults if sent else 0):
        at = rng.randrange(len(sent))
        match rng.randrange(4):
            case 0:
                sent[at] = wrong(sent[at], rng)
            case 1:
                sent.insert(at, sent[rng.randrange(len(sent))])
            case 2:
                sent.insert(rng.randrange(len(sent)), sent.pop(at))
            case 3:
                sent.insert(at, wrong(sent[at], rng))
    writer, packets = framer(), []
    for tsn, (stream, flags, message, number, size) in enumerate(sent, 10):
        last = 53 if flags & FLAG_BEGIN else number
        packets.append(writer.idata(flags, tsn, stream, message, last, memoryview(rng.randbytes(size))))
    return packets


@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 1 << 32), calm=st.booleans())
def test_both_ways_come_to_the_same(seed: int, calm: bool) -> None:
    rng = random.Random(seed)
    packets = packets_in_order(rng)
    if packets and not calm:
        for _ in range(rng.randrange(1, 6)):
            at, to = rng.randrange(len(packets)), rng.randrange(len(packets))
            packets.insert(to, packets[at] if rng.random() < 0.5 else packets.pop(at))
    short, long = Way(short=True), Way(short=False)
    while packets:
        batch = [packets.pop(0) for _ in range(min(len(packets), rng.randrange(1, 30)))]
        short.feed(batch)
        long.feed(batch)
        if short.error or long.error:
            assert bool(short.error) == bool(long.error)
            return
        assert short.state() == long.state()


def test_the_short_way_is_really_taken() -> None:
    way = Way(short=True)
    way.feed(fragment_packets(framer(), part(bytes(20 * SIZE), message=0), 10, SIZE, interleave=True))
    assert way.short_ones == 20
    assert [len(message.data) for message in way.messages] == [20 * SIZE]


def test_it_is_taken_behind_a_hole_too() -> None:
    packets = fragment_packets(framer(), part(bytes(20 * SIZE), message=0), 10, SIZE, interleave=True)
    packets += fragment_packets(framer(), part(bytes(5 * SIZE), message=1), 30, SIZE, interleave=True)
    lost = [packets.pop(12), packets.pop(4)]
    way = Way(short=True)
    way.feed(packets)
    assert way.short_ones == 23
    assert (way.receiver.cumulative, way.receiver.sack().gaps) == (13, [(2, 8), (10, 21)])
    way.feed(lost)
    assert [len(message.data) for message in way.messages] == [20 * SIZE, 5 * SIZE]
    assert (way.receiver.cumulative, way.receiver.sack().gaps) == (34, [])


def test_what_does_not_fit_the_window_goes_the_long_way() -> None:
    way = Way(short=True)
    way.receiver._window = room = MESSAGE_BYTES + STRAY_BYTES + 3 * FRAGMENT_BYTES_MIN
    packets = fragment_packets(framer(), part(bytes(20 * SIZE), message=0), 10, SIZE, interleave=True)
    way.feed(packets[1:])
    assert (way.short_ones, way.receiver.packets_dropped, way.reassembler.held_bytes) == (0, 16, room)
