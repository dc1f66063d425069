"""The trunk: the parameters that every trainer holds, as one flat vector, with their optimizer.

Legend: P is the number of trunk parameters. Batches in flight compute on snapshots, so an update never disturbs a
backward pass that is under way; their gradients are applied one after the other (bounded staleness).
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """How the trunk learns."""

    learning_rate: float = 2e-3
    warmup_steps: int = 20
    """Steps over which the rate rises linearly from 0."""
    clip_norm: float = 1.0
    """Largest L2 norm of one batch's gradient."""
    betas: tuple[float, float] = (0.9, 0.98)

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.clip_norm <= 0 or self.warmup_steps < 0:
            raise ValueError("learning_rate and clip_norm must be positive, warmup_steps at least 0")


class Trunk:
    """Named parameters in one vector. Thread-safe.

    `layout` is a digest of names and shapes: two trunks can be averaged only if their layouts are equal.
    """

    def __init__(self, parameters: Mapping[str, Tensor], config: TrunkConfig) -> None:
        if not parameters:
            raise ValueError("a trunk needs at least one parameter")
        self._shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        self._sizes = [p.numel() for p in parameters.values()]
        self._flat_P = torch.cat([p.detach().reshape(-1).float() for p in parameters.values()]).requires_grad_()
        self._optimizer = torch.optim.Adam([self._flat_P], lr=config.learning_rate, betas=config.betas)
        self._config = config
        self._lock = threading.Lock()
        self._updates = 0
        self.step = 0
        self.layout = hashlib.sha256(repr(sorted(self._shapes.items())).encode()).digest()

    @property
    def size(self) -> int:
        """P."""
        return self._flat_P.numel()

    def snapshot(self) -> Tensor:
        """A copy of the vector, [P], a leaf that requires gradients. `views` names its parts."""
        with self._lock:
            return self._flat_P.detach().clone().requires_grad_()

    def views(self, vector_P: Tensor) -> dict[str, Tensor]:
        """The named parameters inside a vector, as differentiable views, for `torch.func.functional_call`."""
        parts = torch.split(vector_P, self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def apply(self, gradient_P: Tensor) -> bool:
        """Take one clipped optimizer step. False, and nothing changed, if the gradient is not finite."""
        norm = float(gradient_P.norm())
        if not norm < float("inf"):
            return False
        with self._lock:
            self._updates += 1
            self.step += 1
            rate = self._config.learning_rate * min(1.0, self._updates / max(1, self._config.warmup_steps))
            self._optimizer.param_groups[0]["lr"] = rate
            self._flat_P.grad = gradient_P * min(1.0, self._config.clip_norm / (norm + 1e-12))
            self._optimizer.step()
            self._flat_P.grad = None
        return True

    def shift(self, delta_P: Tensor) -> None:
        """Add `delta_P`, [P], keeping the steps that were taken since it was computed."""
        with self._lock, torch.no_grad():
            self._flat_P.add_(delta_P)

    def load(self, vector_P: Tensor, step: int) -> None:
        """Become a copy of another trainer's trunk. The optimizer starts afresh, and so does its warm-up."""
        if tuple(vector_P.shape) != (self.size,):
            raise ValueError(f"expected a vector of {self.size} parameters, not {tuple(vector_P.shape)}")
        with self._lock, torch.no_grad():
            self._flat_P.copy_(vector_P)
            self._optimizer.state.clear()
            self._updates = 0
            self.step = step
