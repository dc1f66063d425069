"""In what experiments count what was trained: tokens of text, or images."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agent.manifest import GPTModel
from coordinator.experiments.models import Experiment
from coordinator.telemetry.summaries import with_manifests


def units_of(names: Collection[str]) -> dict[str, str]:
    """The unit of each of these experiments, by name. Two queries."""
    return units(list(Experiment.objects.filter(name__in=names)))


def units(experiments: Collection[Experiment]) -> dict[str, str]:
    """The unit of each, by name; tokens where nothing is published. One query."""
    with_manifests(experiments)
    return {e.name: e.manifest.model.units if e.revision is not None else GPTModel.units for e in experiments}


def together(units: Iterable[str]) -> str:
    """What a sum over experiments of these units counts: *images and tokens*."""
    return " and ".join(sorted(set(units))) or GPTModel.units
