"""`hive-agent export`: the crowd's model as one file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from agent.cli import visitor
from agent.cli.options import checked
from agent.config import AgentConfig, as_path
from agent.errors import LocalError, ModelUnavailable
from agent.manifest import Manifest
from agent.models.sizes import FLOAT_BYTES, sizes

if TYPE_CHECKING:
    from agent.visiting import Visit

EXAMPLE = "hive-agent export gpt-crowd --out gpt-crowd.safetensors"
NAMED_MAX = 8
"""Missing experts that are named on the terminal; --json names them all."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write the crowd's model into one file (safetensors): the trunk as a trainer has it now, every expert that its host "
        "gives, and the manifest. Training goes on meanwhile, so the experts are those of the few seconds that it takes. "
        "agent.modelfile.load reads the file."
    )
    visitor.arguments(parser)
    parser.add_argument("--out", type=checked(as_path), required=True, metavar="FILE", help="where to write it")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    def prepare(config: AgentConfig, manifest: Manifest) -> visitor.Errand:
        import psutil

        from agent import modelfile
        from agent.experts.fetching import fetch_experts

        modelfile.refuse(args.out, replace=args.force)
        needed, free = FLOAT_BYTES * sizes(manifest.model).total, psutil.virtual_memory().available
        if needed > free:
            raise LocalError(f"the model takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free here")

        async def errand(visit: Visit) -> None:
            wanted = [uid for grid in manifest.model.grids() for uid in grid]
            visitor.say(f"fetching {len(wanted)} experts")
            experts, missing = await fetch_experts(manifest, visit.network, visit.directory, wanted)
            if not experts:
                raise ModelUnavailable(f"no expert of {manifest.name} could be fetched: {next(iter(missing.values()))}")
            trunk = visit.trunk.views(visit.trunk.snapshot().detach())
            saved = modelfile.SavedModel(manifest, visit.trunk.step, trunk, experts)
            size = modelfile.save(saved, args.out, replace=args.force)
            body = {
                "experiment": manifest.name,
                "revision": manifest.revision,
                "manifest_sha256": modelfile.digest(manifest),
                "step": saved.step,
                "file": str(args.out),
                "bytes": size,
                "experts": len(experts),
                "missing": {str(uid): why for uid, why in missing.items()},
            }
            print(json.dumps(body) if args.json else as_text(body))

        return errand

    return visitor.run(args, prepare)


def as_text(body: dict[str, Any]) -> str:
    missing: dict[str, str] = body["missing"]
    lines = [
        f"{body['file']}: {body['experiment']} at step {body['step']}, {body['experts']} experts, {body['bytes'] / 1e6:.1f} MB",
        f"  manifest  revision {body['revision']}, SHA-256 {body['manifest_sha256']}",
    ]
    if missing:
        lines.append(f"  missing   {len(missing)} experts could not be fetched; the model runs without them, less well")
        lines += [f"    {uid}: {why}" for uid, why in list(missing.items())[:NAMED_MAX]]
        lines += [f"    and {len(missing) - NAMED_MAX} more (--json names them)"] if len(missing) > NAMED_MAX else []
    return "\n".join(lines)
