"""Several lease keepers, a storm of faults, then calm: whatever happened, every expert ends up with exactly one holder."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.experts.leases import LeaseConfig
from agent.grid import Grid
from tests.unit.experts.lease_world import Faults, World

GRID = Grid("ffn0", (3, 3))
CONFIG = LeaseConfig(lease_s=12.0)

storms = st.builds(
    Faults,
    delay_max=st.sampled_from([0.01, 0.3, 2.0]),
    lost=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    unread=st.sampled_from([0.0, 0.3, 1.0]),
    empty=st.sampled_from([0.0, 0.3, 1.0]),
)
happenings = st.tuples(
    st.sampled_from(["start", "crash", "freeze", "restart", "leave", "storm", "calm"]),
    st.integers(0, 5),
    st.sampled_from([0.0, 0.7, 3.0, 11.9, 12.1, 30.0]),
    storms,
)


def happen(world: World, what: str, which: int, storm: Faults) -> None:
    alive = [s for s in world.sites if s.alive]
    site = alive[which % len(alive)] if alive else None
    if what == "start" and len(alive) < 6:
        world.start(capacity=(20, 3, 9)[which % 3])
    elif what == "storm":
        world.faults = storm
    elif what == "calm":
        world.faults = Faults()
    elif site is None:
        return
    elif what == "freeze":
        world.freeze(site, 5.0 * (1 + which))
    elif what in ("crash", "restart", "leave") and len(alive) > 1:
        if what == "leave":
            world.leave(site)
        world.crash(site)
        if what == "restart":
            world.start(peer=site.peer)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.lists(happenings, max_size=12), st.booleans())
def test_one_holder_in_the_end_and_no_lasting_doubles_on_the_way(
    seed: int, story: list[tuple[str, int, float, Faults]], blind: bool
) -> None:
    world = World(GRID, seed=seed, config=CONFIG)
    world.start(capacity=20)
    world.start(capacity=9)
    delays = [world.faults.delay_max]
    for what, which, pause, storm in story:
        happen(world, what, which, storm if blind else replace(storm, empty=0.0))
        delays.append(world.faults.delay_max)
        world.run(pause)

    world.faults = Faults()
    if sum(s.keeper.capacity for s in world.sites if s.alive) < len(GRID):
        world.start(capacity=20)
    world.run(30.0)  # the last freeze
    world.run(2 * CONFIG.lease_s + 4 * CONFIG.patience_s)
    assert world.is_settled()
    before = [dict(s.serving) for s in world.sites]
    world.run(5 * CONFIG.lease_s)
    assert [s.serving for s in world.sites] == before, "calm, and yet experts move"
    assert all(len(s.serving) <= s.keeper.capacity for s in world.sites)
    # Two that serve one expert under one epoch: for a lease at most after the second one's lease can be read. (While reads find
    # nothing though there is something, nobody can know.)
    assert blind or world.longest_overlap <= CONFIG.lease_s + max(delays)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.floats(0.0, 2.5), min_size=2, max_size=2), st.sampled_from([0.01, 0.1, 0.3]))
def test_three_that_start_within_five_seconds_share(seed: int, gaps: list[float], delay_max: float) -> None:
    world = World(Grid("ffn0", (4, 8)), seed=seed, config=CONFIG)
    world.faults = Faults(delay_max=delay_max)
    world.start()
    for gap in gaps:
        world.run(gap)
        world.start()
    world.run(10.0 - world.now)
    assert world.hosted() == 32
    world.run(15.0)
    assert world.is_settled()
    assert min(world.loads()) >= 8, world.loads()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from([0.01, 0.1, 0.3]))
def test_orphans_are_adopted_within_a_lease_and_a_few_seconds(seed: int, hosts: int, delay_max: float) -> None:
    world = World(Grid("ffn0", (4, 8)), seed=seed, config=CONFIG)
    world.faults = Faults(delay_max=delay_max)
    for _ in range(hosts):
        world.start()
    world.run(30.0)
    world.crash(world.sites[seed % hosts])
    world.run(CONFIG.lease_s + 4.0)
    assert world.is_settled()
    loads = [len(s.serving) for s in world.sites if s.alive]
    assert max(loads) - min(loads) <= 8, loads


def test_the_same_seed_tells_the_same_story() -> None:
    def story() -> list[dict[object, int]]:
        world = World(GRID, seed=7, config=CONFIG)
        world.faults = Faults(delay_max=1.0, lost=0.3, unread=0.3)
        for _ in range(4):
            world.start()
        world.run(100.0)
        return [dict(s.serving) for s in world.sites]

    assert story() == story()
