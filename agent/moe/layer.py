"""`MixtureOfExperts`: an `nn.Module` for any model, whose experts live elsewhere.

Shape suffixes: B batch, T time, D d_model, U routing units (U = B * T for tokens, U = B for sequences), N rows per unit
(1 for tokens, T for sequences), K experts per unit, G the sum of the grid's sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from agent.grid import ExpertId, Grid
from agent.moe import gating, quorum
from agent.moe.experts_api import BackwardCall, Experts, ForwardCall, new_call_id

ROUNDS_MAX = 16


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How a layer routes."""

    routing: Literal["token", "sequence"] = "token"
    """`token`: every position picks its experts. `sequence`: the mean over the sequence picks experts for all of it,
    which needs fewer calls for small batches; in a causal model that mean lets later tokens influence earlier ones."""
    rounds: int = 3
    """A unit whose experts all failed asks the next best live ones; at most this many rounds in all, 1 to ROUNDS_MAX."""

    call_rows_max: int = 8192
    """More rows than this for one expert go in several calls (a single sequence is not cut); hosts refuse larger ones."""

    def __post_init__(self) -> None:
        if self.call_rows_max < 1:
            raise ValueError("call_rows_max is at least 1")
        if self.routing not in ("token", "sequence"):
            raise ValueError(f"routing is token or sequence, not {self.routing!r}")
        if not 1 <= self.rounds <= ROUNDS_MAX:
            raise ValueError(f"rounds is 1 to {ROUNDS_MAX}, not {self.rounds}")


class MixtureOfExperts(nn.Module):
    """k best live experts per token (or sequence), mixed by a softmax over those that answered.

    `forward(x_BTD) -> (y_BTD, balance_loss)`. Units for which nobody answered in any round give zeros and no gradient. If
    an expert answers the forward call and fails the backward one, the gradient through it to the input is zero for its
    rows; the gate still gets its gradient. Experts learn whenever a loss on `y_BTD` is differentiated with respect to
    the input or the gate. The layer keeps no state between calls: several threads may run it at once, each with its own
    copy if they use `torch.func.functional_call` (which swaps a module's parameters while it runs).

    Calls block the calling thread, in backward the thread that runs autograd. The trunk may be on any device; experts get
    and give tensors in the CPU's memory.
    """

    def __init__(self, d_model: int, grid: Grid, k_best: int, *, experts: Experts, config: MixtureConfig | None = None) -> None:
        super().__init__()
        if not 1 <= k_best <= len(grid):
            raise ValueError(f"k_best is 1 to {len(grid)}, the number of experts, not {k_best}")
        self.grid = grid
        self.k_best = k_best
        self.experts = experts
        self.config = config or MixtureConfig()
        self.gate = nn.Linear(d_model, sum(grid.shape), bias=False)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        B, T, D = x_BTD.shape
        if self.config.routing == "token":
            x_UND = x_BTD.reshape(B * T, 1, D)
            logits_UG = self.gate(x_BTD.reshape(B * T, D))
        else:
            x_UND = x_BTD
            logits_UG = self.gate(x_BTD.mean(dim=1))
        keep = torch.is_grad_enabled() and (x_UND.requires_grad or logits_UG.requires_grad)
        asking = _Asking(self.experts, self.grid, self.k_best, self.config, keep)
        outputs_UKND, chosen_UK, answered_UK = _AskExperts.apply(x_UND, logits_UG, asking)
        scores_UK = gating.chosen_scores(logits_UG, chosen_UK, self.grid.shape)
        weights_UK = quorum.mixture_weights(scores_UK, answered_UK)
        y_UND = quorum.combine(weights_UK, outputs_UKND)
        live_E = None if asking.live_E is None else asking.live_E.to(x_BTD.device)
        balance = gating.balance_loss(logits_UG, asking.first_choice_UK.to(x_BTD.device), self.grid.shape, live_E)
        return y_UND.reshape(B, T, D), balance


@dataclass(frozen=True, eq=False)
class _Group:
    """One answered call: which units' which slots it served."""

    uid: ExpertId
    call: bytes
    units: Tensor
    slots: Tensor


class _Asking:
    """One batch's questions to the experts: choose, call, and backtrack, without autograd."""

    first_choice_UK: Tensor
    live_E: Tensor | None

    def __init__(self, experts: Experts, grid: Grid, k: int, config: MixtureConfig, keep: bool) -> None:
        self.experts = experts
        self.grid = grid
        self.k = k
        self.config = config
        self.keep = keep

    def run(self, x_UND: Tensor, logits_UG: Tensor) -> tuple[Tensor, Tensor, Tensor, list[_Group]]:
        """Answers [U, K, N, D] (zeros where none), the experts asked last [U, K], who of them answered, and their calls.

        Everything is on the CPU.
        """
        choice = self.experts.choose(self.grid, logits_UG, self.k)
        self.first_choice_UK, self.live_E = choice.chosen_UK, choice.live_E
        chosen_UK = choice.chosen_UK.clone()
        outputs_UKND = x_UND.new_zeros(len(x_UND), self.k, *x_UND.shape[1:])
        answered_UK = torch.zeros_like(chosen_UK, dtype=torch.bool)
        groups = self._call(torch.arange(len(x_UND)), chosen_UK, x_UND, outputs_UKND, answered_UK)
        tried_UM = chosen_UK
        for _ in range(self.config.rounds - 1):
            units = quorum.unanswered(answered_UK, chosen_UK)
            if not len(units):
                break
            again = self.experts.choose(self.grid, logits_UG[units], self.k, tried_UM[units])
            chosen_UK = chosen_UK.index_copy(0, units, again.chosen_UK)
            groups += self._call(units, chosen_UK, x_UND, outputs_UKND, answered_UK)
            tried_UM = torch.cat([tried_UM, chosen_UK], dim=1)
        return outputs_UKND, chosen_UK, answered_UK, groups

    def _call(self, units: Tensor, chosen_UK: Tensor, x_UND: Tensor, outputs_UKND: Tensor, answered_UK: Tensor) -> list[_Group]:
        """Ask each chosen expert once, with the rows of all `units` that chose it; write the answers in place."""
        groups = [
            _Group(gating.expert_at(self.grid, number), new_call_id(), units[rows], slots)
            for number, rows, slots in _by_expert(chosen_UK[units], max(1, self.config.call_rows_max // x_UND.shape[1]))
        ]
        width = x_UND.shape[-1]
        calls = [ForwardCall(uid=g.uid, call=g.call, inputs=x_UND[g.units].reshape(-1, width), keep=self.keep) for g in groups]
        answered = []
        for group, output in zip(groups, self.experts.forward(calls), strict=True):
            if output is None:
                continue
            outputs_UKND[group.units, group.slots] = output.reshape(len(group.units), *x_UND.shape[1:]).to(x_UND)
            answered_UK[group.units, group.slots] = True
            answered.append(group)
        return answered


class _AskExperts(torch.autograd.Function):
    """The network as one differentiable operation.

    `logits_UG` takes part only so that experts learn even where the input needs no gradient; its own gradient comes
    through the mixture's weights.
    """

    @staticmethod
    def forward(ctx: Any, x_UND: Tensor, logits_UG: Tensor, asking: _Asking) -> tuple[Tensor, Tensor, Tensor]:
        outputs_UKND, chosen_UK, answered_UK, groups = asking.run(x_UND.cpu(), logits_UG.cpu())
        outputs_UKND, chosen_UK, answered_UK = (t.to(x_UND.device) for t in (outputs_UKND, chosen_UK, answered_UK))
        ctx.save_for_backward(x_UND)
        ctx.experts, ctx.groups = asking.experts, groups
        ctx.mark_non_differentiable(chosen_UK, answered_UK)
        return outputs_UKND, chosen_UK, answered_UK

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_UKND: Tensor, *_: Tensor) -> tuple[Tensor | None, None, None]:
        x_UND, grad_UKND = ctx.saved_tensors[0].cpu(), grad_UKND.cpu()
        width = x_UND.shape[-1]
        groups: Sequence[_Group] = ctx.groups
        experts: Experts = ctx.experts
        gradients = experts.backward(
            [
                BackwardCall(
                    uid=g.uid,
                    call=g.call,
                    gradient=grad_UKND[g.units, g.slots].reshape(-1, width),
                    inputs=x_UND[g.units].reshape(-1, width),
                )
                for g in groups
            ]
        )
        if not ctx.needs_input_grad[0]:
            return None, None, None
        grad_UND = torch.zeros_like(x_UND)
        for group, gradient in zip(groups, gradients, strict=True):
            if gradient is not None:
                grad_UND.index_add_(0, group.units, gradient.reshape(len(group.units), *x_UND.shape[1:]).to(x_UND))
        return grad_UND.to(ctx.saved_tensors[0].device), None, None


def _by_expert(chosen_UK: Tensor, units_max: int) -> list[tuple[int, Tensor, Tensor]]:
    """(expert's flat number, rows, slots) for every distinct expert in a choice, at most `units_max` rows each."""
    flat = chosen_UK.reshape(-1)
    numbers, order = flat.sort(stable=True)
    distinct, counts = numbers.unique_consecutive(return_counts=True)
    k = chosen_UK.shape[1]
    return [
        (number, part // k, part % k)
        for number, piece in zip(distinct.tolist(), order.split(counts.tolist()), strict=True)
        if number != gating.NONE
        for part in piece.split(units_max)
    ]
