from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from agent.experts.modules import FeedForward
from agent.grid import ExpertId
from agent.manifest import GPTModel
from agent.models.gpt import GPT, generate, rotate
from agent.models.sizes import sizes
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.local import LocalExperts

MODEL = GPTModel(d_model=16, layers=2, heads=2, sequence=24, expert_hidden=32, grid=(2, 2), k_best=2, routing="token")


def local_experts(model: GPTModel, **options: object) -> LocalExperts:
    generator = torch.Generator().manual_seed(1)
    modules = {uid: FeedForward(model.d_model, model.expert_hidden, generator) for grid in model.grids() for uid in grid}
    return LocalExperts(modules, **options)  # type: ignore[arg-type]


def build(model: GPTModel = MODEL, experts: LocalExperts | None = None, seed: int = 0) -> GPT:
    shared = experts or local_experts(model)
    grids = model.grids()

    def layer(i: int) -> MixtureOfExperts:
        config = MixtureConfig(routing=model.routing)
        return MixtureOfExperts(model.d_model, grids[i], model.k_best, experts=shared, config=config)

    gpt = GPT(model, layer)
    gpt.initialise(seed)
    return gpt


def test_every_byte_is_equally_likely_at_first() -> None:
    logits, balance = build()(torch.randint(256, (2, 24)))
    assert logits.shape == (2, 24, 256)
    assert F.cross_entropy(logits.flatten(0, 1), torch.randint(256, (48,))).item() == pytest.approx(math.log(256))
    assert 0.9 < balance.item() < 4  # 1 when even; importance and load that differ give a little less


def test_the_same_seed_gives_the_same_weights_whatever_else_is_drawn() -> None:
    a = build().state_dict()
    torch.manual_seed(99)
    b, c = build().state_dict(), build(seed=1).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def randomised(gpt: GPT) -> GPT:
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.normal_(std=0.3)
    return gpt


def test_no_position_sees_a_later_one() -> None:
    gpt = randomised(build())
    tokens = torch.randint(256, (1, 24))
    other = tokens.clone()
    other[0, 15:] = torch.randint(256, (9,))
    a, b = gpt(tokens)[0], gpt(other)[0]
    assert torch.allclose(a[0, :15], b[0, :15], atol=1e-5)
    assert not torch.allclose(a[0, 15:], b[0, 15:], atol=1e-2)


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    x = torch.randn(1, 1, 1, 8).expand(1, 1, 20, 8)
    y = rotate(x)
    assert torch.allclose(y.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.allclose(y[0, 0, 3] @ y[0, 0, 7], y[0, 0, 11] @ y[0, 0, 15], atol=1e-4)
    odd = torch.randn(1, 1, 3, 5)
    assert rotate(odd).shape == odd.shape


@pytest.mark.parametrize(
    "model", [MODEL, GPTModel(d_model=24, layers=3, heads=3, expert_hidden=40, grid=(2, 3, 2), vocabulary=100)]
)
def test_sizes_are_those_of_the_modules(model: GPTModel) -> None:
    experts = local_experts(model)
    found = sizes(model)
    assert found.trunk == sum(p.numel() for p in build(model, experts).parameters())
    expert = next(iter(experts.modules.values()))
    assert found.expert == sum(p.numel() for p in expert.parameters())
    assert found.experts == len(experts.modules)
    assert found.total == found.trunk + found.experts * found.expert


def test_it_learns_and_every_expert_is_used() -> None:
    torch.manual_seed(0)
    experts = local_experts(MODEL)
    optimizers = {uid: torch.optim.Adam(m.parameters(), lr=3e-3) for uid, m in experts.modules.items()}

    def step(uid: ExpertId, module: torch.nn.Module) -> None:
        optimizers[uid].step()
        optimizers[uid].zero_grad()

    experts._step = step
    gpt = build(experts=experts)
    optimizer = torch.optim.Adam(gpt.parameters(), lr=1e-2)
    text = torch.tensor(list(b"the quick brown fox jumps over the lazy dog. " * 40))
    for _ in range(40):
        starts = torch.randint(len(text) - 25, (8, 1))
        tokens = text[starts + torch.arange(25)]
        logits, balance = gpt(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        (loss + 0.05 * balance).backward()
        optimizer.step()
    assert loss < 1.0
    assert min(experts.rows.values()) > 0
    sample = bytes(generate(gpt, b"the quick ", tokens=8, sequence=24, temperature=0))
    assert sample.isascii()


def test_generation_is_reproducible_and_stays_in_its_context() -> None:
    gpt = randomised(build())
    a = bytes(generate(gpt, b"x" * 100, tokens=40, sequence=24, seed=3))
    assert len(a) == 40
    assert a == bytes(generate(gpt, b"x" * 100, tokens=40, sequence=24, seed=3))
    assert a != bytes(generate(gpt, b"x" * 100, tokens=40, sequence=24, seed=4))
    assert len(bytes(generate(gpt, b"", tokens=2, sequence=24))) == 2
    assert not list(generate(gpt, b"a", tokens=0, sequence=24))


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"top": 0}, {"tokens": -1}])
def test_absurd_sampling_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        list(generate(build(), b"a", **{"tokens": 1, "sequence": 24} | bad))  # type: ignore[arg-type]


def test_a_copy_shares_the_experts() -> None:
    gpt = build()
    twin = copy.deepcopy(gpt)
    assert twin.blocks[0].feed_forward.experts is gpt.blocks[0].feed_forward.experts
    assert twin.embedding.weight is not gpt.embedding.weight
