"""Experts in this process: the reference that remote experts are held against, and a way to train with no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from agent.grid import ExpertId, Grid
from agent.moe.experts_api import BackwardCall, Choice, ForwardCall
from agent.moe.gating import best_live, flat_number

Fails = Callable[[str, ExpertId], bool]
Step = Callable[[ExpertId, nn.Module], None]


class LocalExperts:
    """Modules by name. `fails(direction, uid)` says which calls fail; `alive` which experts may be chosen (all if None).

    A backward call recomputes the forward pass (as hosts do) and adds to the module's gradients; then `step`, if given,
    is called with the expert. Calls are served one at a time.
    """

    def __init__(
        self,
        modules: Mapping[ExpertId, nn.Module],
        *,
        alive: Callable[[], set[ExpertId]] | None = None,
        fails: Fails | None = None,
        step: Step | None = None,
    ) -> None:
        self.modules = modules
        self._alive = alive
        self._fails = fails or (lambda direction, uid: False)
        self._step = step
        self._lock = threading.Lock()
        self.rows: dict[ExpertId, int] = dict.fromkeys(modules, 0)
        """Rows served forward, per expert."""

    def __deepcopy__(self, memo: dict[int, object]) -> LocalExperts:
        return self

    def choose(self, grid: Grid, logits_UG: Tensor, k: int, excluded_UM: Tensor | None = None) -> Choice:
        live_E = torch.zeros(len(grid), dtype=torch.bool, device=logits_UG.device)
        for uid in self.modules if self._alive is None else self._alive():
            if uid in grid:
                live_E[flat_number(grid, uid)] = True
        return Choice(chosen_UK=best_live(logits_UG, grid.shape, k, live_E, excluded_UM), live_E=live_E)

    def forward(self, calls: Sequence[ForwardCall]) -> list[Tensor | None]:
        with self._lock:
            return [self._forward(call) for call in calls]

    def backward(self, calls: Sequence[BackwardCall]) -> list[Tensor | None]:
        with self._lock:
            return [self._backward(call) for call in calls]

    def _forward(self, call: ForwardCall) -> Tensor | None:
        if self._fails("forward", call.uid):
            return None
        self.rows[call.uid] += len(call.inputs)
        with torch.no_grad():
            output: Tensor = self.modules[call.uid](call.inputs)
        return output

    def _backward(self, call: BackwardCall) -> Tensor | None:
        if self._fails("backward", call.uid):
            return None
        module = self.modules[call.uid]
        with torch.enable_grad():
            inputs = call.inputs.detach().requires_grad_()
            torch.autograd.backward(module(inputs), call.gradient)
        if self._step is not None:
            self._step(call.uid, module)
        return inputs.grad
