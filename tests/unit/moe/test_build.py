from __future__ import annotations

import torch

from agent.experts.modules import make_module
from agent.manifest import GPTModel, Manifest
from agent.models.sizes import sizes
from agent.moe.build import build_model
from agent.moe.local import LocalExperts


def manifest(seed: int = 0) -> Manifest:
    model = GPTModel(d_model=16, layers=2, heads=2, sequence=32, expert_hidden=32, grid=(2, 2), k_best=2)
    return Manifest(name="test", revision=1, title="test", model=model, seed=seed)


def test_a_model_from_a_manifest() -> None:
    m = manifest()
    experts = LocalExperts({uid: make_module(m, uid) for grid in m.model.grids() for uid in grid})
    gpt = build_model(m, experts)
    assert sum(p.numel() for p in gpt.parameters()) == sizes(m.model).trunk
    logits, balance = gpt(torch.randint(256, (2, 32)))
    (logits.logsumexp(-1).mean() + balance).backward()
    assert logits.shape == (2, 32, 256)
    assert set(experts.rows.values()) != {0}
    twin, other = build_model(m, experts), build_model(manifest(1), experts)
    assert torch.equal(twin.embedding.weight, gpt.embedding.weight)
    assert not torch.equal(other.embedding.weight, gpt.embedding.weight)
