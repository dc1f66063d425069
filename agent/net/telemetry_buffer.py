"""Telemetry items on their way to the coordinator: numbered, bounded, kept until acknowledged. No I/O."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from agent.errors import ConfigError
from agent.reports import BATCH_ITEMS_MAX, ITEM_BYTES_MAX, MESSAGE_BYTES_MAX, Event, Item, encode

REPORTS_APART = 60
"""An outline has one report of so many items: about one a minute."""
_HEAD, _TAIL = b'{"type":"batch","items":[', b"]}"


@dataclass(frozen=True, kw_only=True)
class BufferConfig:
    """What is kept while the coordinator is away."""

    items_max: int = 10_000
    bytes_max: int = 8 << 20
    batches_in_flight_max: int = 8
    """Batches sent and not acknowledged."""

    def __post_init__(self) -> None:
        if self.items_max < 1 or self.bytes_max < ITEM_BYTES_MAX or self.batches_in_flight_max < 1:
            raise ConfigError("the telemetry buffer must hold at least one item of the largest size, and send one batch")


class TelemetryBuffer:
    """Keeps items until they are acknowledged. When it is full the oldest report goes first, and an event only if no report
    is left: counters in reports are cumulative, so the next report makes up for a lost one; nothing makes up for an event."""

    def __init__(self, config: BufferConfig) -> None:
        self._config = config
        self._items: OrderedDict[int, bytes] = OrderedDict()  # by sequence, ascending
        self._reports: deque[int] = deque()  # may name items that are gone
        self._events: deque[int] = deque()
        self._unsent: deque[int] = deque()
        self._in_flight: deque[int] = deque()  # last sequence of each batch
        self._bytes = 0
        self.dropped = 0
        """Items that were lost for want of room, or were too large."""

    def __len__(self) -> int:
        return len(self._items)

    def kept(self) -> list[bytes]:
        """Everything that is not acknowledged, encoded, in order."""
        return list(self._items.values())

    def outline(self) -> list[bytes]:
        """What counts most of that, in order: every event, the newest report, and of the others one in REPORTS_APART."""
        reports = [sequence for sequence in self._reports if sequence in self._items]
        ends = {sequence // REPORTS_APART: sequence for sequence in reports}
        left_out = set(reports) - set(ends.values())
        return [data for sequence, data in self._items.items() if sequence not in left_out]

    def add(self, item: Item) -> None:
        """Take an item. Sequences ascend."""
        data = encode(item)
        if len(data) > ITEM_BYTES_MAX:
            self.dropped += 1
            return
        self._items[item.sequence] = data
        self._bytes += len(data)
        (self._events if isinstance(item, Event) else self._reports).append(item.sequence)
        self._unsent.append(item.sequence)
        while len(self._items) > self._config.items_max or self._bytes > self._config.bytes_max:
            oldest = self._reports or self._events
            if self._remove(oldest.popleft()):
                self.dropped += 1

    def batch(self) -> bytes | None:
        """The next Batch message, or None if there is nothing to send, or enough is under way."""
        if len(self._in_flight) >= self._config.batches_in_flight_max:
            return None
        chosen: list[bytes] = []
        size = len(_HEAD) + len(_TAIL)
        last = 0
        while self._unsent and len(chosen) < BATCH_ITEMS_MAX:
            data = self._items.get(self._unsent[0])
            if data is not None:
                if size + len(data) + 1 > MESSAGE_BYTES_MAX:
                    break
                chosen.append(data)
                size += len(data) + 1
                last = self._unsent[0]
            self._unsent.popleft()
        if not chosen:
            return None
        self._in_flight.append(last)
        return _HEAD + b",".join(chosen) + _TAIL

    def acknowledge(self, sequence: int) -> None:
        """Everything up to and including `sequence` is stored."""
        while self._in_flight and self._in_flight[0] <= sequence:
            self._in_flight.popleft()
        while self._items and (first := next(iter(self._items))) <= sequence:
            self._remove(first)
        for queue in (self._reports, self._events, self._unsent):
            while queue and queue[0] <= sequence:
                queue.popleft()

    def rewind(self) -> None:
        """A new connection: everything that is not acknowledged is to be sent again."""
        self._in_flight.clear()
        self._unsent = deque(self._items)

    def refused(self) -> None:
        """The coordinator cannot read the oldest batch under way: give it up, so that it does not stand in the way for ever."""
        if self._in_flight:
            before = len(self._items)
            self.acknowledge(self._in_flight[0])
            self.dropped += before - len(self._items)

    def _remove(self, sequence: int) -> bool:
        data = self._items.pop(sequence, None)
        if data is not None:
            self._bytes -= len(data)
        return data is not None
