"""`Experts` for those who only look: calls are counted, and whatever would teach an expert is refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from agent.errors import LocalError
from agent.grid import ExpertId, Grid
from agent.moe.experts_api import BackwardCall, Choice, Experts, ForwardCall


class Tally:
    """Passes `choose` and `forward` on to `experts`; hosts keep nothing of a forward, since no backward follows. Thread-safe."""

    def __init__(self, experts: Experts) -> None:
        self._experts = experts
        self._lock = threading.Lock()
        self._answered: set[ExpertId] = set()
        self.calls = 0
        self.calls_failed = 0

    @property
    def answered(self) -> frozenset[ExpertId]:
        """Experts that have answered at least once."""
        with self._lock:
            return frozenset(self._answered)

    def choose(self, grid: Grid, logits_UG: Tensor, k: int, excluded_UM: Tensor | None = None) -> Choice:
        return self._experts.choose(grid, logits_UG, k, excluded_UM)

    def forward(self, calls: Sequence[ForwardCall]) -> list[Tensor | None]:
        answers = self._experts.forward([replace(call, keep=False) for call in calls])
        with self._lock:
            self.calls += len(calls)
            self.calls_failed += sum(answer is None for answer in answers)
            self._answered |= {call.uid for call, answer in zip(calls, answers, strict=True) if answer is not None}
        return answers

    def backward(self, calls: Sequence[BackwardCall]) -> list[Tensor | None]:
        raise LocalError("a visitor does not train: run the model without gradients")
