"""The trunk as one vector."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from agent.averaging.trunk import Trunk, TrunkConfig


def trunk_of(model: nn.Module, **config: float) -> Trunk:
    return Trunk(dict(model.named_parameters()), TrunkConfig(warmup_steps=0, **config))  # type: ignore[arg-type]


def test_views_are_the_models_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    trunk, x = trunk_of(model), torch.randn(4, 3)
    vector = trunk.snapshot()
    assert trunk.size == sum(p.numel() for p in model.parameters())
    y = functional_call(model, trunk.views(vector), (x,))
    assert torch.equal(y, model(x))
    (gradient,) = torch.autograd.grad(y.square().sum(), vector)
    model(x).square().sum().backward()
    assert torch.allclose(gradient, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))


def test_a_step_is_clipped_adam_and_leaves_snapshots_alone() -> None:
    model = nn.Linear(2, 1)
    trunk = trunk_of(model, learning_rate=0.1, clip_norm=1e-3)
    before = trunk.snapshot()
    kept = before.detach().clone()
    assert trunk.apply(torch.full((3,), 1e6))
    assert torch.equal(before, kept) and trunk.step == 1
    assert torch.allclose(trunk.snapshot(), before - 0.1, atol=1e-4)  # Adam's first step has the size of the rate


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    trunk = trunk_of(nn.Linear(2, 1))
    before = trunk.snapshot()
    for bad in (float("nan"), float("inf")):
        assert not trunk.apply(torch.tensor([0.0, bad, 0.0]))
    assert torch.equal(trunk.snapshot(), before) and trunk.step == 0


def test_layouts_differ_when_shapes_do() -> None:
    assert trunk_of(nn.Linear(2, 3)).layout != trunk_of(nn.Linear(3, 2)).layout
    assert trunk_of(nn.Linear(2, 3)).layout == trunk_of(nn.Linear(2, 3)).layout


def test_loading_copies_and_starts_the_optimizer_afresh() -> None:
    a, b = trunk_of(nn.Linear(4, 4), learning_rate=0.1), trunk_of(nn.Linear(4, 4), learning_rate=0.1)
    a.apply(torch.randn(a.size))
    b.load(a.snapshot().detach(), a.step)
    assert torch.equal(a.snapshot(), b.snapshot()) and b.step == 1
    try:
        b.load(torch.zeros(3), 0)
    except ValueError as e:
        assert "vector of 20" in str(e)
    else:
        raise AssertionError("a vector of another size was loaded")
