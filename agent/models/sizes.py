"""How large a model is: arithmetic on a manifest's model, without torch, so that the coordinator can show it live.

Tests hold it equal to the modules themselves (agent/models/gpt.py and classifier.py, agent/experts/modules.py,
agent/moe/layer.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.manifest import DIGIT_CLASSES, GPTModel, Model, Training, WireDtype

FLOAT_BYTES = 4
STATES_PER_PARAMETER = 4
"""Weight, gradient and AdamW's two moments."""
WIRE_BYTES: dict[WireDtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Counts of parameters, and bytes."""

    trunk: int
    """Parameters that every trainer holds."""
    expert: int
    """Parameters of one expert."""
    experts: int
    """Number of experts in all layers."""
    experts_per_token: int
    """Experts that one token (or patch of an image) passes through."""
    trunk_bytes: int
    """Memory of a trainer's trunk with its optimizer."""
    expert_bytes: int
    """Memory of one hosted expert with its optimizer."""

    @property
    def total(self) -> int:
        """Parameters of the whole model."""
        return self.trunk + self.experts * self.expert

    @property
    def active(self) -> int:
        """Parameters that one token (or patch of an image) passes through."""
        return self.trunk + self.experts_per_token * self.expert


def sizes(model: Model) -> Sizes:
    """The sizes of a model as a manifest describes it."""
    d = model.d_model
    layer = 4 * d * d + 2 * d + d * sum(model.grid)  # attention, two norms, gate
    trunk = ends(model) + model.layers * layer + d  # embedding and head, layers, last norm
    expert = 2 * d * model.expert_hidden + model.expert_hidden + d
    state = FLOAT_BYTES * STATES_PER_PARAMETER
    return Sizes(
        trunk=trunk,
        expert=expert,
        experts=model.layers * math.prod(model.grid),
        experts_per_token=model.layers * model.k_best,
        trunk_bytes=trunk * state,
        expert_bytes=expert * state,
    )


def ends(model: Model) -> int:
    """Parameters of what makes vectors of the input, and of the head."""
    if isinstance(model, GPTModel):
        return 2 * model.vocabulary * model.d_model
    return (model.patch**2 + model.positions + DIGIT_CLASSES) * model.d_model


def activation_bytes_per_token(model: Model, training: Training) -> int:
    """Bytes that cross between trainer and experts for one trained token (or image): inputs, outputs, and both gradients."""
    return 4 * model.positions_per_unit * model.layers * model.k_best * model.d_model * WIRE_BYTES[training.wire_dtype]
