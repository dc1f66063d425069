"""The networks that an expert can be, by the kind of model in the manifest, made the same everywhere from (seed, name).

Shapes: R rows, D d_model, H the expert's hidden width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agent.grid import ExpertId
from agent.manifest import GPTModel, ImageClassifier, Manifest, Model

OUTPUT_SCALE = 0.1
"""Experts start quiet (the trunk's other blocks start silent), yet not at zero, so that the gate gets a gradient at once."""


class FeedForward(nn.Module):
    """D → H → D with GELU, no residual: whoever calls it adds one. `forward(x_RD) -> y_RD`."""

    def __init__(self, d_model: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.up = nn.utils.skip_init(nn.Linear, d_model, hidden)
        self.down = nn.utils.skip_init(nn.Linear, hidden, d_model)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(d_model), generator=generator)
        nn.init.normal_(self.down.weight, std=OUTPUT_SCALE / math.sqrt(hidden), generator=generator)
        nn.init.zeros_(self.up.bias)
        nn.init.zeros_(self.down.bias)

    def forward(self, x_RD: Tensor) -> Tensor:
        y_RD: Tensor = self.down(F.gelu(self.up(x_RD)))
        return y_RD


def _feed_forward(model: Model, generator: torch.Generator) -> nn.Module:
    return FeedForward(model.d_model, model.expert_hidden, generator)


MODULES: dict[type, Callable[[Model, torch.Generator], nn.Module]] = {GPTModel: _feed_forward, ImageClassifier: _feed_forward}


def make_module(manifest: Manifest, uid: ExpertId) -> nn.Module:
    """The untrained expert `uid`: the same weights on every machine. Raises ValueError if the model has no such expert."""
    if not any(uid in grid for grid in manifest.model.grids()):
        raise ValueError(f"the model of {manifest.name} has no expert {uid}")
    digest = hashlib.sha256(f"hive/expert/{manifest.seed}/{uid}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return MODULES[type(manifest.model)](manifest.model, generator)
