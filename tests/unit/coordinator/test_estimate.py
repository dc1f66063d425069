"""The estimate that stands beside the form: arithmetic by hand."""

from __future__ import annotations

import pytest

from agent.manifest import Averaging, GPTModel, ImageClassifier, Rules, Training
from agent.models.presets import PRESETS
from coordinator.experiments.estimate import FREE_BYTES, estimate

SMALL = GPTModel(d_model=32, layers=1, heads=2, sequence=64, expert_hidden=64, grid=(2, 2), k_best=2)


def test_of_the_tiny_preset() -> None:
    found = estimate(SMALL, Training(batch_size=8), Averaging(period_s=8), Rules())
    trunk = 2 * 256 * 32 + (4 * 32 * 32 + 2 * 32 + 32 * (2 + 2)) + 32
    expert = 2 * 32 * 64 + 64 + 32
    assert (found.trunk_parameters, found.expert_parameters, found.experts) == (trunk, expert, 4)
    assert (found.parameters, found.parameters_active) == (trunk + 4 * expert, trunk + 2 * expert)
    assert found.expert_bytes == 16 * expert and found.experts_bytes == 64 * expert and found.trunk_bytes == 16 * trunk
    assert found.token_bytes_up == 2 * 2 * 32 * 2  # inputs and gradients, two experts, bfloat16
    assert found.step_bytes_up == found.token_bytes_up * 8 * 64
    assert found.tokens_per_s_max == pytest.approx(1_250_000 / 256)
    assert found.averaging_bytes_per_s == trunk * 4 / 8
    assert found.machines == 1 and found.warnings == []


def test_exact_numbers_take_twice_the_traffic() -> None:
    half, full = (estimate(SMALL, Training(wire_dtype=d), Averaging(), Rules()) for d in ("bfloat16", "float32"))  # type: ignore[arg-type]
    assert full.token_bytes_up == 2 * half.token_bytes_up


def test_machines_are_counted_in_whole_experts() -> None:
    model = GPTModel(d_model=4096, heads=8, expert_hidden=12_288, grid=(4,), layers=1)
    found = estimate(model, Training(), Averaging(), Rules())
    assert FREE_BYTES // 2 > found.expert_bytes > FREE_BYTES // 3
    assert found.machines == 2


def test_a_classifier_is_counted_by_the_image() -> None:
    found = estimate(ImageClassifier(patch=2), Training(batch_size=32), Averaging(), Rules())
    assert found.token_bytes_up == 16 * 2 * 2 * 32 * 2 * 2, "patches, layers, experts, width, there and back, bytes"
    assert found.step_bytes_up == 32 * found.token_bytes_up


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_possible(name: str) -> None:
    preset = PRESETS[name]
    assert estimate(preset.model, preset.training, Averaging(), Rules()).machines >= 1


@pytest.mark.parametrize(
    ("model", "training", "averaging", "rules", "says"),
    [
        ({"d_model": 8192, "sequence": 4096}, {"batch_size": 8}, {}, {}, "the call is larger than the 256 MiB"),
        ({"d_model": 2048, "layers": 8}, {}, {"period_s": 3600}, {}, "The trunk is larger than the 256 MiB"),
        ({"d_model": 16_384, "expert_hidden": 16_384}, {}, {}, {}, "One expert with its optimizer needs more than 4 GiB"),
        ({"d_model": 8192, "layers": 8}, {}, {}, {}, "The trunk with its optimizer needs more than 4 GiB"),
        ({"d_model": 512, "layers": 8}, {}, {"period_s": 8}, {}, "Averaging the trunk alone"),
        ({}, {}, {}, {"call_timeout_s": 12}, "shorter than the lease"),
    ],
)
def test_what_cannot_work_well_is_said(model: dict, training: dict, averaging: dict, rules: dict, says: str) -> None:  # type: ignore[type-arg]
    found = estimate(GPTModel(**model), Training(**training), Averaging(**averaging), Rules(**rules))
    assert any(says in w for w in found.warnings), found.warnings
