"""The seam between the layer and whoever computes: `Experts`.

Implementations: `local.LocalExperts` (modules in this process) and `remote.RemoteExperts` (peers). They are shared
by all copies of a model and by all trainer threads, so `copy.deepcopy` of a layer shares them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from agent.grid import ExpertId, Grid

CALL_ID_BYTES = 16
DENSE_EXPERTS_MAX = 1024
"""Up to this many experts in a grid every live expert is scored (exact); above, beam search over live prefixes."""


def new_call_id() -> bytes:
    """Random bytes that name a forward call and the backward call that belongs to it."""
    return os.urandom(CALL_ID_BYTES)


@dataclass(frozen=True, kw_only=True, eq=False)
class Choice:
    """Whom to ask. `chosen_UK`: flat numbers, best first, -1 for none. `live_E`: who lives, None if the grid is too large."""

    chosen_UK: Tensor
    live_E: Tensor | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ForwardCall:
    """All rows of one batch that go to one expert: `inputs` [rows, d_model] float32."""

    uid: ExpertId
    call: bytes
    inputs: Tensor
    keep: bool = True
    """True if a backward call with the same `call` may follow, so that the host keeps the inputs for a while."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BackwardCall:
    """The gradient of the loss with respect to a forward call's outputs, [rows, d_model], and that call's inputs.

    The inputs go over the network only if the host no longer has them.
    """

    uid: ExpertId
    call: bytes
    gradient: Tensor
    inputs: Tensor


class Experts(Protocol):
    """Blocking and thread-safe. Never raises because an expert failed: that is a None in the answer."""

    def choose(self, grid: Grid, logits_UG: Tensor, k: int, excluded_UM: Tensor | None = None) -> Choice:
        """The k best live experts of `grid` per unit, without those in `excluded_UM` (given when a unit backtracks)."""
        ...

    def forward(self, calls: Sequence[ForwardCall]) -> list[Tensor | None]:
        """Outputs [rows, d_model] per call, in order; None where the expert failed or was too late."""
        ...

    def backward(self, calls: Sequence[BackwardCall]) -> list[Tensor | None]:
        """Gradients with respect to the inputs, per call, in order. The expert learns from the call."""
        ...
