"""Ready-made models, for the organizer's form and for tests. No torch here: the coordinator shows them."""

from __future__ import annotations

from dataclasses import dataclass

from agent.manifest import GPTModel, Training


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model with the settings that it learns well with. `agent.models.sizes.sizes(model)` counts its parameters."""

    title: str
    model: GPTModel
    training: Training


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
    "medium": Preset(
        title="Medium: a billion parameters, for dozens of agents",
        model=GPTModel(d_model=512, layers=8, heads=8, sequence=512, expert_hidden=2048, grid=(8, 8), k_best=4),
        training=Training(batch_size=16, learning_rate=1e-3, expert_learning_rate=5e-4, warmup_steps=200),
    ),
}
"""By name. `gpt-crowd` is exactly the manifest's defaults."""
