"""A manifest in words, for the page."""

from __future__ import annotations

from agent.manifest import Data, Digits, GPTModel, Manifest, Model, PythonStdlib
from agent.models.sizes import sizes
from coordinator.dashboard.templatetags.frontend import compact


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    """(what, value) pairs, most interesting first."""
    model, training = manifest.model, manifest.training
    grid = " × ".join(map(str, model.grid))
    size = sizes(model)
    passing, examples = ("byte", "sequences") if isinstance(model, GPTModel) else (model.position, model.units)
    return [
        (
            "Parameters",
            f"{compact(size.total)}, of which a {passing} passes through {compact(size.active)}",
        ),
        ("Model", _model(model)),
        ("Experts", f"{size.experts} of {compact(size.expert)} parameters, a {grid} grid in each layer"),
        ("Routing", f"the best {model.k_best} live experts for each {_routed(model)}"),
        ("Data", _data(manifest.data)),
        (
            "Batches",
            f"{training.batch_size} {examples}, {training.batches_in_flight} in flight per trainer",
        ),
        ("Optimizer", f"AdamW at {training.learning_rate:g}, experts at {training.expert_learning_rate:g}"),
        ("On the wire", f"{training.wire_dtype} activations and gradients, peer to peer over WebRTC"),
        ("Trunk", f"averaged between trainers every {manifest.averaging.period_s:g} s"),
        ("Leases", f"an expert whose host falls silent is taken over after {manifest.rules.lease_s:g} s"),
    ]


def _model(model: Model) -> str:
    shape = f"of {model.layers} layers, {model.heads} heads, width {model.d_model}"
    if isinstance(model, GPTModel):
        return f"GPT {shape}, context {model.sequence} bytes"
    return f"image classifier {shape}, {model.positions} patches of {model.patch} × {model.patch} pixels, 10 classes"


def _routed(model: Model) -> str:
    if isinstance(model, GPTModel):
        return model.routing
    return model.position if model.routing == "token" else model.unit


def _data(data: Data) -> str:
    held_out = f"{data.validation_share:.0%} held out for validation"
    if isinstance(data, Digits):
        return f"1,797 images of handwritten digits (UCI, CC BY 4.0), which come with the agent; {held_out}"
    if isinstance(data, PythonStdlib):
        return f"the Python standard library's own sources, byte by byte; {held_out}"
    return f"a text file that every volunteer brings, byte by byte; {held_out}"
