"""`hive-agent evaluate`: what the crowd's model is worth on held-out data."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from agent.cli import visitor
from agent.config import AgentConfig
from agent.errors import ModelUnavailable
from agent.manifest import GPTModel, Manifest

if TYPE_CHECKING:
    from agent.scoring import Score
    from agent.visiting import Visit

EXAMPLE = "hive-agent evaluate gpt-crowd --coordinator https://hive.example.org"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the experiment's held-out data through the crowd's model: the trunk as a trainer has it now, and the experts where "
        "they are. It trains nothing and changes nothing, and whoever runs it is not counted as a contributor."
    )
    visitor.arguments(parser, "data")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    def prepare(config: AgentConfig, manifest: Manifest) -> visitor.Errand:
        from agent.scoring import score
        from agent.training import load_data, make_batches
        from agent.visiting import in_thread

        batches = make_batches(manifest, load_data(manifest, config.data), peer="").validation()

        async def errand(visit: Visit) -> None:
            visitor.say(f"running {sum(y.numel() for _, y in batches)} held-out {visit.manifest.model.units} through the experts")
            scored = await in_thread(lambda keep_going: score(visit.model(), batches, keep_going))
            if scored is None or not visit.tally.answered:
                raise ModelUnavailable(f"no expert of {manifest.name} answered; try again in a moment")
            body = described(visit, scored)
            print(json.dumps(body) if args.json else as_text(body))

        return errand

    return visitor.run(args, prepare)


def described(visit: Visit, scored: Score) -> dict[str, Any]:
    """The JSON answer. Losses are nats per target; there is no perplexity where it is not text that is predicted."""
    model = visit.manifest.model
    perplexity = {"perplexity": scored.perplexity} if isinstance(model, GPTModel) else {}
    return {
        "experiment": visit.manifest.name,
        "revision": visit.manifest.revision,
        "step": visit.trunk.step,
        "trainer": str(visit.trainer),
        "units": model.units,
        "held_out": scored.targets,
        "loss": scored.loss,
        **perplexity,
        "accuracy": scored.accuracy,
        "experts": sum(map(len, model.grids())),
        "experts_alive": len(visit.directory.alive()),
        "experts_answered": len(visit.tally.answered),
        "calls": visit.tally.calls,
        "calls_failed": visit.tally.calls_failed,
    }


def as_text(body: dict[str, Any]) -> str:
    failed = f", {body['calls_failed']} of {body['calls']} calls failed" if body["calls_failed"] else ""
    perplexity = f"  perplexity {body['perplexity']:.2f}" if "perplexity" in body else ""
    rows = {
        "loss": f"{body['loss']:.4f}{perplexity}",
        "accuracy": f"{body['accuracy']:.1%} of {body['held_out']} held-out {body['units']}",
        "experts": f"{body['experts_answered']} answered, {body['experts_alive']} of {body['experts']} live{failed}",
    }
    head = f"{body['experiment']} at step {body['step']}, the trunk of peer {body['trainer'][:8]}"
    return "\n".join([head, *(f"  {name:<9} {text}" for name, text in rows.items())])
