from __future__ import annotations

import pytest
import torch

from agent.grid import Grid
from agent.moe import gating
from tests.unit.moe.reference import brute_force

SHAPES = [(7,), (3, 4), (2, 3, 4), (2, 2, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_flat_numbers_follow_the_order_of_the_grid(shape: tuple[int, ...]) -> None:
    grid = Grid("ffn0", shape)
    for number, uid in enumerate(grid):
        assert gating.flat_number(grid, uid) == number
        assert gating.expert_at(grid, number) == uid


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_of_chosen_experts_are_those_of_all(shape: tuple[int, ...]) -> None:
    logits = torch.randn(5, sum(shape))
    every = gating.all_scores(logits, shape)
    numbers = torch.arange(every.shape[1]).expand(5, -1)
    assert torch.allclose(gating.chosen_scores(logits, numbers, shape), every)


@pytest.mark.parametrize("shape", SHAPES)
def test_best_live_equals_brute_force(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    grid = Grid("ffn0", shape)
    logits = torch.randn(6, sum(shape))
    uids = list(grid)
    live = {uid for i, uid in enumerate(uids) if i % 3}
    excluded = torch.tensor([[1, -1], [2, 4], [-1, -1], [1, 1], [0, 3], [4, 5]])
    mask = torch.tensor([uid in live for uid in uids])
    found = gating.best_live(logits, shape, 3, mask, excluded)
    expected = brute_force(logits, grid, 3, live, [set(row) for row in excluded.tolist()])
    assert [[n for n in row if n >= 0] for row in found.tolist()] == expected


def test_too_few_live_experts_leave_none() -> None:
    logits = torch.randn(2, 4)
    live = torch.tensor([False, True, False, False])
    assert gating.best_live(logits, (2, 2), 3, live).tolist() == [[1, -1, -1]] * 2
    assert gating.best_live(logits, (2, 2), 3, torch.zeros(4, dtype=torch.bool)).tolist() == [[-1] * 3] * 2
    assert gating.best_live(logits, (2, 2), 6, torch.ones(4, dtype=torch.bool)).shape == (2, 6)


def test_balance_is_one_when_even_and_grows_with_unevenness() -> None:
    shape, live = (2, 2), torch.ones(4, dtype=torch.bool)
    even = gating.balance_loss(torch.zeros(4, 4), torch.arange(4)[:, None], shape, live)
    assert even.item() == pytest.approx(1)
    everybody_wants_the_first = gating.balance_loss(torch.tensor([[9.0, 0, 9, 0]] * 4), torch.zeros(4, 1, dtype=int), shape, live)
    assert everybody_wants_the_first.item() == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("live", [torch.ones(16, dtype=torch.bool), torch.arange(16) < 9, None])
def test_balance_has_a_gradient_that_can_move_the_gate(live: torch.Tensor | None) -> None:
    """hivemind's had one of about 2e-8. Descent on the balance alone must even a lopsided gate out."""
    torch.manual_seed(0)
    shape, k = (4, 4), 2
    x = torch.randn(256, 8)
    x[:, 0] = 1.0
    weight = torch.randn(8, 8) * 0.1
    weight[1, 0] = weight[6, 0] = 1.5
    weight.requires_grad_()
    mask = live if live is not None else torch.ones(16, dtype=torch.bool)

    def balance() -> torch.Tensor:
        logits = x @ weight.T
        return gating.balance_loss(logits, gating.best_live(logits, shape, k, mask), shape, live)

    first = balance()
    first.backward()
    assert weight.grad is not None and weight.grad.norm() > 0.05
    optimizer = torch.optim.Adam([weight], lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        balance().backward()
        optimizer.step()
    assert first > 1.5 and balance() < 1.15


def test_balance_of_nothing_is_zero() -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    dead = torch.zeros(4, dtype=torch.bool)
    assert gating.balance_loss(logits, torch.full((3, 2), -1), (2, 2), dead) == 0
    assert gating.balance_loss(logits, torch.full((3, 2), -1), (2, 2), ~dead) == 0


def test_a_dead_expert_gets_no_gradient() -> None:
    logits = torch.randn(8, 3, requires_grad=True)
    live = torch.tensor([True, False, True])
    chosen = gating.best_live(logits, (3,), 1, live)
    gating.balance_loss(logits, chosen, (3,), live).backward()
    assert logits.grad is not None and not logits.grad[:, 1].any() and torch.isfinite(logits.grad).all()
