"""What is made of the experts' answers: a softmax over those that answered, per unit. Pure functions.

No failure pattern gives a NaN, forward or backward. A unit for which nobody answered gets zero output, and no
gradient flows to its scores: hivemind's masked softmax turned such rows into NaN.

Shape suffixes: U routing units, K slots per unit, N rows per unit (1 token, or a sequence of T), D d_model.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mixture_weights(scores_UK: Tensor, answered_UK: Tensor) -> Tensor:
    """Softmax of the scores over the slots that answered; exactly zero elsewhere, [U, K].

    The scores of slots that did not answer may be anything, infinities and NaN included, and get no gradient.
    """
    lowest = torch.finfo(scores_UK.dtype).min
    masked_UK = scores_UK.masked_fill(~answered_UK, lowest)
    return masked_UK.softmax(dim=1).masked_fill(~answered_UK, 0.0)


def combine(weights_UK: Tensor, outputs_UKND: Tensor) -> Tensor:
    """The weighted sum of the answers, [U, N, D]. Slots that did not answer hold zeros."""
    return torch.einsum("uk,uknd->und", weights_UK, outputs_UKND)


def unanswered(answered_UK: Tensor, chosen_UK: Tensor) -> Tensor:
    """Numbers of the units that asked somebody and heard nobody: those that are to backtrack, [units]."""
    return ((chosen_UK >= 0).any(dim=1) & ~answered_UK.any(dim=1)).nonzero()[:, 0]
