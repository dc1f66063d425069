"""The layer equals the same mixture computed by plain autograd with the same mask, for any pattern of failures."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.grid import ExpertId, Grid
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.local import LocalExperts
from tests.unit.moe.reference import expected_choice, make_experts, masked_mixture

SHAPES = [(1,), (5,), (3, 3), (2, 2, 2)]


@st.composite
def situations(draw: st.DrawFn) -> dict[str, object]:
    grid = Grid("ffn0", draw(st.sampled_from(SHAPES)))
    uids = list(grid)
    some = st.sets(st.sampled_from(uids))
    everything_fails = draw(st.integers(0, 4)) == 0
    return {
        "grid": grid,
        "k": draw(st.integers(1, min(4, len(uids)))),
        "rounds": draw(st.integers(1, 4)),
        "routing": draw(st.sampled_from(["token", "sequence"])),
        "live": set(uids) - draw(some) if draw(st.booleans()) else set(uids),
        "failing": set(uids) if everything_fails else draw(some),
        "deaf": draw(some),
        "seed": draw(st.integers(0, 2**16)),
    }


def close(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return all(t is None or not t.any() for t in (a, b))
    return bool(torch.isfinite(a).all()) and torch.allclose(a, b, atol=1e-5, rtol=1e-5)


@settings(max_examples=150, deadline=None)
@given(situations())
def test_layer_equals_masked_reference(s: dict) -> None:
    torch.manual_seed(s["seed"])
    grid: Grid = s["grid"]
    modules = make_experts(grid, 6)
    mirror = make_experts(grid, 6)
    for uid in grid:
        mirror[uid].load_state_dict(modules[uid].state_dict())
    deaf: set[ExpertId] = s["deaf"]
    experts = LocalExperts(
        modules, alive=lambda: s["live"], fails=lambda way, uid: uid in (s["failing"] if way == "forward" else deaf)
    )
    layer = MixtureOfExperts(6, grid, s["k"], experts=experts, config=MixtureConfig(routing=s["routing"], rounds=s["rounds"]))
    x = torch.randn(3, 4, 6, requires_grad=True)
    x_twin, gate_twin = x.detach().clone().requires_grad_(), layer.gate.weight.detach().clone().requires_grad_()
    upstream = torch.randn(3, 4, 6)

    y, balance = layer(x)
    (y * upstream).sum().backward()

    token = s["routing"] == "token"
    x_UND = x_twin.reshape(12, 1, 6) if token else x_twin
    logits_UG = x_UND.mean(dim=1) @ gate_twin.T
    chosen = expected_choice(logits_UG, grid, s["k"], s["live"], s["failing"], s["rounds"])
    y_twin = masked_mixture(x_UND, logits_UG, grid, mirror, chosen, deaf).reshape(3, 4, 6)
    if y_twin.requires_grad:
        (y_twin * upstream).sum().backward()

    assert bool(torch.isfinite(balance))
    assert close(y, y_twin)
    assert close(x.grad, x_twin.grad)
    assert close(layer.gate.weight.grad, gate_twin.grad)
    for uid in grid:
        for mine, theirs in zip(modules[uid].parameters(), mirror[uid].parameters(), strict=True):
            assert close(mine.grad, theirs.grad)
