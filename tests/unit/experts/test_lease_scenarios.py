"""Several keepers on one simulated store (lease_world): what happens to experts when hosts come, go, sleep and die."""

from __future__ import annotations

import pytest

from agent.experts.leases import LeaseConfig
from agent.grid import Grid
from tests.unit.experts.lease_world import Faults, World

GRID = Grid("ffn0", (4, 4))
CONFIG = LeaseConfig()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [0.0, 0.5, 2.5])
def test_three_that_start_together_share(seed: int, gap: float) -> None:
    world = World(GRID, seed=seed)
    for _ in range(3):
        world.start()
        world.run(gap)
    world.run(10.0 - 3 * gap)
    assert world.hosted() == len(GRID)
    world.run(10.0)
    assert world.is_settled()
    assert max(world.loads()) - min(world.loads()) <= 2
    assert world.longest_overlap < 1.0


def test_one_alone_takes_more_and_more_while_nobody_comes() -> None:
    world = World(GRID)
    site = world.start()
    steps = [(3.0, 6), (8.0, 8), (8.0, 16)]  # room for two more, then for one, and for nobody
    for seconds, share in steps:
        world.run(seconds)
        assert len(site.serving) == share


@pytest.mark.parametrize("seed", range(5))
def test_those_that_take_long_to_start_find_their_share(seed: int) -> None:
    world = World(GRID, seed=seed)
    world.start()
    world.run(10.0)  # two more were started with it, on a busy machine
    world.start()
    world.start()
    world.run(10.0)
    assert world.is_settled()
    assert world.loads()[0] == 8 and min(world.loads()) >= 2


def test_capacity_is_respected_and_what_does_not_fit_stays_vacant() -> None:
    world = World(GRID)
    a, b = world.start(capacity=3), world.start(capacity=5)
    world.run(30.0)
    assert (len(a.serving), len(b.serving)) == (3, 5)
    assert a.keeper.vacant() == 8
    c = world.start(capacity=8)
    world.run(5.0)
    assert len(c.serving) == 8
    assert world.is_settled()


@pytest.mark.parametrize("seed", range(5))
def test_orphans_are_taken_over_soon_and_evenly(seed: int) -> None:
    world = World(GRID, seed=seed)
    sites = [world.start() for _ in range(4)]
    world.run(20.0)
    orphans = dict(sites[0].serving)
    world.crash(sites[0])
    world.run(CONFIG.lease_s + 4.0)
    assert world.is_settled()
    assert max(world.loads()[1:]) - min(world.loads()[1:]) <= 2
    for uid, epoch in orphans.items():
        assert world.holders(uid)[0].serving[uid] > epoch


def test_two_that_die_together() -> None:
    world = World(GRID, seed=3)
    sites = [world.start() for _ in range(4)]
    world.run(20.0)
    world.crash(sites[0])
    world.crash(sites[1])
    world.run(CONFIG.lease_s + 8.0)
    assert world.is_settled()


def test_a_newcomer_takes_orphans_but_nothing_that_has_learned() -> None:
    world = World(GRID)
    a, b = world.start(), world.start()
    world.run(20.0)
    before = (dict(a.serving), dict(b.serving))
    newcomer = world.start()
    world.run(20.0)
    assert (a.serving, b.serving, newcomer.serving) == (*before, {})
    world.crash(a)
    world.run(CONFIG.lease_s + 4.0)
    assert world.is_settled()
    assert len(newcomer.serving) >= 5


def test_one_that_leaves_is_replaced_sooner_than_one_that_crashes() -> None:
    world = World(GRID)
    a, b = world.start(), world.start()
    world.run(20.0)
    world.leave(a)
    assert a.serving == {}
    world.run(CONFIG.release_s + 4.0)
    assert len(b.serving) == 16
    assert a.keeper.next_deadline() is None


def test_one_that_slept_does_not_come_back_as_host() -> None:
    world = World(GRID)
    a, _ = world.start(), world.start()
    world.run(20.0)
    held = dict(a.serving)
    world.freeze(a, 60.0)
    world.run(59.0)
    taken = {uid: [s.serving[uid] for s in world.holders(uid) if s is not a] for uid in held}
    assert all(epochs and epochs[0] > held[uid] for uid, epochs in taken.items())
    world.run(1.5)
    assert a.serving == {}
    assert {drop.reason for at, drop in a.drops if at > 20.0} == {"lapsed"}
    world.run(20.0)
    assert world.is_settled()


def test_one_that_restarts_gets_its_experts_back() -> None:
    world = World(GRID)
    a, _ = world.start(), world.start()
    world.run(20.0)
    held = set(a.serving)
    world.crash(a)
    world.run(1.0)
    again = world.start(peer=a.peer)
    world.run(6.0)
    assert set(again.serving) == held


def test_nobody_steals_when_reads_find_nothing() -> None:
    """For over half of a lease that looks like a vacancy to nobody."""
    world = World(GRID)
    for _ in range(3):
        world.start()
    world.run(20.0)
    before = [dict(s.serving) for s in world.sites]
    world.faults = Faults(empty=1.0)
    world.run(7.0)
    world.faults = Faults()
    world.run(20.0)
    assert [s.serving for s in world.sites] == before


def test_losses_are_lived_with() -> None:
    world = World(GRID, seed=1)
    world.faults = Faults(delay_max=0.5, lost=0.1, unread=0.1)
    for _ in range(4):
        world.start()
    world.run(30.0)
    before = [dict(s.serving) for s in world.sites]
    world.run(120.0)
    assert [s.serving for s in world.sites] == before


def test_a_large_grid_is_read_in_rounds() -> None:
    world = World(Grid("ffn0", (20, 20)), config=LeaseConfig(scan_uids_max=100, claims_max=50))
    for _ in range(3):
        world.start(capacity=1000)
    world.run(60.0)
    assert world.is_settled()
