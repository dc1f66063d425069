"""Fragments to messages, in any order of arrival."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.net.sctp.packet import Data
from agent.net.sctp.reassembly import Message, Reassembler

BEGIN, END, UNORDERED = 2, 1, 4


def fragments(messages: list[tuple[int, bytes]], *, interleave: bool, size: int = 3) -> list[Data]:
    """Cut (stream, data) messages into chunks with TSNs from 1."""
    chunks: list[Data] = []
    sequence: dict[int, int] = {}
    for stream, data in messages:
        number = sequence.get(stream, 0)
        sequence[stream] = number + 1
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        for index, part in enumerate(parts):
            flags = (BEGIN if index == 0 else 0) | (END if index == len(parts) - 1 else 0)
            chunks.append(Data(len(chunks) + 1, flags, stream, number, index if interleave else -1, 53, memoryview(part)))
    return chunks


def reassembler(*, interleave: bool = False, message_bytes_max: int = 1000) -> Reassembler:
    return Reassembler(message_bytes_max=message_bytes_max, interleave=interleave, streams=8)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(min_size=1, max_size=20)), max_size=12),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_gives_the_messages_in_order(
    messages: list[tuple[int, bytes]], interleave: bool, rng: random.Random
) -> None:
    chunks = fragments(messages, interleave=interleave)
    rng.shuffle(chunks)
    reassembly = reassembler(interleave=interleave)
    out: list[Message] = []
    for chunk in chunks:
        out += reassembly.add(chunk, chunk.tsn)
    for stream in range(3):
        assert [bytes(m.data) for m in out if m.stream == stream] == [data for at, data in messages if at == stream]
    assert reassembly.held_bytes == 0


def test_streams_do_not_wait_for_each_other() -> None:
    chunks = fragments([(1, b"lost"), (0, b"now")], interleave=False)
    reassembly = reassembler()
    assert [bytes(m.data) for c in chunks[1:] for m in reassembly.add(c, c.tsn)] == [b"now"]


def test_unordered_messages_do_not_wait() -> None:
    reassembly = reassembler()
    later = Data(5, BEGIN | END | UNORDERED, 1, 0, -1, 53, memoryview(b"b"))
    assert [bytes(m.data) for m in reassembly.add(later, 5)] == [b"b"]
    assert reassembly.held_bytes == 0


def test_sequence_numbers_wrap() -> None:
    reassembly = reassembler()
    for number in range(65_540):
        chunk = Data(number, BEGIN | END, 1, number & 0xFFFF, -1, 53, memoryview(b"x"))
        assert len(reassembly.add(chunk, number)) == 1


def test_the_largest_message_passes_and_one_more_byte_does_not() -> None:
    for size, fits in ((1000, True), (1001, False)):
        reassembly = reassembler()
        chunks = fragments([(1, bytes(size))], interleave=False, size=100)
        if fits:
            assert len([m for c in chunks for m in reassembly.add(c, c.tsn)]) == 1
        else:
            with pytest.raises(ProtocolViolation):
                for chunk in chunks:
                    reassembly.add(chunk, chunk.tsn)


@pytest.mark.parametrize(
    "chunks",
    [
        [Data(1, BEGIN, 1, 0, -1, 53, memoryview(b"a")), Data(2, END, 2, 0, -1, 53, memoryview(b"b"))],
        [Data(1, BEGIN, 1, 0, -1, 53, memoryview(b"a")), Data(2, END, 1, 1, -1, 53, memoryview(b"b"))],
        [Data(1, BEGIN, 1, 0, -1, 53, memoryview(b"a")), Data(2, END | UNORDERED, 1, 0, -1, 53, memoryview(b"b"))],
        [Data(1, BEGIN | END, 1, 1, -1, 53, memoryview(b"a")), Data(2, BEGIN | END, 1, 1, -1, 53, memoryview(b"b"))],
        [Data(1, BEGIN | END, 1, 0xFFFF, -1, 53, memoryview(b"a"))],
        [Data(1, BEGIN | END, 1, 0, 0, 53, memoryview(b"a"))],
    ],
)
def test_contradictions_are_violations(chunks: list[Data]) -> None:
    reassembly = reassembler()
    with pytest.raises(ProtocolViolation):
        for chunk in chunks:
            reassembly.add(chunk, chunk.tsn)


def test_contradicting_interleaved_fragments() -> None:
    stray = Data(3, 0, 1, 0, 1, 0, memoryview(b"b"))
    reassembly = reassembler(interleave=True)
    reassembly.add(stray, 3)
    with pytest.raises(ProtocolViolation):
        reassembly.add(stray, 4)
    reassembly = reassembler(interleave=True)
    reassembly.add(Data(1, BEGIN, 1, 0, 0, 53, memoryview(b"a")), 1)
    with pytest.raises(ProtocolViolation):
        reassembly.add(Data(2, BEGIN, 1, 0, 0, 53, memoryview(b"a")), 2)


@pytest.mark.parametrize(
    "chunks",
    [
        [(1, 0), (2, END), (3, 0)],  # beyond the end
        [(4, 0), (2, END)],  # an end before what has come
        [(2, 0), (3, 0), (2, 0)],
        [(0, BEGIN), (1, 0), (0, BEGIN)],
        [(0, 0)],  # the first, and does not say so
        [(0, BEGIN), (1, END), (1, END)],  # one of a message that is whole
    ],
)
def test_fragments_that_contradict_each_other(chunks: list[tuple[int, int]]) -> None:
    reassembly = reassembler(interleave=True)
    with pytest.raises(ProtocolViolation):
        for tsn, (number, flags) in enumerate(chunks):
            reassembly.add(Data(tsn, flags, 1, 0, number, 53, memoryview(b"x")), tsn)


@pytest.mark.parametrize("interleave", [True, False])
def test_no_more_streams_than_were_agreed(interleave: bool) -> None:
    for stream, fits in ((7, True), (8, False)):
        whole = Data(1, BEGIN | END, stream, 0, 0 if interleave else -1, 53, memoryview(b"a"))
        if fits:
            assert len(reassembler(interleave=interleave).add(whole, 1)) == 1
        else:
            with pytest.raises(ProtocolViolation, match="stream 8 of 8"):
                reassembler(interleave=interleave).add(whole, 1)


def test_what_is_kept_is_no_view_of_its_packet() -> None:
    """A packet may be 16 KiB, and the fragment in it one byte."""
    for interleave in (True, False):
        reassembly, packet = reassembler(interleave=interleave), bytearray(16_384)
        for tsn, flags, message, fragment in ((2, BEGIN | END, 1, 0), (4, BEGIN, 2, 0), (9, 0, 3, 4)):
            chunk = Data(tsn, flags, 1, message, fragment if interleave else -1, 53, memoryview(packet)[:1])
            assert reassembly.add(chunk, tsn) == []
        del chunk
        packet.clear()  # raises BufferError while there is a view of it


def test_after_a_reset_numbers_start_again() -> None:
    reassembly = reassembler()
    first = Data(1, BEGIN | END, 1, 0, -1, 53, memoryview(b"a"))
    assert len(reassembly.add(first, 1)) == 1
    reassembly.forget(1)
    assert len(reassembly.add(first, 2)) == 1
