"""The packet format: against aiortc's as an oracle, at its limits, and under a fuzzer."""

from __future__ import annotations

import random

import pytest
from aiortc import rtcsctptransport as stock
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.net.sctp.packet import (
    CHUNKS_MAX,
    PARAMETERS_MAX,
    ChunkType,
    Data,
    Framer,
    Init,
    Other,
    Sack,
    chunk_bytes,
    init_bytes,
    parameters_bytes,
    parse,
    parse_parameters,
    sack_bytes,
)


def framer(*, zero_checksum: bool = False) -> Framer:
    framer = Framer(5000, 5000)
    framer.tag = 0x01020304
    framer.zero_checksum = zero_checksum
    return framer


def resealed(packet: bytes) -> bytes:
    return packet[:8] + crc32c(packet[:8] + bytes(4) + packet[12:]).to_bytes(4, "little") + packet[12:]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1160])
def test_data_is_what_aiortc_reads_and_writes(size: int) -> None:
    payload = random.Random(size).randbytes(size)
    packet = framer().data(3, 0xFFFFFFFF, 1, 65535, 53, memoryview(payload))
    source, destination, tag, (chunk,) = stock.parse_packet(packet)
    assert (source, destination, tag) == (5000, 5000, 0x01020304)
    assert (chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.flags) == (0xFFFFFFFF, 1, 65535, 53, 3)
    assert chunk.user_data == payload
    assert stock.serialize_packet(5000, 5000, tag, chunk) == packet
    assert parse(packet) == (tag, [Data(0xFFFFFFFF, 3, 1, 65535, -1, 53, memoryview(payload))])


def test_sack_is_what_aiortc_reads() -> None:
    sack = Sack(17, 1 << 20, [(2, 3), (9, 65535)], [5, 0xFFFFFFFF])
    packet = framer().packet(sack_bytes(sack))
    _, _, _, (chunk,) = stock.parse_packet(packet)
    assert (chunk.cumulative_tsn, chunk.advertised_rwnd, chunk.gaps, chunk.duplicates) == (
        17,
        1 << 20,
        sack.gaps,
        sack.duplicates,
    )
    assert parse(packet)[1] == [sack]


@pytest.mark.parametrize("ack", [False, True])
def test_init_is_what_aiortc_reads(ack: bool) -> None:
    init = Init(ack, 1, 2, 3, 4, 5, [(7, b"cookie"), (0x8008, b"\x82\x40\xc0")])
    packet = framer().packet(init_bytes(init))
    _, _, _, (chunk,) = stock.parse_packet(packet)
    assert isinstance(chunk, stock.InitAckChunk if ack else stock.InitChunk)
    assert (chunk.initiate_tag, chunk.advertised_rwnd, chunk.initial_tsn, chunk.params) == (1, 2, 5, init.parameters)
    assert parse(packet)[1] == [init]


@pytest.mark.parametrize("begin", [True, False])
def test_idata_round_trip(begin: bool) -> None:
    packet = framer().idata(2 if begin else 0, 9, 3, 70_000, 53 if begin else 12, memoryview(b"abcde"))
    assert parse(packet)[1] == [
        Data(9, 2 if begin else 0, 3, 70_000, 0 if begin else 12, 53 if begin else 0, memoryview(b"abcde"))
    ]


def test_several_chunks_in_one_packet() -> None:
    body = chunk_bytes(ChunkType.COOKIE_ACK) + sack_bytes(Sack(1, 2, [], [])) + chunk_bytes(ChunkType.ERROR, b"abc", 1)
    assert parse(framer().packet(body))[1] == [Other(11, 0, b""), Sack(1, 2, [], []), Other(9, 1, b"abc")]


def test_zero_checksum_passes_only_where_announced() -> None:
    packet = framer(zero_checksum=True).packet(chunk_bytes(ChunkType.COOKIE_ACK))
    assert parse(packet, zero_checksum=True)[1] == [Other(11, 0, b"")]
    with pytest.raises(ProtocolViolation):
        parse(packet)
    parse(resealed(packet), zero_checksum=True)
    with pytest.raises(ProtocolViolation):
        parse(packet[:8] + b"\0\0\0\1" + packet[12:], zero_checksum=True)


def test_one_wrong_bit_is_found() -> None:
    packet = framer().data(3, 1, 1, 1, 53, memoryview(b"abcd" * 9))
    for bit in range(8 * len(packet)):
        wrong = bytearray(packet)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolViolation):
            parse(bytes(wrong))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0",
        b"\x0b\0\0\3",
        b"\x0b\0\0\5",
        chunk_bytes(0, bytes(12)),
        chunk_bytes(64, bytes(16)),
        chunk_bytes(1, bytes(15)),
        chunk_bytes(1, bytes(16)),
        chunk_bytes(3, bytes(11)),
        chunk_bytes(3, bytes(8) + b"\0\1\0\0"),
        chunk_bytes(3, bytes(8) + b"\0\0\xff\xff"),
    ],
)
def test_badly_formed(body: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse(framer().packet(body))


def test_limits_on_counts() -> None:
    one = chunk_bytes(ChunkType.COOKIE_ACK)
    assert len(parse(framer().packet(one * CHUNKS_MAX))[1]) == CHUNKS_MAX
    with pytest.raises(ProtocolViolation):
        parse(framer().packet(one * (CHUNKS_MAX + 1)))
    most = [(1, b"x")] * PARAMETERS_MAX
    assert parse_parameters(parameters_bytes(most)) == most
    with pytest.raises(ProtocolViolation):
        parse_parameters(parameters_bytes([*most, (1, b"x")]))
    with pytest.raises(ProtocolViolation):
        parse_parameters(b"\0\1\0\3")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_parse_or_are_a_violation(body: bytes, sealed: bool) -> None:
    packet = framer().packet(body) if sealed else body
    try:
        parse(packet, zero_checksum=True)
    except ProtocolViolation:
        pass


def test_fuzzed_packets_parse_or_are_a_violation() -> None:
    """Valid packets with a few bytes changed, and a right checksum, reach every branch of the parser."""
    rng = random.Random(5)
    seeds = [
        framer().data(3, 1, 1, 1, 53, memoryview(bytes(20))),
        framer().idata(2, 9, 3, 70_000, 53, memoryview(b"abcde")),
        framer().packet(sack_bytes(Sack(17, 1 << 20, [(2, 3), (9, 65535)], [5]))),
        framer().packet(init_bytes(Init(True, 1, 2, 3, 4, 5, [(7, b"cookie"), (0x8008, b"\x82\x40\xc0")]))),
        framer().packet(chunk_bytes(130, parameters_bytes([(13, bytes(14))])) + chunk_bytes(4, bytes(20))),
    ]
    passed = 0
    for _ in range(20_000):
        packet = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            packet[rng.randrange(12, len(packet))] = rng.randrange(256)
        try:
            parse(resealed(bytes(packet[: rng.randint(0, len(packet))] if rng.random() < 0.3 else packet)))
            passed += 1
        except ProtocolViolation:
            pass
    assert passed > 2000
