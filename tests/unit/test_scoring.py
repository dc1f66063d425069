from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from agent.scoring import Score, bound, score


def sure_of_the_next(inputs_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Eight bytes; the successor has odds of 3 to 1 against each other one."""
    return math.log(3) * nn.functional.one_hot((inputs_BT + 1) % 8, 8).float(), torch.zeros(())


X = torch.arange(8).view(1, 8)


def test_mean_over_all_targets_of_all_batches() -> None:
    found = score(sure_of_the_next, [(X, (X + 1) % 8), (X[:, :4], (X[:, :4] + 2) % 8)])
    assert found is not None and found.targets == 12
    assert found.accuracy == pytest.approx(8 / 12)
    assert found.loss == pytest.approx((8 * math.log(10 / 3) + 4 * math.log(10)) / 12)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


def test_nothing_learns() -> None:
    module = nn.Embedding(8, 8)

    def model(inputs_BT: Tensor) -> tuple[Tensor, Tensor]:
        logits = module(inputs_BT)
        assert not logits.requires_grad
        return logits, torch.zeros(())

    assert score(model, [(X, X)]) is not None
    assert module.weight.grad is None


def test_no_batches_or_no_wish_to_go_on_give_none() -> None:
    assert score(sure_of_the_next, []) is None
    assert score(sure_of_the_next, [(X, X)], lambda: False) is None


def test_a_loss_beyond_floats_is_an_infinite_perplexity() -> None:
    assert Score(1e6, 0.0, 1).perplexity == math.inf


def test_a_bound_module_computes_with_the_parameters_given() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(8, 8))

        def forward(self, inputs_BT: Tensor) -> tuple[Tensor, Tensor]:
            return self.weight[inputs_BT], torch.zeros(())

    table = Table()
    assert torch.equal(bound(table, {"weight": torch.eye(8)})(X)[0][0], torch.eye(8))
    assert not table.weight.any()
