"""Ready-made models, for the organizer's form and for tests. No torch here: the coordinator shows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.manifest import Data, Digits, GPTModel, ImageClassifier, Model, PythonStdlib, Training


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model with the settings that it learns well with. `agent.models.sizes.sizes(model)` counts its parameters."""

    title: str
    model: Model
    training: Training
    data: Data = field(default_factory=PythonStdlib)


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        title="Tiny: for trying things out, four small experts",
        model=GPTModel(d_model=32, layers=1, heads=2, sequence=64, expert_hidden=64, grid=(2, 2), k_best=2),
        training=Training(batch_size=8),
    ),
    "gpt-crowd": Preset(
        title="GPT-crowd: learns to write Python within minutes on a few laptops",
        model=GPTModel(),
        training=Training(),
    ),
    "digits": Preset(
        title="Digits: tells handwritten digits apart, eight small experts",
        model=ImageClassifier(),
        training=Training(batch_size=32, learning_rate=5e-3, validation_period_s=10.0),
        data=Digits(),
    ),
    "medium": Preset(
        title="Medium: a billion parameters, for dozens of agents",
        model=GPTModel(d_model=512, layers=8, heads=8, sequence=512, expert_hidden=2048, grid=(8, 8), k_best=4),
        training=Training(batch_size=16, learning_rate=1e-3, expert_learning_rate=5e-4, warmup_steps=200),
    ),
}
"""By name. `gpt-crowd` is exactly the manifest's defaults."""
