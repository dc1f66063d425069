"""The strategies by hand; how they behave on paths is in tests/sim/test_sctp_sharing.py."""

from __future__ import annotations

import pytest

from agent.net.sctp.bbr import Bbr, Phase
from agent.net.sctp.congestion import AckSample, NewReno
from tests.unit.net.sctp.bottleneck import RTT_S, Flows, Path, retransmitted


@pytest.mark.parametrize("strategy", ["reno", "bbr"])
def test_alone_it_fills_a_path(strategy: str) -> None:
    flows = Flows(Path(rtt_s=RTT_S / 2), strategy)
    flows.run(1.5)
    assert flows.run(1)[0] > 0.85
    assert retransmitted(flows) < 0.1


def sample(now: float, acked: int, *, lost: int = 0, limited: bool = True, new_round: bool = False) -> AckSample:
    return AckSample(now, acked, lost, 10_000, limited, new_round, 0.05, acked, 0, 0.05, False)


def test_reno_by_hand() -> None:
    reno = NewReno(payload_bytes=1000, initial_packets=10, window_bytes_max=40_000)
    reno.acked(sample(0, 5000))
    assert reno.window == 15_000
    reno.acked(sample(0, 5000, limited=False))
    assert reno.window == 15_000
    reno.acked(sample(0, 1000, lost=1000, new_round=True))
    assert reno.window == 7500
    reno.acked(sample(0, 1000, lost=1000, new_round=False))
    assert reno.window == 7500
    reno.acked(sample(0, 7500))
    assert reno.window == 8500
    reno.timed_out(0)
    assert reno.window == 1000
    for _ in range(500):
        reno.acked(sample(0, 20_000))
    assert reno.window == 40_000
    reno.packet_size(16_000)
    assert reno.window == 64_000


def test_bbr_starts_up_and_ends_at_the_limit() -> None:
    bbr = Bbr(payload_bytes=1000, window_bytes_max=50_000)
    assert bbr.phase is Phase.STARTUP
    now, delivered = 0.0, 0
    for _ in range(30):
        now += 0.05
        before, delivered = delivered, delivered + 1_000_000
        bbr.acked(AckSample(now, 1_000_000, 0, 10_000, True, False, 0.05, delivered, before, 0.05, False))
    assert bbr.rate == pytest.approx(20e6)
    assert bbr.phase is not Phase.STARTUP
    assert bbr.window <= 50_000
    bbr.timed_out(now)
    assert bbr.window == 4000


def test_bbr_is_not_slowed_by_a_small_first_message() -> None:
    bbr = Bbr(payload_bytes=1000)
    bbr.acked(AckSample(0.05, 100, 0, 0, False, False, 0.05, 100, 0, 0.05, False))
    assert bbr.pacing_rate is not None
    assert bbr.pacing_rate > 10_000 / 0.05
    assert bbr.window >= 10_000
