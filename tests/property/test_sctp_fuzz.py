"""A million altered packets: the parser and the association raise nothing outside the error tree, and take bounded work.

Packets of every kind are made valid, then altered as links and attackers do: bits, lengths, counts, cuts, splices. The checksum
is left out (RFC 9653), or almost none would get past it. HIVE_FUZZ_PACKETS sets another number.
"""

from __future__ import annotations

import os
import random

from agent.errors import ProtocolViolation
from agent.net.sctp.config import PACKET_BYTES_BASE, SctpConfig
from agent.net.sctp.events import Ended
from agent.net.sctp.express import leading_run
from agent.net.sctp.packet import (
    CHUNKS_MAX,
    ChunkType,
    Data,
    Framer,
    Init,
    ParameterType,
    Sack,
    chunk_bytes,
    init_bytes,
    parameters_bytes,
    parse,
    sack_bytes,
)
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather

PACKETS = int(os.environ.get("HIVE_FUZZ_PACKETS", "1000000"))
TO_ASSOCIATION = 20
"""One in so many also goes to an association that is open."""
PARAMETERS = [
    (int(ParameterType.STATE_COOKIE), bytes(16)),
    (int(ParameterType.SUPPORTED_EXTENSIONS), bytes([64, 130, 194])),
    (int(ParameterType.ZERO_CHECKSUM), bytes([0, 0, 0, 1])),
    (int(ParameterType.HIVE_PACKET_BYTES), (16384).to_bytes(4, "big")),
]
INTERESTING = (0, 1, 2, 3, 4, 5, 15, 16, 17, 20, 64, 127, 128, 130, 192, 254, 255)


def corpus(framer: Framer, rng: random.Random) -> list[bytes]:
    """Valid packets of every kind."""
    reset = parameters_bytes([(int(ParameterType.RESET_OUTGOING), rng.randbytes(12) + bytes([0, 0, 0, 1]))])
    chunks = [
        *(
            init_bytes(Init(ack, rng.getrandbits(32) | 1, 1 << 20, 10, 10, rng.getrandbits(32), PARAMETERS))
            for ack in (False, True)
        ),
        sack_bytes(Sack(rng.getrandbits(32), 1 << 20, [], [])),
        sack_bytes(Sack(rng.getrandbits(32), 1 << 20, [(2, 3), (5, 900)], [rng.getrandbits(32)] * 3)),
        chunk_bytes(ChunkType.HEARTBEAT, parameters_bytes([(int(ParameterType.HEARTBEAT_INFO), bytes(20))])),
        chunk_bytes(ChunkType.HEARTBEAT_ACK, parameters_bytes([(int(ParameterType.HEARTBEAT_INFO), bytes(20))])),
        chunk_bytes(ChunkType.RE_CONFIG, reset),
        *(chunk_bytes(kind, rng.randbytes(4)) for kind in ChunkType if kind not in (0, 1, 2, 3, 64)),
    ]
    packets = [framer.packet(chunk) for chunk in chunks]
    packets.append(framer.packet(b"".join(rng.sample(chunks[2:], 5))))
    for flags in range(8):
        packets.append(framer.data(flags, rng.getrandbits(32), flags & 1, flags, 53, memoryview(rng.randbytes(33))))
        packets.append(framer.idata(flags, rng.getrandbits(32), flags & 1, flags, 53, memoryview(rng.randbytes(50))))
    return packets


def altered(packet: bytes, other: bytes, rng: random.Random) -> bytes:
    """The packet as something on the way might leave it; tag and checksum stay, or nothing behind them would be tried."""
    data = bytearray(packet)
    for _ in range(rng.randrange(1, 4)):
        kind, at = rng.random(), 12 + int(rng.random() * (len(data) - 12)) if len(data) > 12 else 0
        if kind < 0.35:
            data[at : at + 1] = bytes([INTERESTING[int(rng.random() * len(INTERESTING))]])
        elif kind < 0.6 and len(data) > 16:
            data[14:16] = int(rng.random() * 80).to_bytes(2, "big")
        elif kind < 0.75:
            del data[at:]
        elif kind < 0.9:
            data += other[12 : 12 + int(rng.random() * len(other))]
        else:
            data[at:at] = bytes(int(rng.random() * 8))
    return bytes(data)


def test_no_packet_gets_past_the_error_tree() -> None:
    rng = random.Random(20)
    framer = Framer(5000, 5000)
    framer.zero_checksum = True
    link = opened(rng, framer)
    packets = corpus(framer, rng)
    refused = associations = short = 0
    for number in range(PACKETS):
        packet = altered(packets[int(rng.random() * len(packets))], packets[number % len(packets)], rng)
        short += leading_run([packet, packets[number % len(packets)]], 0, framer.tag) is not None
        try:
            _, chunks = parse(packet, zero_checksum=True)
        except ProtocolViolation:
            refused += 1
            continue
        assert sum(not isinstance(chunk, Data) for chunk in chunks) <= CHUNKS_MAX
        if number % TO_ASSOCIATION == 0:
            end = link.ends[0].association
            link.now += 0.001
            end.receive_all([packet, packet], link.now)
            end.tick(link.now)
            end.transmit(link.now)
            ended = [event for event in end.events() if isinstance(event, Ended)]
            if ended:
                associations += 1
                link = opened(rng, framer)
                packets = corpus(framer, rng)
    assert 0.05 < refused / PACKETS < 0.95
    assert associations > 3
    assert short > 0.001 * PACKETS


def opened(rng: random.Random, framer: Framer) -> VirtualLink:
    """An open association with something in flight; the framer's packets carry its tag."""
    link = VirtualLink(rng.getrandbits(32), Weather(), SctpConfig(packet_bytes_max=PACKET_BYTES_BASE))
    link.begin()
    assert link.run(5, lambda: all(end.association.is_open for end in link.ends))
    link.send(0, 1, bytes(5000))
    link.ends[0].association.transmit(link.now)
    framer.tag = link.ends[0].association._handshake.tag
    return link
