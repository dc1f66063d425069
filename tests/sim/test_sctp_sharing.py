"""How our congestion control behaves on a shared path: two of a kind, and beside NewReno, on short and on long queues.

A bottleneck of 8 Mbit/s and 40 ms keeps the runs of whole associations short; 100 Mbit/s run without them (light.py).
CUBIC and the first BBR are written after their specifications (tests/unit/net/sctp/rivals.py); the measured runs beside the
kernel's own are in docs/results.md.
"""

from __future__ import annotations

import pytest

from tests.unit.net.sctp.bottleneck import PRODUCT, RATE, RTT_S, Flows, Path, retransmitted
from tests.unit.net.sctp.light import Bottleneck, SharedLink


@pytest.mark.parametrize("strategy", ["reno", "bbr"])
@pytest.mark.parametrize("queue", [1.0, 4.0])
def test_alone_it_fills_the_path(strategy: str, queue: float) -> None:
    flows = Flows(Path(queue_bytes=queue * PRODUCT), strategy)
    flows.run(4)
    assert flows.run(4)[0] > 0.9
    assert retransmitted(flows) < 0.05


def test_bbr_keeps_the_queue_short() -> None:
    flows = Flows(Path(queue_bytes=8 * PRODUCT), "bbr")
    flows.run(4)
    flows.queue_s.clear()
    flows.run(4)
    assert sum(flows.queue_s) / len(flows.queue_s) < 0.5 * RTT_S


def test_looking_for_more_leaves_control_a_short_queue_on_a_long_path() -> None:
    shared = SharedLink(Bottleneck(rtt_s=0.1, queue_bytes=5e6), ["ours"])
    shared.run(6)
    assert shared.run(9)[0] > 0.9
    assert shared.queue_max_s < 0.02


def test_a_path_that_gets_slower_is_left_no_queue() -> None:
    shared = SharedLink(Bottleneck(rtt_s=0.1, queue_bytes=5e6), ["ours"])
    shared.run(6)
    shared.link = Bottleneck(rate=0.75 * 12.5e6, rtt_s=0.1, queue_bytes=5e6)
    shared.run(0.4)
    shared.run(0.5)
    assert shared.queue_s < 0.02


@pytest.mark.parametrize(("loss", "share"), [(0.01, 0.85), (0.05, 0.4)])
def test_bbr_does_not_mind_random_loss(loss: float, share: float) -> None:
    flows = Flows(Path(loss=loss), "bbr")
    flows.run(4)
    assert flows.run(6)[0] > share


@pytest.mark.parametrize("strategy", ["reno", "bbr"])
def test_two_flows_share_within_two_to_one(strategy: str) -> None:
    flows = Flows(Path(), strategy, strategy)
    flows.run(6)
    one, other = flows.run(12)
    assert 0.5 < one / other < 2
    assert one + other > 0.85


@pytest.mark.parametrize("queue", [0.5, 1.0, 4.0])
def test_bbr_and_reno_leave_each_other_room(queue: float) -> None:
    flows = Flows(Path(queue_bytes=queue * PRODUCT), "bbr", "reno")
    flows.run(6 if queue < 2 else 18)  # NewReno's first overshoot fills a long queue for a while
    shares = flows.run(12)
    assert min(shares) > 0.24
    assert sum(shares) > 0.85


@pytest.mark.parametrize("queue", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("first", ["bbr", "cubic"])
def test_bbr_and_cubic_leave_each_other_room(queue: float, first: str) -> None:
    flows = Flows(Path(queue_bytes=queue * PRODUCT, late_s=0.001), first, "cubic" if first == "bbr" else "bbr")
    flows.run(15)
    shares = flows.run(25)
    assert min(shares) > 0.24
    assert sum(shares) > 0.9


@pytest.mark.parametrize("queue", [1.0, 4.0])
@pytest.mark.parametrize("first", ["bbr", "bbr-1"])
def test_bbr_holds_its_own_beside_one_that_does_not_react_to_loss(queue: float, first: str) -> None:
    flows = Flows(Path(queue_bytes=queue * PRODUCT, late_s=0.001), first, "bbr-1" if first == "bbr" else "bbr")
    flows.run(10)
    shares = flows.run(15)
    assert min(shares) > 0.24
    assert sum(shares) > 0.9


@pytest.mark.parametrize("queue", [60, 300])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("other", ["ours", "cubic", "bbr-1"])
def test_at_100_mbit_nobody_gets_less_than_a_quarter(queue: int, first: bool, other: str) -> None:
    """The link of `./hive bench sharing`; more queues, seeds and orders: `./hive sim shared-link`."""
    shared = SharedLink(Bottleneck(queue_bytes=queue * 1500), ["ours", other] if first else [other, "ours"], seed=4)
    shared.run(8)
    shares = shared.run(20)
    assert min(shares) / sum(shares) > (1 / 3 if other == "ours" else 1 / 4)
    assert sum(shares) > 0.9


@pytest.mark.parametrize("queue", [60, 300])
@pytest.mark.parametrize("kinds", ["ours ours cubic", "cubic ours ours", "ours ours ours cubic", "cubic cubic cubic ours"])
def test_several_that_yield_are_not_taken_for_one_that_does_not(queue: int, kinds: str) -> None:
    """An agent has many connections, and others use its link: each flow gets half of an equal part at least."""
    flows = kinds.split()
    shared = SharedLink(Bottleneck(queue_bytes=queue * 1500), flows, seed=2, gap_s=1)
    shared.run(15)
    shares = shared.run(30)
    assert min(shares) / sum(shares) > 1 / 2 / len(flows)
    assert sum(shares) > 0.9


@pytest.mark.parametrize(("queue", "seed"), [(60, 8), (120, 4), (120, 7), (300, 1)])
def test_a_newcomer_beside_bbr_gets_its_quarter(queue: int, seed: int) -> None:
    """It comes when the queue is full already, and begins small: with these seeds it once got a twentieth."""
    shared = SharedLink(Bottleneck(queue_bytes=queue * 1500), ["bbr-1", "ours"], seed=seed, gap_s=4)
    shared.run(16)
    shares = shared.run(16)
    assert min(shares) / sum(shares) > 1 / 4


def test_bbr_follows_a_path_that_changes() -> None:
    flows = Flows(Path(), "bbr")
    flows.run(4)
    flows.path.rate = RATE / 4
    flows.run(6)
    assert flows.run(4)[0] > 0.8
    assert retransmitted(flows) < 0.1
    flows.path.rate = RATE
    flows.run(10)
    assert flows.run(4)[0] > 0.8


@pytest.mark.parametrize("late_s", [0.003, 0.03])
def test_busy_hosts_do_not_make_it_slow(late_s: float) -> None:
    """On a short path, with both processes far slower to react than the path is long (agents that train)."""
    flows = Flows(Path(rate=5e6, rtt_s=0.0005, queue_bytes=2e6, late_s=late_s), "bbr")
    flows.run(1.5)
    assert flows.run(1)[0] > 0.85
