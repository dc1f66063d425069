"""The classifier: what it makes of an image, how large it is, and that it learns with experts elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from agent.experts.modules import make_module
from agent.manifest import ImageClassifier, Manifest
from agent.models.presets import PRESETS
from agent.models.sizes import activation_bytes_per_token, sizes
from agent.moe.build import build_model
from agent.moe.local import LocalExperts
from agent.training import load_data, make_batches
from tests.bench.learning import Simulation

PRESET = PRESETS["digits"]


def manifest(model: ImageClassifier | None = None) -> Manifest:
    return Manifest(name="d", revision=1, title="d", model=model or PRESET.model, data=PRESET.data, training=PRESET.training)


def experts_of(m: Manifest) -> LocalExperts:
    return LocalExperts({uid: make_module(m, uid) for grid in m.model.grids() for uid in grid})


@pytest.mark.parametrize(
    "model",
    [
        ImageClassifier(),
        ImageClassifier(patch=1, layers=1),
        ImageClassifier(patch=8, d_model=24, heads=3, grid=(2, 3), routing="sequence"),
    ],
)
def test_sizes_and_first_loss(model: ImageClassifier) -> None:
    m = manifest(model)
    experts = experts_of(m)
    trunk = build_model(m, experts)
    assert sum(p.numel() for p in trunk.parameters()) == sizes(model).trunk
    (pixels_BP, labels_B1), *_ = make_batches(m, load_data(m), peer="a").validation()
    logits_B1V, _ = trunk(pixels_BP[:50])
    assert logits_B1V.shape == (50, 1, 10)
    loss = F.cross_entropy(logits_B1V.flatten(0, 1), labels_B1[:50].flatten())
    assert float(loss.detach()) == pytest.approx(math.log(10), abs=1e-5)
    rows = sum(experts.rows.values())
    if model.routing == "token":
        assert rows == 50 * model.positions * model.layers * model.k_best
        traffic = activation_bytes_per_token(model, m.training) * 50
        assert traffic == 4 * 2 * rows * model.d_model, "inputs, outputs and both gradients, two bytes a number"


def test_patches_are_squares_of_the_image() -> None:
    m = manifest(ImageClassifier(patch=4))
    trunk = build_model(m, experts_of(m))
    image_P = torch.arange(64)[None] % 17
    first_C = (trunk._patches(image_P)[0, 1] + 1) * 8  # type: ignore[operator]
    assert first_C.view(4, 4).round().long().equal(image_P.view(8, 8)[:4, 4:])


def test_it_sees_the_whole_image_and_its_layout() -> None:
    """No causal mask: the first patch hears of the last. And the places of patches matter."""
    m = manifest(ImageClassifier(patch=4, routing="token"))
    trunk = build_model(m, experts_of(m))
    torch.nn.init.normal_(trunk.head.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(trunk.blocks[0].attention.out.weight, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]
    image_P = torch.zeros(1, 64, dtype=torch.int64)
    image_P[0, :8] = 16
    assert not trunk(image_P)[0].allclose(trunk(image_P.flip(1))[0], atol=1e-3)
    assert trunk.blocks[0].attention.causal is False  # type: ignore[union-attr]


def test_it_learns() -> None:
    """Real experts with their optimizers, two trainers with two batches in flight, bfloat16 on the wire; some seconds of work."""
    torch.manual_seed(0)
    run = Simulation(manifest(), trainers=2, average_every=10, loss=0.0)
    before = run.validate()
    for _ in range(450):
        run.turn()
    after = run.validate()
    assert before == pytest.approx(math.log(10), abs=0.01)
    assert after < 0.5
