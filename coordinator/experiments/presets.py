"""Experiments that come with Hive."""

from __future__ import annotations

from agent.manifest import GPTModel, Manifest, PythonStdlib
from agent.models import presets

GPT_CROWD = Manifest(
    name="gpt-crowd",
    revision=1,
    title="gpt-crowd",
    description=(
        "A small GPT that learns to write Python, byte by byte, from the standard library's own sources. "
        "Its feed-forward layers are mixtures of experts, and the experts live on the machines of whoever takes part."
    ),
    model=GPTModel(),
    data=PythonStdlib(),
)

_digits = presets.PRESETS["digits"]
DIGITS = Manifest(
    name="digits",
    revision=1,
    title="digits",
    description=(
        "A small image classifier that learns to tell handwritten digits apart, within a minute or two, from 1,797 images "
        "that every agent comes with. Its feed-forward layers are mixtures of experts, and the experts live on the machines "
        "of whoever takes part."
    ),
    model=_digits.model,
    data=_digits.data,
    training=_digits.training,
)

PRESETS = {manifest.name: manifest for manifest in (GPT_CROWD, DIGITS)}
