"""`hive-agent generate`: text from the crowd's model."""

from __future__ import annotations

import argparse
import codecs
import io
import json
import math
import secrets
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from agent.cli import visitor
from agent.cli.options import checked
from agent.config import AgentConfig, whole
from agent.errors import ConfigError
from agent.manifest import GPTModel, Manifest

if TYPE_CHECKING:
    from agent.visiting import Visit

EXAMPLE = 'hive-agent generate gpt-crowd --prompt "def main(" --length 200 --seed 1'
PROMPT_BYTES_MAX = 65_536
LENGTH_MAX = 100_000
LENGTH = 200
TEMPERATURE_MAX = 10.0
TEMPERATURE = 0.8
TOP_K_MAX = 262_144
TOP_K = 40
SEED_MAX = 999_999_999


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= TEMPERATURE_MAX:
        raise ValueError(f"must be a number from 0 to {TEMPERATURE_MAX:g}")
    return value


def _prompt(text: str) -> bytes:
    prompt = text.encode(errors="surrogateescape")
    if not 1 <= len(prompt) <= PROMPT_BYTES_MAX:
        raise ValueError(f"must be a text of 1 to {PROMPT_BYTES_MAX} bytes")
    return prompt


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Continue a prompt with the crowd's model: the trunk as a trainer has it now, and the experts where they are. It trains "
        "nothing and changes nothing. The same seed gives the same text as long as the model does not learn and no expert fails."
    )
    visitor.arguments(parser)
    parser.add_argument("--prompt", type=checked(_prompt), required=True, metavar="TEXT", help="what to continue")
    parser.add_argument(
        "--length", type=checked(whole(1, LENGTH_MAX)), default=LENGTH, metavar="N", help=f"bytes to write ({LENGTH})"
    )
    parser.add_argument(
        "--temperature",
        type=checked(_temperature),
        default=TEMPERATURE,
        metavar="T",
        help=f"0 takes the likeliest byte each time, more is bolder ({TEMPERATURE:g})",
    )
    parser.add_argument(
        "--top-k",
        type=checked(whole(1, TOP_K_MAX)),
        default=TOP_K,
        metavar="K",
        help=f"draw from the K likeliest ({TOP_K})",
    )
    parser.add_argument("--seed", type=checked(whole(0, SEED_MAX)), metavar="S", help="of the draws (default: another each time)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of text as it comes")


def run(args: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model writes characters that not every terminal has
    seed = secrets.randbelow(SEED_MAX + 1) if args.seed is None else args.seed

    def prepare(config: AgentConfig, manifest: Manifest) -> visitor.Errand:
        model = manifest.model
        if not isinstance(model, GPTModel):
            raise ConfigError(
                f"{manifest.name} learns from {model.units}, and its model writes no text. "
                f"What it has learnt: hive-agent evaluate {manifest.name}"
            )

        async def errand(visit: Visit) -> None:
            from agent.models.gpt import generate
            from agent.visiting import in_thread

            def write(keep_going: Callable[[], bool]) -> str:
                tokens = generate(
                    visit.model(),
                    args.prompt,
                    tokens=args.length,
                    sequence=model.sequence,
                    temperature=args.temperature,
                    top=args.top_k,
                    seed=seed,
                )
                return stream(tokens, keep_going, (lambda piece: None) if args.json else _show)

            visitor.say(f"the trunk is that of step {visit.trunk.step}; seed {seed}")
            prompt = args.prompt.decode(errors="replace")
            if not args.json:
                _show(prompt)
            text = await in_thread(write)
            if args.json:
                print(json.dumps(_described(visit, seed, prompt, text)))
            else:
                print()

        return errand

    return visitor.run(args, prepare)


def stream(tokens: Iterable[int], keep_going: Callable[[], bool], show: Callable[[str], None]) -> str:
    """Decode bytes as they come, and show each character once it is whole; all of it is returned.

    What is not UTF-8, or would steer a terminal, becomes U+FFFD.
    """
    from agent.samples import printable

    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    pieces = []
    for token in tokens:
        pieces.append(printable(decoder.decode(bytes([token & 255]))))
        show(pieces[-1])
        if not keep_going():
            break
    pieces.append(printable(decoder.decode(b"", final=True)))
    show(pieces[-1])
    return "".join(pieces)


def _show(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _described(visit: Visit, seed: int, prompt: str, text: str) -> dict[str, object]:
    return {
        "experiment": visit.manifest.name,
        "revision": visit.manifest.revision,
        "step": visit.trunk.step,
        "seed": seed,
        "prompt": prompt,
        "text": text,
        "experts_answered": len(visit.tally.answered),
        "calls": visit.tally.calls,
        "calls_failed": visit.tally.calls_failed,
    }
