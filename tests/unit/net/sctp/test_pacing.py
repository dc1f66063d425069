"""What may go out by now."""

from __future__ import annotations

import pytest

from agent.net.sctp.congestion import NewReno
from agent.net.sctp.pacing import QUANTUM_S, Pacer


def pacer(rate: float | None, burst_s: float = 0.01) -> Pacer:
    control = NewReno(payload_bytes=1000)
    control.pacing_rate, control.burst_s = rate, burst_s
    return Pacer(control)


def test_without_a_rate_everything_may_go():
    free = pacer(None)
    assert free.budget(1.0, 1000) == (float("inf"), False)
    free.spend(float("inf") - 5)
    assert free.next_time() is None


def test_a_rate_spreads_packets_and_a_stall_is_made_good_only_in_part():
    paced = pacer(1e6)
    budget, late = paced.budget(1.0, 1000)
    assert budget == pytest.approx(10_000) and not late
    paced.spend(budget)
    assert paced.budget(1.0, 1000)[0] == pytest.approx(0)
    assert paced.budget(1.004, 1000)[0] == pytest.approx(4000)
    paced.waiting = True
    assert paced.next_time() == pytest.approx(1.0 + QUANTUM_S / 2)
    budget, late = paced.budget(3.0, 1000)
    assert budget == pytest.approx(10_000) and late
    paced.restart(5.0)
    assert paced.budget(5.0, 1000)[0] == pytest.approx(0)


def test_two_packets_may_always_go():
    assert pacer(1000.0).budget(10.0, 1000)[0] == pytest.approx(2000)
