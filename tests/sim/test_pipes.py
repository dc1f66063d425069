"""The simulated link keeps what the machines above it rely on: each lane in order, exactly once, control before bulk."""

from __future__ import annotations

import random

from agent.wire.codec import Lane
from tests.sim.engine.links import Links
from tests.sim.engine.pipes import PROBE_S, Pipe
from tests.sim.engine.schedule import START, Schedule


class Path:
    """A pipe whose other end notes what arrives and when, in seconds since the start."""

    def __init__(self, *, bytes_per_s: float = 0.0, lost: float = 0.0) -> None:
        self.schedule = Schedule(1)
        self.links = Links(random.Random(1))
        self.links.bytes_per_s, self.links.lost = bytes_per_s, lost
        self.parted = False
        self.came: list[tuple[Lane, bytes, float]] = []
        self.pipe = Pipe(self.schedule, self.links, lambda: self.parted, self._take, lambda: None)

    def _take(self, lane: Lane, data: bytes, taken: object) -> None:
        self.came.append((lane, data, self.schedule.now - START))
        taken()  # type: ignore[operator]

    def order(self, lane: Lane) -> list[bytes]:
        return [data for at, data, _ in self.came if at is lane]


def test_control_overtakes_bulk_that_is_being_sent_and_delays_it_by_its_own_length() -> None:
    path = Path(bytes_per_s=1000.0)
    path.pipe.send(Lane.BULK, b"b" * 2000)
    path.pipe.send(Lane.BULK, b"c" * 1000)
    path.schedule.run(0.5)
    path.pipe.send(Lane.CONTROL, b"a" * 500)
    path.schedule.run(10)
    assert [data[:1] for _, data, _ in path.came] == [b"a", b"b", b"c"]
    took_s = [when for _, _, when in path.came]
    low, high = path.links.latency_s - path.links.jitter_s, path.links.latency_s + path.links.jitter_s
    for when, sent in zip(took_s, (1.0, 2.5, 3.5), strict=True):
        assert sent + low <= when <= sent + high + 1e-5
    assert path.pipe.buffered_bytes == 0 and path.pipe.buffered_most == 3500


def test_every_lane_keeps_its_order_through_losses_and_stalls() -> None:
    path = Path(lost=0.2)
    rng = random.Random(2)
    sent: dict[Lane, list[bytes]] = {Lane.CONTROL: [], Lane.BULK: []}
    for i in range(300):
        lane = rng.choice(list(Lane))
        sent[lane].append(b"%d" % i)
        path.pipe.send(lane, sent[lane][-1])
        if rng.random() < 0.02:
            path.pipe.stalled_until = path.schedule.now + 3 * rng.random()
        path.schedule.run(0.05 * rng.random())
    path.schedule.run(60)
    assert path.order(Lane.CONTROL) == sent[Lane.CONTROL] and path.order(Lane.BULK) == sent[Lane.BULK]
    assert path.pipe.buffered_bytes == 0


def test_what_waits_through_a_partition_arrives_after_it() -> None:
    path = Path()
    path.parted = True
    for i in range(5):
        path.pipe.send(Lane.CONTROL, b"%d" % i)
    path.schedule.run(30)
    assert path.came == [] and path.pipe.buffered_bytes == 5
    path.parted = False
    path.schedule.run(2 * PROBE_S)
    assert path.order(Lane.CONTROL) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_severed_path_delivers_and_acknowledges_nothing() -> None:
    path = Path()
    path.pipe.send(Lane.BULK, b"x")
    path.pipe.severed = True
    path.pipe.send(Lane.CONTROL, b"y")
    path.schedule.run(30)
    assert path.came == [] and path.pipe.buffered_bytes == 2
