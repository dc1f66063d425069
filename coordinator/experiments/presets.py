"""Experiments that come with Hive."""

from __future__ import annotations

from agent.manifest import GPTModel, Manifest, PythonStdlib

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

PRESETS = {manifest.name: manifest for manifest in (GPT_CROWD,)}
