from __future__ import annotations

import pytest

from agent.experts.claims import Seat, fair_share, turns
from agent.experts.records import affinity
from agent.grid import ExpertId, Grid

HOSTS = [bytes([i]) * 32 for i in range(5)]
GRID = list(Grid("ffn0", (4, 4)))


@pytest.mark.parametrize(
    ("total", "capacities", "share"),
    [
        (16, [100], 16),
        (16, [100, 100], 8),
        (16, [100, 100, 100], 6),
        (16, [2, 100, 100], 7),
        (16, [2, 3, 100], 11),
        (16, [0, 100], 16),
        (16, [4, 4], 4),
        (16, [1, 3, 5], 5),
        (0, [4], 0),
        (16, [], 0),
    ],
)
def test_fair_share(total: int, capacities: list[int], share: int) -> None:
    assert fair_share(total, capacities) == share
    assert sum(min(c, share) for c in capacities) >= min(total, sum(capacities))


def test_everyone_computes_the_same_turns() -> None:
    seats = {h: Seat(16, 0) for h in HOSTS}
    backwards = dict(reversed(list(seats.items())))
    assert turns(GRID, seats, 4) == turns(GRID[::-1], backwards, 4)


def test_first_turns_respect_the_share_and_fill_everything() -> None:
    seats = {h: Seat(100, 0) for h in HOSTS}
    order = turns(GRID, seats, fair_share(16, [100] * 5))
    first = [order[uid][0] for uid in GRID]
    assert sorted(first.count(h) for h in HOSTS) in (
        [2, 3, 3, 4, 4],
        [3, 3, 3, 3, 4],
        [0, 4, 4, 4, 4],
        [1, 3, 4, 4, 4],
        [2, 2, 4, 4, 4],
    )
    assert all(len(order[uid]) == 5 for uid in GRID)


def test_affinity_decides_between_equals() -> None:
    uid = ExpertId("ffn0", (1, 1))
    order = turns([uid], {h: Seat(10, 0) for h in HOSTS}, 10)[uid]
    assert order == sorted(HOSTS, key=lambda h: affinity(h, str(uid)))


def test_the_loaded_come_later_and_the_full_never() -> None:
    uid = GRID[0]
    seats = {HOSTS[0]: Seat(10, 10), HOSTS[1]: Seat(10, 9), HOSTS[2]: Seat(10, 2)}
    assert turns([uid], seats, 5)[uid] == [HOSTS[2], HOSTS[1]]
    assert turns([uid], {HOSTS[0]: Seat(10, 10)}, 5) == {uid: []}


def test_first_turns_never_exceed_room() -> None:
    seats = {HOSTS[0]: Seat(3, 1), HOSTS[1]: Seat(2, 0)}
    order = turns(GRID, seats, 3)
    first = [hosts[0] for hosts in order.values() if hosts]
    assert (first.count(HOSTS[0]), first.count(HOSTS[1])) == (2, 2)


def test_losing_a_host_moves_only_its_experts() -> None:
    seats = {h: Seat(100, 0) for h in HOSTS}
    before = turns(GRID, seats, 100)
    after = turns(GRID, {h: s for h, s in seats.items() if h != HOSTS[0]}, 100)
    for uid in GRID:
        assert before[uid][0] in (after[uid][0], HOSTS[0])
