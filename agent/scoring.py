"""What a model is worth on held-out batches: the loss that trainers report, and that `hive-agent evaluate` prints.

Legend: B sequences or images, T targets of each, V vocabulary or classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Model = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`(inputs_BT) -> (logits_BTV, balance loss)`."""


@dataclass(frozen=True, slots=True)
class Score:
    """Over `targets` predictions."""

    loss: float
    """Mean cross-entropy, nats."""
    accuracy: float
    """Share of targets that are the likeliest prediction."""
    targets: int

    @property
    def perplexity(self) -> float:
        """e to the loss; infinite where that does not fit into a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def bound(module: nn.Module, parameters: Mapping[str, Tensor]) -> Model:
    """`module` computing with `parameters` in place of its own. One thread at a time: they are swapped in while it runs."""

    def call(inputs_BT: Tensor) -> tuple[Tensor, Tensor]:
        logits_BTV, balance = functional_call(module, dict(parameters), (inputs_BT,))
        return logits_BTV, balance

    return call


def score(model: Model, batches: Iterable[tuple[Tensor, Tensor]], keep_going: Callable[[], bool] = lambda: True) -> Score | None:
    """Run `batches` of (inputs, targets) through `model` without gradients, so that nothing and nobody learns from them.

    None if there are no batches, or once `keep_going()` is false.
    """
    total, right, count = 0.0, 0, 0
    for inputs_BT, targets_BT in batches:
        if not keep_going():
            return None
        with torch.no_grad():
            logits_NV, targets_N = model(inputs_BT)[0].flatten(0, 1), targets_BT.flatten()
            total += float(F.cross_entropy(logits_NV, targets_N, reduction="sum"))
            right += int((logits_NV.argmax(dim=1) == targets_N).sum())
        count += targets_N.numel()
    return Score(total / count, right / count, count) if count else None
