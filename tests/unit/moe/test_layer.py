from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from agent.grid import ExpertId, Grid
from agent.moe.experts_api import ForwardCall
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.local import LocalExperts
from tests.unit.moe.reference import make_experts

GRID = Grid("ffn0", (3, 3))
UIDS = list(GRID)


class Recording(LocalExperts):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.batches: list[list[ForwardCall]] = []

    def forward(self, calls: Sequence[ForwardCall]) -> list[Tensor | None]:
        self.batches.append(list(calls))
        return super().forward(calls)


@pytest.mark.parametrize("routing", ["token", "sequence"])
@pytest.mark.parametrize("failing", [set(), {UIDS[0], UIDS[4]}, set(UIDS)])
def test_gradcheck(routing: str, failing: set[ExpertId]) -> None:
    torch.manual_seed(0)
    experts = LocalExperts(make_experts(GRID, 3, dtype=torch.float64), fails=lambda way, uid: uid in failing)
    layer = MixtureOfExperts(3, GRID, 2, experts=experts, config=MixtureConfig(routing=routing)).double()
    x = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: functional_call(layer, {"gate.weight": w}, (x,)), (x, weight), nondet_tol=1e-12)


def test_one_call_per_chosen_expert_with_all_its_rows() -> None:
    experts = Recording(make_experts(GRID, 4))
    layer = MixtureOfExperts(4, GRID, 2, experts=experts)
    layer(torch.randn(4, 8, 4))
    (batch,) = experts.batches
    uids = [call.uid for call in batch]
    assert len(uids) == len(set(uids))
    assert sum(len(call.inputs) for call in batch) == 4 * 8 * 2
    assert len({call.call for call in batch}) == len(batch)


@pytest.mark.parametrize(("rows_max", "sizes"), [(40, [40]), (39, [39, 1]), (20, [20, 20]), (7, [7] * 5 + [5])])
def test_more_rows_than_a_host_takes_go_in_several_calls(rows_max: int, sizes: list[int]) -> None:
    grid = Grid("ffn0", (1,))
    experts = Recording(make_experts(grid, 4))
    layer = MixtureOfExperts(4, grid, 1, experts=experts, config=MixtureConfig(call_rows_max=rows_max))
    x = torch.randn(4, 10, 4)
    y, _ = layer(x)
    assert [len(call.inputs) for call in experts.batches[0]] == sizes
    assert torch.allclose(y, next(iter(experts.modules.values()))(x), atol=1e-6)


def test_a_sequence_goes_to_its_experts_as_a_whole() -> None:
    experts = Recording(make_experts(GRID, 4))
    layer = MixtureOfExperts(4, GRID, 2, experts=experts, config=MixtureConfig(routing="sequence"))
    x = torch.randn(3, 8, 4)
    layer(x)
    for call in experts.batches[0]:
        assert all(any(torch.equal(rows, sequence) for sequence in x) for rows in call.inputs.split(8))
    assert sum(len(call.inputs) for call in experts.batches[0]) == 3 * 8 * 2


def test_inputs_are_kept_only_if_a_backward_may_follow() -> None:
    experts = Recording(make_experts(GRID, 4))
    layer = MixtureOfExperts(4, GRID, 2, experts=experts)
    layer(torch.randn(1, 2, 4))
    with torch.no_grad():
        layer(torch.randn(1, 2, 4))
    assert [{call.keep for call in batch} for batch in experts.batches] == [{True}, {False}]


def test_backtracking_goes_to_the_next_best_and_is_bounded() -> None:
    experts = Recording(make_experts(GRID, 4), fails=lambda way, uid: True)
    for rounds, asked in [(1, 2), (3, 6), (4, 8), (5, 9), (16, 9)]:
        experts.batches.clear()
        layer = MixtureOfExperts(4, GRID, 2, experts=experts, config=MixtureConfig(rounds=rounds))
        x = torch.randn(1, 1, 4, requires_grad=True)
        y, balance = layer(x)
        (y.sum() + balance).backward()
        uids = [call.uid for batch in experts.batches for call in batch]
        assert len(uids) == len(set(uids)) == asked
        assert not y.any() and x.grad is not None and torch.isfinite(x.grad).all()


def test_no_live_experts_at_all() -> None:
    experts = LocalExperts(make_experts(GRID, 4), alive=set)
    layer = MixtureOfExperts(4, GRID, 2, experts=experts)
    x = torch.randn(2, 3, 4, requires_grad=True)
    y, balance = layer(x)
    (y.sum() + balance).backward()
    assert not y.any() and balance == 0
    assert x.grad is not None and not x.grad.any()


def test_experts_learn_even_where_the_input_needs_no_gradient() -> None:
    modules = make_experts(GRID, 4)
    layer = MixtureOfExperts(4, GRID, 2, experts=LocalExperts(modules))
    y, _ = layer(torch.randn(2, 3, 4))
    y.sum().backward()
    assert any(p.grad is not None and p.grad.any() for m in modules.values() for p in m.parameters())
    assert layer.gate.weight.grad is not None


def test_a_failed_backward_keeps_the_gates_gradient_and_drops_the_experts() -> None:
    layer = MixtureOfExperts(4, GRID, 2, experts=LocalExperts(make_experts(GRID, 4), fails=lambda way, uid: way == "backward"))
    x = torch.randn(2, 3, 4, requires_grad=True)
    y, _ = layer(x)
    (to_x, to_gate) = torch.autograd.grad(y.square().sum(), [x, layer.gate.weight])
    assert torch.isfinite(to_x).all() and to_gate.any()


def test_threads_at_once_give_what_one_gives() -> None:
    """Several trainer threads, each with its own copy of the layer and its own weights, sharing the experts."""
    torch.manual_seed(0)
    layer = MixtureOfExperts(4, GRID, 2, experts=LocalExperts(make_experts(GRID, 4)))
    inputs = [torch.randn(2, 5, 4) for _ in range(8)]
    weights = [torch.randn(6, 4) for _ in range(8)]

    def gradient(module: torch.nn.Module, i: int) -> Tensor:
        weight = weights[i].clone().requires_grad_()
        y, balance = functional_call(module, {"gate.weight": weight}, (inputs[i],))
        return torch.autograd.grad(y.square().sum() + balance, weight)[0]

    expected = [gradient(layer, i) for i in range(8)]
    found: dict[int, Tensor] = {}

    def work(i: int) -> None:
        own = copy.deepcopy(layer)
        assert own.experts is layer.experts
        for _ in range(5):
            found[i] = gradient(own, i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert torch.equal(found[i], expected[i])


def test_the_layer_has_no_parameters_but_its_gate() -> None:
    layer = MixtureOfExperts(4, GRID, 2, experts=LocalExperts(make_experts(GRID, 4)))
    assert [name for name, _ in layer.named_parameters()] == ["gate.weight"]


def test_it_trains_inside_another_model() -> None:
    """A classifier that cannot be linear: the whole mixture, experts and gate, fits it."""
    torch.manual_seed(0)
    modules = make_experts(GRID, 8)
    optimizers = {uid: torch.optim.Adam(m.parameters(), lr=1e-2) for uid, m in modules.items()}

    def step(uid: ExpertId, module: torch.nn.Module) -> None:
        optimizers[uid].step()
        optimizers[uid].zero_grad()

    embed = torch.nn.Linear(2, 8)
    layer = MixtureOfExperts(8, GRID, 2, experts=LocalExperts(modules, step=step))
    head = torch.nn.Linear(8, 2)
    trunk = [*embed.parameters(), *layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(trunk, lr=1e-2)
    x = torch.randn(1, 256, 2)
    label = (x[..., 0] * x[..., 1] > 0).long().flatten()
    for _ in range(80):
        y, balance = layer(embed(x))
        loss = torch.nn.functional.cross_entropy(head(y)[0], label)
        optimizer.zero_grad()
        (loss + 0.01 * balance).backward()
        optimizer.step()
    assert loss < 0.3


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"rounds": 17}, {"routing": "row"}, {"call_rows_max": 0}])
def test_absurd_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        MixtureConfig(**bad)


@pytest.mark.parametrize("k", [0, 10])
def test_k_is_at_most_the_number_of_experts(k: int) -> None:
    with pytest.raises(ValueError):
        MixtureOfExperts(4, GRID, k, experts=LocalExperts({}))
