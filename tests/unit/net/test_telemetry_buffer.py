from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.net.telemetry_buffer import BufferConfig, TelemetryBuffer
from agent.reports import BATCH_ITEMS_MAX, MESSAGE_BYTES_MAX, Batch, Event, Item, Report


def event(sequence: int, size: int = 0) -> Event:
    return Event(sequence=sequence, at=0.0, name="joined", detail={"x": "y" * size})


def report(sequence: int) -> Report:
    return Report(sequence=sequence, at=0.0, stage="training")


def sequences(batch: bytes | None) -> list[int]:
    assert batch is not None and len(batch) <= MESSAGE_BYTES_MAX
    return [i.sequence for i in msgspec.json.decode(batch, type=Batch).items]


def filled(count: int, config: BufferConfig | None = None) -> TelemetryBuffer:
    buffer = TelemetryBuffer(config or BufferConfig())
    for i in range(1, count + 1):
        buffer.add(event(i))
    return buffer


def test_items_go_in_batches_and_stay_until_acknowledged() -> None:
    buffer = filled(BATCH_ITEMS_MAX + 1)
    assert sequences(buffer.batch()) == list(range(1, BATCH_ITEMS_MAX + 1))
    assert sequences(buffer.batch()) == [BATCH_ITEMS_MAX + 1]
    assert buffer.batch() is None and len(buffer) == BATCH_ITEMS_MAX + 1
    buffer.acknowledge(BATCH_ITEMS_MAX)
    assert len(buffer) == 1
    buffer.acknowledge(BATCH_ITEMS_MAX + 1)
    assert len(buffer) == 0 and buffer._bytes == 0


def test_after_a_reconnect_what_is_not_acknowledged_goes_again() -> None:
    buffer = filled(5)
    buffer.batch()
    buffer.acknowledge(2)
    buffer.rewind()
    assert sequences(buffer.batch()) == [3, 4, 5]


def test_only_so_many_batches_are_under_way() -> None:
    buffer = filled(3 * BATCH_ITEMS_MAX, BufferConfig(batches_in_flight_max=2))
    assert buffer.batch() and buffer.batch() and buffer.batch() is None
    buffer.acknowledge(BATCH_ITEMS_MAX)
    assert buffer.batch() is not None


def test_a_batch_is_no_larger_than_a_message() -> None:
    buffer = TelemetryBuffer(BufferConfig())
    for i in range(1, 5):
        buffer.add(event(i, 30_000))
    assert sequences(buffer.batch()) == [1, 2]


def test_an_item_that_is_too_large_is_dropped() -> None:
    buffer = TelemetryBuffer(BufferConfig())
    buffer.add(event(1, 40_000))
    assert len(buffer) == 0 and buffer.dropped == 1


def test_when_full_the_oldest_reports_go_before_any_event() -> None:
    buffer = TelemetryBuffer(BufferConfig(items_max=4))
    for item in (event(1), report(2), event(3), report(4)):
        buffer.add(item)
    assert len(buffer) == 4 and buffer.dropped == 0
    buffer.add(event(5))
    buffer.add(event(6))
    assert sequences(buffer.batch()) == [1, 3, 5, 6] and buffer.dropped == 2
    buffer.add(event(7))
    buffer.rewind()
    assert sequences(buffer.batch()) == [3, 5, 6, 7]


def test_the_bytes_are_bounded_too() -> None:
    buffer = TelemetryBuffer(BufferConfig(bytes_max=100_000))
    for i in range(1, 20):
        buffer.add(event(i, 20_000))
    assert buffer._bytes <= 100_000 and buffer.dropped == 19 - len(buffer)


def test_a_batch_that_cannot_be_read_does_not_stand_in_the_way() -> None:
    buffer = filled(BATCH_ITEMS_MAX + 3)
    buffer.batch()
    buffer.refused()
    buffer.rewind()
    assert sequences(buffer.batch()) == [BATCH_ITEMS_MAX + 1, BATCH_ITEMS_MAX + 2, BATCH_ITEMS_MAX + 3]
    assert buffer.dropped == BATCH_ITEMS_MAX


def test_limits_that_make_no_sense() -> None:
    for config in ({"items_max": 0}, {"bytes_max": 10}, {"batches_in_flight_max": 0}):
        with pytest.raises(ConfigError):
            BufferConfig(**config)


@given(st.lists(st.sampled_from(["event", "report", "send", "ack", "reconnect"]), max_size=120))
def test_nothing_is_lost_or_counted_twice_while_there_is_room(actions: list[str]) -> None:
    buffer = TelemetryBuffer(BufferConfig(batches_in_flight_max=2))
    made: list[Item] = []
    stored: set[int] = set()
    wire: list[list[int]] = []
    for action in actions:
        if action in ("event", "report"):
            made.append((event if action == "event" else report)(len(made) + 1))
            buffer.add(made[-1])
        elif action == "send" and (batch := buffer.batch()) is not None:
            wire.append(sequences(batch))
        elif action == "ack" and wire:
            batch_seen = wire.pop(0)
            stored.update(batch_seen)
            buffer.acknowledge(batch_seen[-1])
        elif action == "reconnect":
            wire.clear()
            buffer.rewind()
        assert sorted(stored | set(buffer._items)) == list(range(1, len(made) + 1))
        assert buffer._bytes == sum(map(len, buffer._items.values()))
