from __future__ import annotations

import itertools

import torch

from agent.moe.quorum import combine, mixture_weights, unanswered


def test_every_pattern_of_answers_is_finite_forward_and_backward() -> None:
    patterns = torch.tensor(list(itertools.product([False, True], repeat=3)))
    scores = torch.randn(8, 3)
    scores[patterns.logical_not()] = torch.tensor([torch.inf, -torch.inf, torch.nan]).repeat(4)  # anything at all
    scores.requires_grad_()
    outputs = torch.randn(8, 3, 1, 2) * patterns[:, :, None, None]
    weights = mixture_weights(scores, patterns)
    combine(weights, outputs).square().sum().backward()
    assert torch.allclose(weights.sum(1), patterns.any(1).float())
    assert not weights[~patterns].any()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()
    assert not scores.grad[~patterns].any() and not scores.grad[0].any()


def test_weights_are_a_softmax_over_those_that_answered() -> None:
    scores = torch.tensor([[1.0, 2.0, 30.0]])
    weights = mixture_weights(scores, torch.tensor([[True, True, False]]))
    assert torch.allclose(weights[0, :2], scores[0, :2].softmax(0))


def test_huge_scores_do_not_overflow() -> None:
    weights = mixture_weights(torch.tensor([[3e38, -3e38], [-3e38, -3e38]]), torch.tensor([[True, True], [True, False]]))
    assert weights.tolist() == [[1, 0], [1, 0]]


def test_only_units_that_asked_and_heard_nobody_backtrack() -> None:
    answered = torch.tensor([[True, False], [False, False], [False, False]])
    chosen = torch.tensor([[0, 1], [2, -1], [-1, -1]])
    assert unanswered(answered, chosen).tolist() == [1]
