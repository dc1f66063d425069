from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from agent.errors import CallRefused, ProtocolViolation
from agent.experts.backend import ExpertBackend, OptimizerConfig, expert_factory
from agent.experts.state import TENSORS_MAX, ExpertState
from agent.grid import ExpertId
from agent.manifest import GPTModel, Manifest, Training

UID = ExpertId("ffn0", (1, 2))
MANIFEST = Manifest(
    name="t",
    revision=1,
    title="t",
    seed=7,
    model=GPTModel(d_model=8, heads=2, expert_hidden=16),
    training=Training(warmup_steps=4),
)


def make(uid: ExpertId = UID) -> ExpertBackend:
    return expert_factory(MANIFEST)(uid)


def rows(count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


def weights(backend: ExpertBackend) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in backend.module.named_parameters()}


def test_the_same_expert_everywhere_and_another_by_another_name() -> None:
    torch.manual_seed(1)
    a = make()
    torch.manual_seed(2)
    b, other = make(), make(ExpertId("ffn1", (1, 2)))
    assert all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))
    assert not torch.equal(weights(a)["up.weight"], weights(other)["up.weight"])


def test_making_an_expert_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    make()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("uid", [ExpertId("ffn0", (4, 0)), ExpertId("ffn9", (0, 0)), ExpertId("ffn0", (1,))])
def test_no_expert_outside_the_grids(uid: ExpertId) -> None:
    with pytest.raises(ValueError, match="has no expert"):
        make(uid)


def test_backward_gives_the_gradients_of_autograd_and_one_clipped_step() -> None:
    backend = make()
    reference = copy.deepcopy(backend.module)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=2e-3 / 4, betas=(0.9, 0.95), weight_decay=0.01)
    x, gradient = rows(), rows(seed=1)
    y = backend.forward(x)
    assert torch.equal(y, reference(x))
    assert not y.requires_grad

    x_reference = x.clone().requires_grad_()
    reference(x_reference).backward(gradient)
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    optimizer.step()

    assert torch.allclose(backend.backward(x, gradient), x_reference.grad, atol=1e-6)
    assert backend.version == 1
    for name, p in reference.named_parameters():
        assert torch.allclose(weights(backend)[name], p, atol=1e-6)


def test_rows_of_several_callers_add_up() -> None:
    """One batch of two callers' rows gives each its own input gradients, and weight gradients that are their sum."""
    merged, alone = make(), make()
    xs, gradients = [rows(3), rows(2, seed=3)], [rows(3, seed=4), rows(2, seed=5)]
    together = merged.backward(torch.cat(xs), torch.cat(gradients), step=False)
    apart = torch.cat([alone.backward(x, g, step=False) for x, g in zip(xs, gradients, strict=True)])
    assert torch.allclose(together, apart, atol=1e-6)
    assert merged.version == alone.version == 0


def test_the_learning_rate_warms_up() -> None:
    backend = make()
    moved = []
    for _ in range(6):
        before = weights(backend)["up.weight"]
        backend.backward(rows(), rows(seed=1))
        moved.append(float((weights(backend)["up.weight"] - before).abs().max()))
    assert moved[0] == pytest.approx(2e-3 / 4, rel=0.05)  # AdamW's first step moves each weight by the learning rate
    assert moved[3] > 3 * moved[0]


@pytest.mark.parametrize("scale", [float("inf"), float("nan"), 1e30])
def test_a_gradient_that_is_not_finite_changes_nothing(scale: float) -> None:
    backend = make()
    backend.backward(rows(), rows(seed=1))
    before = backend.export()
    with pytest.raises(CallRefused) as refused:
        backend.backward(rows(), rows(seed=1) * scale)
    assert refused.value.code == "not-finite"
    after = backend.export()
    assert after.version == before.version == 1
    assert all(torch.equal(before.tensors[n], after.tensors[n]) for n in before.tensors)


def test_an_output_that_is_not_finite_is_refused() -> None:
    backend = ExpertBackend(nn.Linear(8, 8), OptimizerConfig(), width=8)
    with torch.no_grad():
        backend.module.get_parameter("weight").fill_(1e30)
    with pytest.raises(CallRefused, match="not-finite"):
        backend.forward(rows() * 1e30)


@pytest.mark.parametrize("steps", [0, 3])
def test_a_state_that_moves_goes_on_exactly(steps: int) -> None:
    here, there = make(), make(ExpertId("ffn0", (0, 0)))
    for i in range(steps):
        here.backward(rows(seed=i), rows(seed=i + 50))
    header, buffers = here.export().encode()
    there.load(ExpertState.decode(header, [bytes(b) for b in buffers]))
    assert there.version == steps
    for i in range(3):
        assert torch.equal(here.backward(rows(seed=i), rows(seed=i + 9)), there.backward(rows(seed=i), rows(seed=i + 9)))
    a, b = here.export(), there.export()
    assert a.version == b.version == steps + 3
    assert a.tensors.keys() == b.tensors.keys()
    assert all(torch.equal(a.tensors[n], b.tensors[n]) for n in a.tensors)
    assert a.nbytes == 3 * sum(p.nbytes for p in here.module.parameters())


def test_an_exported_state_is_a_copy() -> None:
    backend = make()
    backend.backward(rows(), rows(seed=1))
    state = backend.export()
    kept = {n: t.clone() for n, t in state.tensors.items()}
    backend.backward(rows(), rows(seed=1))
    assert all(torch.equal(kept[n], state.tensors[n]) for n in kept)
    other = make()
    other.load(state)
    other.backward(rows(), rows(seed=1))
    assert all(torch.equal(kept[n], state.tensors[n]) for n in kept)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    backend, learned = make(), make()
    learned.backward(rows(), rows(seed=1))
    good = learned.export()
    before = weights(backend)
    name = "weights/up.weight"
    for bad in (
        ExpertState(good.version, {n: t for n, t in good.tensors.items() if n != name}),
        ExpertState(0, good.tensors),
        ExpertState(good.version, {**good.tensors, "weights/more": torch.zeros(1)}),
        ExpertState(good.version, {**good.tensors, name: torch.zeros(3, 3)}),
        ExpertState(good.version, {**good.tensors, name: torch.full((16, 8), float("nan"))}),
        ExpertState(good.version, {**good.tensors, "second/up.weight": -torch.ones(16, 8)}),
    ):
        with pytest.raises(ProtocolViolation):
            backend.load(bad)
    assert backend.version == 0
    assert all(torch.equal(before[n], w) for n, w in weights(backend).items())


def test_a_badly_formed_state_is_refused() -> None:
    header, buffers = make().export().encode()
    raw = [bytes(b) for b in buffers]
    for bad_header, bad_buffers in (
        (b"\xc1", raw),
        (b"", raw),
        (header, raw[:-1]),
        (header, [*raw[:-1], raw[-1][:-1]]),
        (header, [b"\xff" * len(raw[0]), *raw[1:]]),
    ):
        with pytest.raises(ProtocolViolation):
            ExpertState.decode(bad_header, bad_buffers)


@pytest.mark.parametrize(("count", "fits"), [(TENSORS_MAX, True), (TENSORS_MAX + 1, False)])
def test_a_state_has_a_limited_number_of_tensors(count: int, fits: bool) -> None:
    header, buffers = ExpertState(0, {str(i): torch.zeros(1) for i in range(count)}).encode()
    if fits:
        assert len(ExpertState.decode(header, buffers).tensors) == count
    else:
        with pytest.raises(ProtocolViolation):
            ExpertState.decode(header, buffers)


@pytest.mark.parametrize("bad", [{"learning_rate": 0}, {"clip_norm": -1}, {"warmup_steps": -1}, {"weight_decay": -0.1}])
def test_unusable_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="unusable"):
        OptimizerConfig(**bad)  # type: ignore[arg-type]
