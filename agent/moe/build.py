"""The model of an experiment, its feed-forward layers put into the hands of experts."""

from __future__ import annotations

from agent.manifest import ImageClassifier, Manifest
from agent.models.classifier import Classifier
from agent.models.gpt import GPT
from agent.moe.experts_api import Experts
from agent.moe.layer import MixtureConfig, MixtureOfExperts


def build_model(manifest: Manifest, experts: Experts) -> GPT | Classifier:
    """A fresh trunk, the same on every machine (it depends on the manifest's seed and model only), calling `experts`.

    Its parameters are the trunk's, gates included; those of experts are not among them. Every thread that uses
    `torch.func.functional_call` needs one of its own, with the same `experts`.
    """
    model = manifest.model
    grids = model.grids()
    config = MixtureConfig(routing=model.routing, call_rows_max=manifest.rules.batch_rows_max)

    def mixture(layer: int) -> MixtureOfExperts:
        return MixtureOfExperts(model.d_model, grids[layer], model.k_best, experts=experts, config=config)

    trunk = Classifier(model, mixture) if isinstance(model, ImageClassifier) else GPT(model, mixture)
    trunk.initialise(manifest.seed)
    return trunk
