"""Searching by prefixes that have to be read first: the same experts as brute force, in few reads, within its limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent.grid import Grid
from agent.moe.beam_search import BeamConfig
from agent.moe.gating import best_live, flat_number
from agent.moe.prefix_search import PrefixSearch, PrefixSearchConfig


class Dht:
    """Which coordinates are live below which prefix, and what was read."""

    def __init__(self, grid: Grid, live_E: Tensor) -> None:
        self.children: dict[str, set[int]] = {}
        self.reads: list[list[str]] = []
        for uid in grid:
            if live_E[flat_number(grid, uid)]:
                for name, coordinate in uid.prefixes:
                    self.children.setdefault(name, set()).add(coordinate)

    def run(self, search: PrefixSearch) -> Tensor:
        while names := search.names():
            self.reads.append(names)
            search.supply({name: self.children.get(name, set()) for name in names})
        return search.best()


def case(grid: Grid, seed: int, share: float, units: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(units, sum(grid.shape), generator=generator), torch.rand(len(grid), generator=generator) < share


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (16, 8, 8), (64,), (6, 5, 4, 3)])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.05])
def test_it_finds_what_brute_force_finds(shape: tuple[int, ...], share: float) -> None:
    grid = Grid("ffn0", shape)
    same = total = 0
    for seed in range(5):
        logits_UG, live_E = case(grid, seed, share)
        dht = Dht(grid, live_E)
        chosen_UK = dht.run(PrefixSearch(grid, logits_UG, 4))
        truth_UK = best_live(logits_UG, shape, 4, live_E)
        same += int((chosen_UK[:, :, None] == truth_UK[:, None, :]).any(dim=2).sum())
        total += truth_UK.numel()
    assert same >= 0.99 * total


@pytest.mark.parametrize("side", [32, 64])
def test_a_search_in_two_dimensions_takes_one_read(side: int) -> None:
    grid = Grid("ffn0", (side, side))
    logits_UG, live_E = case(grid, 1, 0.8)
    dht = Dht(grid, live_E)
    search = PrefixSearch(grid, logits_UG, 4)
    dht.run(search)
    assert (search.steps, len(dht.reads)) == (1, 1)
    assert len(dht.reads[0]) == side + 1


def test_without_guesses_it_takes_a_read_per_dimension() -> None:
    grid = Grid("ffn0", (32, 32))
    logits_UG, live_E = case(grid, 1, 1.0)
    dht = Dht(grid, live_E)
    dht.run(PrefixSearch(grid, logits_UG, 4, config=PrefixSearchConfig(guesses_max=0)))
    assert len(dht.reads) == 2
    assert dht.reads[0] == ["ffn0."]


def test_each_rows_best_is_guessed_before_any_rows_second() -> None:
    grid = Grid("ffn0", (8, 2))
    logits_UG = torch.zeros(2, 10)
    logits_UG[0, 3], logits_UG[0, 4] = 2.0, 1.0
    logits_UG[1, 6], logits_UG[1, 7] = 2.0, 1.0
    names = PrefixSearch(grid, logits_UG, 1, config=PrefixSearchConfig(guesses_max=2)).names()
    assert names == ["ffn0.", "ffn0.3.", "ffn0.6."]


def test_it_reads_no_more_often_than_it_may() -> None:
    grid = Grid("ffn0", (4, 4, 4, 4))
    logits_UG, live_E = case(grid, 2, 1.0)
    dht = Dht(grid, live_E)
    chosen_UK = dht.run(PrefixSearch(grid, logits_UG, 2, config=PrefixSearchConfig(guesses_max=0, steps_max=2)))
    assert len(dht.reads) == 2
    assert (chosen_UK == -1).all()  # what could not be read counts as dead


def test_one_step_reads_no_more_prefixes_than_the_limits_allow() -> None:
    grid = Grid("ffn0", (64, 64, 4))
    logits_UG, live_E = case(grid, 3, 0.9, units=200)
    dht = Dht(grid, live_E)
    dht.run(PrefixSearch(grid, logits_UG, 4, config=PrefixSearchConfig(beam=BeamConfig(prefixes_max=40), guesses_max=10)))
    assert max(map(len, dht.reads)) <= 40
    assert len(dht.reads[0]) == 11


def test_an_empty_grid_gives_nobody() -> None:
    grid = Grid("ffn0", (32, 32))
    logits_UG, _ = case(grid, 1, 1.0)
    dht = Dht(grid, torch.zeros(len(grid), dtype=torch.bool))
    assert (dht.run(PrefixSearch(grid, logits_UG, 4)) == -1).all()


def test_experts_that_a_row_does_not_want_are_left_out() -> None:
    grid = Grid("ffn0", (32, 32))
    logits_UG, live_E = case(grid, 4, 0.9)
    dht = Dht(grid, live_E)
    first_UK = dht.run(PrefixSearch(grid, logits_UG, 2))
    second_UK = dht.run(PrefixSearch(grid, logits_UG, 2, excluded_UM=first_UK))
    truth_UK = best_live(logits_UG, grid.shape, 4, live_E)
    assert torch.equal(torch.cat([first_UK, second_UK], dim=1), truth_UK)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="limits"):
        PrefixSearchConfig(steps_max=0)
