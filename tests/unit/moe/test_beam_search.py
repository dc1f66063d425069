from __future__ import annotations

import random
import time
from collections.abc import Collection

import pytest
import torch

from agent.grid import ExpertId, Grid
from agent.moe.beam_search import BeamConfig, BeamSearch
from tests.unit.moe.reference import brute_force


class Listing:
    """A directory that knows which experts live, and may list stale prefixes as well."""

    def __init__(self, live: set[ExpertId], stale: Collection[tuple[int, ...]] = ()) -> None:
        self.known: dict[tuple[int, ...], set[int]] = {}
        for path in [*(uid.coordinates for uid in live), *stale]:
            for d, coordinate in enumerate(path):
                self.known.setdefault(path[:d], set()).add(coordinate)
        self.rounds = 0

    def run(self, search: BeamSearch) -> torch.Tensor:
        while wanted := search.wanted():
            assert len(set(wanted)) == len(wanted)
            self.rounds += 1
            search.supply({p: self.known[p] for p in wanted if p in self.known})
        return search.best()


def found(best: torch.Tensor) -> list[list[int]]:
    return [[n for n in row if n >= 0] for row in best.tolist()]


@pytest.mark.parametrize("shape", [(9,), (6, 5), (3, 4, 3), (3, 2, 3, 2)])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.15, 0.0])
def test_a_wide_beam_equals_brute_force(shape: tuple[int, ...], share: float) -> None:
    rng = random.Random(f"{shape}{share}")
    torch.manual_seed(3)
    grid = Grid("ffn0", shape)
    live = {uid for uid in grid if rng.random() < share}
    logits = torch.randn(20, sum(shape))
    search = BeamSearch(grid, logits, 4, config=BeamConfig(width=64, width_max=64))
    assert found(Listing(live).run(search)) == brute_force(logits, grid, 4, live, [set()] * 20)
    assert search.exact.all()


@pytest.mark.parametrize("shape", [(6, 5), (4, 4, 4)])
def test_rows_called_exact_are_exact_even_with_a_narrow_beam(shape: tuple[int, ...]) -> None:
    rng = random.Random(7)
    torch.manual_seed(7)
    grid = Grid("ffn0", shape)
    exact = 0
    for _ in range(30):
        live = {uid for uid in grid if rng.random() < 0.3}
        logits = torch.randn(10, sum(shape))
        search = BeamSearch(grid, logits, 2, config=BeamConfig(width=2, width_max=2))
        best = found(Listing(live).run(search))
        expected = brute_force(logits, grid, 2, live, [set()] * 10)
        for row in search.exact.nonzero()[:, 0].tolist():
            assert best[row] == expected[row]
            exact += 1
    assert 0 < exact < 300


def test_a_beam_of_k_is_exact_on_a_complete_grid() -> None:
    torch.manual_seed(0)
    grid = Grid("ffn0", (16, 16))
    logits = torch.randn(50, 32)
    search = BeamSearch(grid, logits, 4, config=BeamConfig(width=4, width_max=4))
    assert found(Listing(set(grid)).run(search)) == brute_force(logits, grid, 4, set(grid), [set()] * 50)


def test_stale_prefixes_in_three_dimensions_only_lose_their_beams() -> None:
    """hivemind's batch_find_best_experts breaks here: the prefix is listed, and nobody lives below it any more."""
    grid = Grid("ffn0", (3, 3, 3))
    live = {ExpertId("ffn0", (2, 2, 2)), ExpertId("ffn0", (2, 0, 1))}
    logits = torch.tensor([[9.0, 5, 0, 9, 5, 0, 9, 5, 0]])  # the gate likes the stale ones best
    listing = Listing(live, stale=[(0,), (0, 1), (1, 0), (1, 1)])
    search = BeamSearch(grid, logits, 2, config=BeamConfig(width=2, width_max=32))
    assert found(listing.run(search)) == brute_force(logits, grid, 2, live, [set()])
    assert search.exact.all()


def test_a_short_result_widens_the_beam_up_to_the_limit() -> None:
    grid = Grid("ffn0", (8, 8))
    live = {ExpertId("ffn0", (7, 7))}
    stale = [(i,) for i in range(7)]
    logits = torch.arange(8.0).flip(0).repeat(2)[None]
    narrow = BeamSearch(grid, logits, 1, config=BeamConfig(width=2, width_max=2))
    assert found(Listing(live, stale).run(narrow)) == [[]] and not narrow.exact.any()
    wide = BeamSearch(grid, logits, 1, config=BeamConfig(width=2, width_max=8))
    assert found(Listing(live, stale).run(wide)) == [[63]]


def test_excluded_experts_are_not_found_again() -> None:
    torch.manual_seed(2)
    grid = Grid("ffn0", (5, 5))
    logits = torch.randn(4, 10)
    first = torch.tensor(brute_force(logits, grid, 3, set(grid), [set()] * 4))
    search = BeamSearch(grid, logits, 3, excluded_UM=first)
    assert found(Listing(set(grid)).run(search)) == brute_force(logits, grid, 3, set(grid), [set(r) for r in first.tolist()])


def test_never_asks_for_more_prefixes_than_the_limit() -> None:
    torch.manual_seed(5)
    grid = Grid("ffn0", (30, 4))
    logits = torch.randn(200, 34)
    for limit in (1, 8, 29, 30):
        search = BeamSearch(grid, logits, 2, config=BeamConfig(width=4, width_max=4, prefixes_max=limit))
        listing = Listing(set(grid))
        asked = []
        while wanted := search.wanted():
            asked.append(len(wanted))
            search.supply({p: listing.known[p] for p in wanted})
        assert asked[0] == 1 and asked[1] <= limit
        assert (search.best() >= 0).sum() > 0


def test_unwanted_answers_and_coordinates_outside_the_grid_are_ignored() -> None:
    grid = Grid("ffn0", (2, 2))
    search = BeamSearch(grid, torch.zeros(1, 4), 4)
    search.supply({(): [0, 7, -1], (5,): [0]})
    assert search.wanted() == [(0,)]
    search.supply({(0,): [1, 256]})
    assert search.best().tolist() == [[1, -1, -1, -1]]


def test_result_is_not_ready_while_something_is_wanted() -> None:
    with pytest.raises(RuntimeError):
        BeamSearch(Grid("ffn0", (2, 2)), torch.zeros(1, 4), 1).best()


def test_no_rows() -> None:
    search = BeamSearch(Grid("ffn0", (4, 4)), torch.zeros(0, 8), 2)
    assert Listing(set()).run(search).shape == (0, 2)


@pytest.mark.parametrize("bad", [{"width": 0}, {"width": 9, "width_max": 8}, {"width_max": 5000}, {"prefixes_max": 0}])
def test_absurd_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        BeamConfig(**bad)


def test_many_rows_are_fast() -> None:
    """2,048 rows over a 64 x 64 grid with half of it alive; generous, since machines are shared."""
    torch.manual_seed(0)
    rng = random.Random(0)
    grid = Grid("ffn0", (64, 64))
    listing = Listing({uid for uid in grid if rng.random() < 0.5})
    started = time.process_time()
    listing.run(BeamSearch(grid, torch.randn(2048, 128), 4))
    assert time.process_time() - started < 3.0
    assert listing.rounds <= 4
