from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from agent.manifest import GPTModel, Manifest, Training, decode
from agent.models.presets import PRESETS
from agent.models.sizes import activation_bytes_per_token, sizes


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_makes_a_valid_manifest(name: str) -> None:
    preset = PRESETS[name]
    manifest = Manifest(name=name, revision=1, title=preset.title, model=preset.model, training=preset.training, data=preset.data)
    assert decode(msgspec.json.encode(manifest)) == manifest


def test_how_large_they_are() -> None:
    counts = {name: sizes(preset.model) for name, preset in PRESETS.items()}
    assert counts["tiny"].total < 50_000
    assert counts["digits"].total < 100_000
    assert 100_000 < counts["gpt-crowd"].total < 5_000_000
    assert 1e9 < counts["medium"].total < 1.2e9
    assert counts["medium"].active < counts["medium"].total / 5


def test_bytes_on_the_wire() -> None:
    model = GPTModel(d_model=100, layers=3, k_best=2, heads=1)
    assert activation_bytes_per_token(model, Training(wire_dtype="bfloat16")) == 3 * 2 * 4 * 200
    assert activation_bytes_per_token(model, Training(wire_dtype="float32")) == 3 * 2 * 4 * 400


def test_the_coordinator_can_use_them_without_torch() -> None:
    program = "import sys, agent.models.presets, agent.models.sizes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
