"""One expert's weights and optimizer. Not thread-safe: whoever computes with it holds its `lock`.

As in the mixture-of-experts paper (arXiv:2002.04013, section 3.3) the host keeps no graph between forward and backward: backward
recomputes the forward pass, and the expert takes one optimizer step per batch, asynchronously to everyone else's.

Shapes: R rows, D d_model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agent.errors import CallRefused, ProtocolViolation
from agent.experts.messages import NOT_FINITE
from agent.experts.modules import make_module
from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (arXiv:1711.05101) of one expert."""

    learning_rate: float = 2e-3
    warmup_steps: int = 20
    """The learning rate rises linearly over this many of the expert's own steps."""
    clip_norm: float = 1.0
    """A batch's gradient over all weights is scaled down to this 2-norm."""
    beta_first: float = 0.9
    beta_second: float = 0.95
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and self.clip_norm > 0 and self.warmup_steps >= 0 and self.weight_decay >= 0):
            raise ValueError(f"unusable optimizer settings: {self}")


ExpertFactory = Callable[[ExpertId], "ExpertBackend"]


class ExpertBackend:
    """`width` is D; `version` counts the optimizer steps since the expert was made."""

    def __init__(self, module: nn.Module, config: OptimizerConfig, *, width: int) -> None:
        self.module = module
        self.width = width
        self.version = 0
        self.lock = threading.Lock()
        self._config = config
        self._named = dict(module.named_parameters())
        self._parameters = list(self._named.values())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=(config.beta_first, config.beta_second),
            weight_decay=config.weight_decay,
            fused=True,
        )

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has learned: weights, gradients, two moments."""
        return 4 * sum(p.nbytes for p in self._parameters)

    def forward(self, rows_RD: Tensor) -> Tensor:
        """The expert's outputs [R, D]. Raises CallRefused `not-finite` if they are not."""
        with torch.no_grad():
            outputs_RD: Tensor = self.module(rows_RD)
        if not bool(torch.isfinite(outputs_RD).all()):
            raise CallRefused(NOT_FINITE, "the expert's output overflows for these inputs")
        return outputs_RD

    def backward(self, rows_RD: Tensor, gradients_RD: Tensor, *, step: bool = True) -> Tensor:
        """dL/d(rows) [R, D], given dL/d(outputs); with `step`, takes exactly one optimizer step.

        L is the sum of the callers' losses: rows of several callers may stand in one batch, each with the gradient of its own
        mean loss. The gradient returned belongs to the weights before the step. Raises CallRefused `not-finite`, and has
        changed nothing, if any gradient is not finite.
        """
        rows_RD = rows_RD.detach().requires_grad_()
        with torch.enable_grad():
            outputs_RD: Tensor = self.module(rows_RD)
        found = torch.autograd.grad(outputs_RD, [rows_RD, *self._parameters], gradients_RD)
        input_gradients_RD, gradients = found[0], found[1:]
        norm = torch.nn.utils.get_total_norm(gradients)  # infinite too where a sum of squares overflows: as unusable
        if not (bool(torch.isfinite(norm)) and bool(torch.isfinite(input_gradients_RD).all())):
            raise CallRefused(NOT_FINITE, "the gradient is not finite; no step was taken")
        if step:
            self._step(gradients, norm)
        return input_gradients_RD

    def export(self, *, optimizer: bool = True) -> ExpertState:
        """A copy of all that it has learned; without `optimizer` the weights alone."""
        tensors = {f"weights/{name}": p.detach().clone() for name, p in self._named.items()}
        if self.version and optimizer:
            for name, p in self._named.items():
                tensors[f"first/{name}"] = self._optimizer.state[p]["exp_avg"].clone()
                tensors[f"second/{name}"] = self._optimizer.state[p]["exp_avg_sq"].clone()
        return ExpertState(self.version, tensors)

    def load(self, state: ExpertState) -> None:
        """Become what `state` says. Raises ProtocolViolation, and has changed nothing, if it is not such an expert's state."""
        kinds = ("weights", "first", "second") if state.version else ("weights",)
        expected = {f"{kind}/{name}": tuple(p.shape) for kind in kinds for name, p in self._named.items()}
        if expected != {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}:
            raise ProtocolViolation("an expert state has other tensors than this expert")
        for name, tensor in state.tensors.items():
            if not bool(torch.isfinite(tensor).all()) or (name.startswith("second/") and bool((tensor < 0).any())):
                raise ProtocolViolation(f"an expert state has unusable values in {name}")
        self._optimizer.state.clear()
        with torch.no_grad():
            for name, p in self._named.items():
                p.copy_(state.tensors[f"weights/{name}"])
                if state.version:
                    self._optimizer.state[p] = {
                        "step": torch.tensor(float(state.version)),
                        "exp_avg": state.tensors[f"first/{name}"].to(p, copy=True),
                        "exp_avg_sq": state.tensors[f"second/{name}"].to(p, copy=True),
                    }
        self.version = state.version

    def _step(self, gradients: tuple[Tensor, ...], norm: Tensor) -> None:
        config = self._config
        for p, gradient in zip(self._parameters, gradients, strict=True):
            p.grad = gradient
        torch.nn.utils.clip_grads_with_norm_(self._parameters, config.clip_norm, norm)
        warm = min(1.0, (self.version + 1) / config.warmup_steps) if config.warmup_steps else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * warm
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.version += 1


def expert_factory(manifest: Manifest) -> ExpertFactory:
    """Makes the experts of an experiment. `factory(uid)` raises ValueError for a name that is not in its grids."""
    training = manifest.training
    config = OptimizerConfig(
        learning_rate=training.expert_learning_rate, warmup_steps=training.warmup_steps, clip_norm=training.clip_norm
    )

    def make(uid: ExpertId) -> ExpertBackend:
        return ExpertBackend(make_module(manifest, uid), config, width=manifest.model.d_model)

    return make
