"""Which message the next packet is cut from."""

from __future__ import annotations

import pytest

from agent.net.sctp.outbound import Outbound, Part


def outbound(*, interleave: bool) -> Outbound:
    return Outbound(interleave=interleave, priorities={0: 0})


def streams(queue: Outbound, count: int, size: int = 10) -> list[int]:
    cut = [queue.cut(size) for _ in range(count)]
    return [fragment.stream for fragment in cut if fragment is not None]


def test_fragments_and_flags() -> None:
    queue = outbound(interleave=False)
    queue.put(1, 53, memoryview(b"abcdefg"))
    queue.put(1, 53, memoryview(b"h"))
    assert queue.queued_bytes == 8
    assert [queue.cut(3) for _ in range(5)] == [
        Part(1, 53, 2, 0, 0, memoryview(b"abc")),
        Part(1, 53, 0, 0, 1, memoryview(b"def")),
        Part(1, 53, 1, 0, 2, memoryview(b"g")),
        Part(1, 53, 3, 1, 0, memoryview(b"h")),
        None,
    ]
    assert queue.queued_bytes == 0
    assert not queue


def test_without_interleaving_a_message_is_finished_first() -> None:
    queue = outbound(interleave=False)
    queue.put(1, 53, memoryview(bytes(30)))
    queue.put(1, 53, memoryview(bytes(10)))
    assert streams(queue, 1) == [1]
    queue.put(0, 53, memoryview(bytes(10)))
    assert streams(queue, 5) == [1, 1, 0, 1]


def test_with_interleaving_control_overtakes_at_once() -> None:
    queue = outbound(interleave=True)
    queue.put(1, 53, memoryview(bytes(30)))
    assert streams(queue, 1) == [1]
    queue.put(0, 53, memoryview(bytes(10)))
    assert streams(queue, 5) == [0, 1, 1]


def test_streams_of_one_priority_take_turns() -> None:
    queue = outbound(interleave=True)
    for stream in (1, 2):
        queue.put(stream, 53, memoryview(bytes(30)))
    assert streams(queue, 7) == [1, 2, 1, 2, 1, 2]
    queue = outbound(interleave=False)
    for stream in (1, 2, 1, 2):
        queue.put(stream, 53, memoryview(bytes(20)))
    assert streams(queue, 9) == [1, 1, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize("interleave", [True, False])
def test_clear_keeps_what_was_begun_and_what_is_named(interleave: bool) -> None:
    queue = outbound(interleave=interleave)
    queue.put(1, 53, memoryview(bytes(20)))
    queue.put(1, 53, memoryview(bytes(20)))
    queue.put(2, 53, memoryview(bytes(20)))
    assert streams(queue, 1) == [1]
    queue.put(0, 53, memoryview(bytes(10)))
    queue.clear(keep=frozenset((0,)))
    assert queue.queued_bytes == 20
    assert sorted(streams(queue, 5)) == [0, 1]
    queue.put(2, 53, memoryview(bytes(10)))
    assert streams(queue, 2) == [2]


def test_empty_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        outbound(interleave=True).put(1, 53, memoryview(b""))


def test_fragments_that_follow_each_other_come_at_once() -> None:
    queue = outbound(interleave=True)
    queue.put(1, 53, memoryview(bytes(25)))
    assert queue.cut(10, 2) == Part(1, 53, 2, 0, 0, memoryview(bytes(20)))
    assert queue.queued_bytes == 5
    assert queue.cut(10, 2) == Part(1, 53, 1, 0, 2, memoryview(bytes(5)))
    queue.put(1, 53, memoryview(bytes(25)))
    assert queue.cut(10, 9) == Part(1, 53, 3, 1, 0, memoryview(bytes(25)))
    assert queue.cut(10, 9) is None


def test_streams_take_turns_however_many_fragments_are_asked_for() -> None:
    queue = outbound(interleave=True)
    for stream in (1, 2):
        queue.put(stream, 53, memoryview(bytes(30)))
    cut = [queue.cut(10, 5) for _ in range(5)]
    assert [(part.stream, part.number, len(part.payload)) for part in cut if part is not None] == [
        (1, 0, 10),
        (2, 0, 10),
        (1, 1, 10),
        (2, 1, 10),
        (1, 2, 10),
    ]
    assert queue.cut(10, 5) == Part(2, 53, 1, 0, 2, memoryview(bytes(10)))
    assert not queue
