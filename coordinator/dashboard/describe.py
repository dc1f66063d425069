"""A manifest in words, for the page."""

from __future__ import annotations

from agent.manifest import Manifest, PythonStdlib, TextFile
from agent.models.sizes import sizes
from coordinator.dashboard.templatetags.frontend import compact


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    """(what, value) pairs, most interesting first."""
    model, training = manifest.model, manifest.training
    grid = " × ".join(map(str, model.grid))
    size = sizes(model)
    return [
        ("Parameters", f"{compact(size.total)}, of which a byte passes through {compact(size.active)}"),
        ("Model", f"GPT of {model.layers} layers, {model.heads} heads, width {model.d_model}, context {model.sequence} bytes"),
        ("Experts", f"{size.experts} of {compact(size.expert)} parameters, a {grid} grid in each layer"),
        ("Routing", f"the best {model.k_best} live experts for each {model.routing}"),
        ("Data", _data(manifest.data)),
        ("Batches", f"{training.batch_size} sequences, {training.batches_in_flight} in flight per trainer"),
        ("Optimizer", f"AdamW at {training.learning_rate:g}, experts at {training.expert_learning_rate:g}"),
        ("On the wire", f"{training.wire_dtype} activations and gradients, peer to peer over WebRTC"),
        ("Trunk", f"averaged between trainers every {manifest.averaging.period_s:g} s"),
        ("Leases", f"an expert whose host falls silent is taken over after {manifest.rules.lease_s:g} s"),
    ]


def _data(data: PythonStdlib | TextFile) -> str:
    held_out = f"{data.validation_share:.0%} held out for validation"
    if isinstance(data, PythonStdlib):
        return f"the Python standard library's own sources, byte by byte; {held_out}"
    return f"a text file that every volunteer brings, byte by byte; {held_out}"
