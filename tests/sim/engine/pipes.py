"""One direction of a simulated data link: what `net/sctp` makes of a path, as far as the machines above it can tell.

Messages of each lane arrive in order and exactly once. Control goes before bulk, packet by packet, so it delays a bulk message
that is being sent instead of waiting for it. What is lost on the path comes later, and all behind it in its lane.
`buffered_bytes` counts what has not been acknowledged. While nothing gets through (a stall, a partition), everything waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from agent.wire.codec import Lane
from tests.sim.engine.links import Links
from tests.sim.engine.schedule import Schedule

GAP_S = 1e-6  # between two messages: less would vanish beside a Unix time, and with it their order
AGAIN_S = (0.2, 1.0)  # after how long what was lost is sent again
PROBE_S = 0.5  # how often a sender tries while nothing gets through


class Pipe:
    """`deliver` takes messages at the other end; `acknowledged` is called when there is room again. `parted` says whether a
    partition cuts the path."""

    def __init__(
        self,
        schedule: Schedule,
        links: Links,
        parted: Callable[[], bool],
        deliver: Callable[[Lane, bytes, Callable[[], None]], None],
        acknowledged: Callable[[], None],
    ) -> None:
        self.buffered_bytes = 0
        self.buffered_most = 0
        self.severed = False  # nothing arrives any more, and nobody is told
        self.stalled_until = 0.0
        self._schedule = schedule
        self._links = links
        self._parted = parted
        self._deliver = deliver
        self._acknowledged = acknowledged
        self._bulk: deque[bytes] = deque()
        self._sending: bytes | None = None  # of bulk
        self._bulk_sent_at = self._control_sent_at = 0.0
        self._arrives_at = [0.0, 0.0]
        self._travelling: tuple[deque[bytes], deque[bytes]] = (deque(), deque())

    def send(self, lane: Lane, data: bytes) -> None:
        """Never blocks."""
        now = self._schedule.now
        self.buffered_bytes += len(data)
        self.buffered_most = max(self.buffered_most, self.buffered_bytes)
        if lane is Lane.BULK:
            self._bulk.append(data)
            if self._sending is None:
                self._send_bulk()
            return
        takes_s = self._takes(data)
        self._control_sent_at = max(now, self._control_sent_at) + takes_s
        self._bulk_sent_at += takes_s
        self._travel(lane, data, self._control_sent_at)

    def _takes(self, data: bytes) -> float:
        rate = self._links.bytes_per_s
        return len(data) / rate if rate else GAP_S

    def _send_bulk(self) -> None:
        if self._bulk:
            self._sending = self._bulk.popleft()
            self._bulk_sent_at = max(self._schedule.now, self._control_sent_at) + self._takes(self._sending)
            self._schedule.at(self._bulk_sent_at, self._bulk_sent)

    def _bulk_sent(self) -> None:
        if self._bulk_sent_at > self._schedule.now:  # control has gone before it since
            self._schedule.at(self._bulk_sent_at, self._bulk_sent)
            return
        data, self._sending = self._sending, None
        assert data is not None
        self._travel(Lane.BULK, data, self._schedule.now)
        self._send_bulk()

    def _travel(self, lane: Lane, data: bytes, sent_at: float) -> None:
        arrives_at = sent_at + self._links.latency() + self._links.again(AGAIN_S)
        self._arrives_at[lane] = arrives_at = max(arrives_at, self._arrives_at[lane] + GAP_S)
        self._travelling[lane].append(data)
        self._schedule.at(arrives_at, self._arrive, lane)

    def _arrive(self, lane: Lane) -> None:
        """The oldest message of the lane arrives, whichever's time it is: so order holds however long something stood still."""
        now = self._schedule.now
        if self.severed:
            self._travelling[lane].clear()
        elif now < self.stalled_until:
            self._schedule.at(self.stalled_until, self._arrive, lane)
        elif self._parted():
            self._schedule.at(now + PROBE_S, self._arrive, lane)
        else:
            data = self._travelling[lane].popleft()
            self._deliver(lane, data, lambda: self._acknowledge_later(len(data)))

    def _acknowledge_later(self, size: int) -> None:
        self._schedule.at(self._schedule.now + self._links.latency(), self._acknowledge, size)

    def _acknowledge(self, size: int) -> None:
        if not self.severed:
            self.buffered_bytes -= size
            self._acknowledged()
