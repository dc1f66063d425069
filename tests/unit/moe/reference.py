"""The same mixture by plain autograd: what the layer is held against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agent.grid import ExpertId, Grid
from agent.moe.gating import expert_at


def make_experts(grid: Grid, d_model: int, *, dtype: torch.dtype = torch.float32) -> dict[ExpertId, nn.Module]:
    return {
        uid: nn.Sequential(nn.Linear(d_model, 2 * d_model), nn.GELU(), nn.Linear(2 * d_model, d_model)).to(dtype) for uid in grid
    }


def brute_force(logits_UG: Tensor, grid: Grid, k: int, live: set[ExpertId], excluded: list[set[int]]) -> list[list[int]]:
    """The k best live experts per row, best first, by scoring every one of them."""
    rows = []
    for u, logits in enumerate(logits_UG.detach().double()):
        parts = logits.split(list(grid.shape))
        scored = [
            (sum(float(part[c]) for part, c in zip(parts, uid.coordinates, strict=True)), number)
            for number, uid in enumerate(grid)
            if uid in live and number not in excluded[u]
        ]
        rows.append([number for _, number in sorted(scored, reverse=True)[:k]])
    return rows


def masked_mixture(
    x_UND: Tensor,
    logits_UG: Tensor,
    grid: Grid,
    modules: dict[ExpertId, nn.Module],
    chosen: list[list[int]],
    deaf: set[ExpertId],
) -> Tensor:
    """Per unit, the softmax mixture of the experts in `chosen`, written out unit by unit.

    Experts in `deaf` answer forward and give the input no gradient backward (nor learn).
    """
    units = []
    for u, numbers in enumerate(chosen):
        if not numbers:
            units.append(torch.zeros_like(x_UND[u]))
            continue
        scores, outputs = [], []
        parts = logits_UG[u].split(list(grid.shape))
        for number in numbers:
            uid = expert_at(grid, number)
            scores.append(torch.stack([part[c] for part, c in zip(parts, uid.coordinates, strict=True)]).sum())
            output = modules[uid](x_UND[u])
            outputs.append(output.detach() if uid in deaf else output)
        weights = torch.stack(scores).softmax(0)
        units.append(sum(w * o for w, o in zip(weights, outputs, strict=True)))
    return torch.stack(units)


def expected_choice(
    logits_UG: Tensor, grid: Grid, k: int, live: set[ExpertId], failing: set[ExpertId], rounds: int
) -> list[list[int]]:
    """Who has answered each unit in the end, after backtracking."""
    answered = []
    for u in range(len(logits_UG)):
        tried: set[int] = set()
        heard: list[int] = []
        for _ in range(rounds):
            (asked,) = brute_force(logits_UG[u : u + 1], grid, k, live, [tried])
            heard = [number for number in asked if expert_at(grid, number) not in failing]
            tried |= set(asked)
            if heard or not asked:
                break
        answered.append(heard)
    return answered
