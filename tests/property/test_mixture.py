"""The layer equals the same mixture computed by plain autograd with the same mask, for any pattern of failures.

Once with experts in this process, once with experts behind real messages on an event loop, some of them own ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agent.errors import CallRefused, CallTimeout, LinkClosed, NotReachable
from agent.grid import ExpertId, Grid
from agent.moe.experts_api import Experts
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.local import LocalExperts
from agent.moe.remote import RemoteConfig, RemoteExperts
from tests.unit.moe.fakes import ALICE, BOB, ME, FakeDirectory, FakeExperts, LoopThread
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


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with LoopThread() as running:
        yield running


@settings(max_examples=100, deadline=None)
@given(s=situations())
def test_local_experts_equal_the_masked_reference(s: dict) -> None:
    check(
        s,
        lambda modules: LocalExperts(
            modules, alive=lambda: s["live"], fails=lambda way, uid: uid in s["failing" if way == "forward" else "deaf"]
        ),
    )


@settings(max_examples=100, deadline=None)
@given(s=situations(), forgetful_host=st.booleans())
def test_remote_experts_equal_the_masked_reference(loop: asyncio.AbstractEventLoop, s: dict, forgetful_host: bool) -> None:
    errors = [
        CallTimeout("late"),
        LinkClosed("gone"),
        NotReachable("no way"),
        CallRefused("not-hosted"),
        CallRefused("overloaded"),
    ]

    def make(modules: dict) -> RemoteExperts:
        places = {uid: (ME, ALICE, BOB)[i % 3] for i, uid in enumerate(sorted(s["live"]))}
        hosts = FakeExperts(
            modules, lambda way, uid: errors[hash(uid) % 5] if uid in s["failing" if way == "forward" else "deaf"] else None
        )
        if forgetful_host:
            hosts.kept = Forgetful()
        directory = FakeDirectory(places)
        return RemoteExperts(hosts.call, directory, loop=loop, peer_id=ME, own=hosts, config=RemoteConfig(wire_dtype="float32"))

    check(s, make)


class Forgetful(dict):  # type: ignore[type-arg]
    """A host's memory of inputs, always full."""

    def __setitem__(self, key: object, value: object) -> None:
        pass


def check(s: dict, make: Callable[[dict[ExpertId, nn.Module]], Experts]) -> None:
    """Outputs and all gradients of the layer over `make(modules)` equal the reference's to 1e-5."""
    torch.manual_seed(s["seed"])
    grid: Grid = s["grid"]
    modules, mirror = make_experts(grid, 6), make_experts(grid, 6)
    for uid in grid:
        mirror[uid].load_state_dict(modules[uid].state_dict())
    config = MixtureConfig(routing=s["routing"], rounds=s["rounds"])
    layer = MixtureOfExperts(6, grid, s["k"], experts=make(modules), config=config)
    x = torch.randn(3, 4, 6, requires_grad=True)
    x_twin, gate_twin = x.detach().clone().requires_grad_(), layer.gate.weight.detach().clone().requires_grad_()
    upstream = torch.randn(3, 4, 6)

    y, balance = layer(x)
    (y * upstream).sum().backward()

    x_UND = x_twin.reshape(12, 1, 6) if s["routing"] == "token" else x_twin
    logits_UG = x_UND.mean(dim=1) @ gate_twin.T
    chosen = expected_choice(logits_UG, grid, s["k"], s["live"], s["failing"], s["rounds"])
    y_twin = masked_mixture(x_UND, logits_UG, grid, mirror, chosen, s["deaf"]).reshape(3, 4, 6)
    if y_twin.requires_grad:
        (y_twin * upstream).sum().backward()

    assert bool(torch.isfinite(balance))
    assert close(y, y_twin)
    assert close(x.grad, x_twin.grad)
    assert close(layer.gate.weight.grad, gate_twin.grad)
    for uid in grid:
        for mine, theirs in zip(modules[uid].parameters(), mirror[uid].parameters(), strict=True):
            assert close(mine.grad, theirs.grad)
