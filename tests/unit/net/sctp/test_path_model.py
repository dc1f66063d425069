"""What acknowledgements say about a path."""

from __future__ import annotations

import pytest

from agent.net.sctp.congestion import AckSample
from agent.net.sctp.path_model import LUMPS_PERIODS, LUMPS_S, MIN_RTT_PERIODS, STANDING_SAMPLES, PathModel


def sample(now: float, acked: int, delivered: int, *, rtt_s: float = 0.05, lost: int = 0, round_trip: bool = True) -> AckSample:
    before = delivered - acked if round_trip else -1
    return AckSample(now, acked, lost, 10_000, True, False, rtt_s, delivered, before, 0.05, False)


def run(path: PathModel, rounds: int, *, rtt_s: float = 0.05, start: float = 0.0) -> float:
    now, delivered = start, int(1e6 * start)
    for _ in range(rounds):
        now += 0.05
        delivered += 50_000
        path.acked(sample(now, 50_000, delivered, rtt_s=rtt_s))
    return now


def test_rate_delay_and_rounds():
    path = PathModel(bridge_s=0.1, bridge_bytes=0)
    assert path.product == path.rate == path.recent_rate == path.queue_s == path.bridge_s == 0
    run(path, 10)
    assert path.rate == pytest.approx(1e6)
    assert path.recent_rate == pytest.approx(1e6)
    assert path.product == pytest.approx(50_000)
    assert path.round == 10
    assert path.rate_of(5) == pytest.approx(1e6)
    assert path.rate_of(-1) == 0


def test_a_queue_that_others_keep_does_not_pass_for_distance():
    path = PathModel(bridge_s=0.1, bridge_bytes=0)
    now = run(path, 10)
    for _ in range(MIN_RTT_PERIODS - 1):
        now = run(path, 220, rtt_s=0.09, start=now)
        path.expire_min_rtt(now)
        assert path.min_rtt == pytest.approx(0.05)
        assert path.queue_s == pytest.approx(0.04)
        assert path.queue_full_s == pytest.approx(0.04)
    now = run(path, 220, rtt_s=0.09, start=now)
    path.expire_min_rtt(now)
    run(path, 10, rtt_s=0.09, start=now)
    assert path.min_rtt == pytest.approx(0.09)


def test_a_queue_stands_once_several_round_trips_say_so():
    path = PathModel(bridge_s=0.1, bridge_bytes=0)
    assert path.standing_s == 0
    now = run(path, 10)
    for _ in range(STANDING_SAMPLES):
        assert path.standing_s == 0
        now += 0.05
        path.acked(sample(now, 25_000, int(1e6 * now), rtt_s=0.08))
    assert path.standing_s == pytest.approx(0.03)
    assert path.rate_now == pytest.approx(0.5e6)
    run(path, 1, start=now)
    assert path.standing_s == 0


def test_a_single_lump_is_forgotten_and_lumps_all_the_time_are_provided_for():
    path = PathModel(bridge_s=0.1, bridge_bytes=0)
    now = run(path, 40)
    path.acked(sample(now + 0.0001, 60_000, int(1e6 * now) + 60_000, round_trip=False))
    now = run(path, 10 * LUMPS_PERIODS, start=now + 0.05)
    assert path.lump_bytes < 60_000
    for _ in range(2 * LUMPS_PERIODS):
        now += LUMPS_S / 2
        path.acked(sample(now, 200_000, 0, round_trip=False))
    assert path.lump_bytes > 60_000


@pytest.mark.parametrize(("bridge_s", "bridge_bytes", "most"), [(0.01, 0, 10_000), (0.001, 60_000, 60_000), (0.1, 0, 100_000)])
def test_lateness_is_bridged_up_to_a_limit(bridge_s: float, bridge_bytes: int, most: int):
    path = PathModel(bridge_s=bridge_s, bridge_bytes=bridge_bytes)
    now = run(path, 10)
    for _ in range(2 * LUMPS_PERIODS):
        now += LUMPS_S / 2
        path.acked(sample(now, 400_000, 0, round_trip=False))
    assert path.lump_bytes == pytest.approx(most)
