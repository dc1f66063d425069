"""What every `./hive sim NAME` has in common: its options, its output, and the line that reproduces a failure.

Facts go to standard output (one JSON object with --json), what happens meanwhile and what failed to standard error. The exit
code is 0 if every check held, 1 if one did not.
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.sim.engine.story import Story
from tests.sim.engine.survey import resident_bytes
from tests.sim.engine.world import World

W = TypeVar("W", bound=World)
STAND_IN = "records are signed with a keyed hash in place of Ed25519 (tests/sim/engine/records.py)"


@dataclass(kw_only=True)
class Run:
    """One run of a simulation: its options, its world, and what it has found out."""

    peers: int
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    quiet: bool = True
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    worlds: list[World] = field(default_factory=list)
    story: int | None = None
    _cpu_s: float = field(default_factory=time.process_time)

    def world(self, **settings: Any) -> World:
        """The world of this run, or one of several."""
        return self.add(World(self.seed, **settings))

    def add(self, world: W) -> W:
        """A world that a scenario has made itself."""
        if self.story is not None:
            Story(world, self.story)
        self.worlds.append(world)
        return world

    def note(self, name: str, value: Any) -> None:
        """A fact for the output."""
        self.facts[name] = round(value, 6) if isinstance(value, float) else value

    def check(self, holds: bool, sentence: str) -> None:
        """What must hold; the sentence says what did not."""
        if not holds:
            self.failures.append(sentence)

    def say(self, text: str) -> None:
        """Tell a person who waits how far it is."""
        if not self.quiet:
            cpu_s = time.process_time() - self._cpu_s
            print(f"sim: {text} ({cpu_s:.0f} s of CPU)", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Add what every simulation reports."""
        self.note("cpu_s", time.process_time() - self._cpu_s)
        self.note("events", sum(world.events for world in self.worlds))
        self.note("messages", sum(world.delivered for world in self.worlds))
        self.note("resident_mb", resident_bytes() / 1e6)
        self.note("signatures", STAND_IN)
        self.note("hash", self.worlds[-1].trace.hexdigest() if self.worlds else "")


Scenario = Callable[[Run], None]
Option = tuple[str, Any, str]
"""Name without dashes, default (its type is the option's), help."""


def main(name: str, scenario: Scenario, *, peers: int, options: Sequence[Option] = (), argv: Sequence[str] | None = None) -> int:
    """Run a scenario from the command line."""
    parser = argparse.ArgumentParser(prog=f"./hive sim {name}", description=sys.modules[scenario.__module__].__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--peers", type=_peers, default=peers, help=f"how many peers; default {peers}")
    parser.add_argument("--seed", type=int, default=0, help="decides everything that is random; default 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--story", type=_natural, metavar="ID", help="print the history of that operation")
    for option, default, text in options:
        parser.add_argument(f"--{option}", type=_kind(default), default=default, help=f"{text}; default {default}")
    given = parser.parse_args(argv)
    chosen = {option: getattr(given, option.replace("-", "_")) for option, _, _ in options}
    run = Run(peers=given.peers, seed=given.seed, options=chosen, quiet=False, story=given.story)
    gc.set_threshold(200_000, 20, 100)  # next to nothing here is garbage in cycles, and looking for it takes long
    began = time.monotonic()
    problem: str | None = None
    try:
        scenario(run)
    except AssertionError as e:
        run.failures.append(f"stopped: {e}")
        problem = str(e)
    run.note("wall_s", time.monotonic() - began)
    run.finish()
    report = {"sim": name, "peers": run.peers, "seed": run.seed, **chosen, "ok": not run.failures, **run.facts}
    print(json.dumps(report) if given.json else "\n".join(f"{key:>28}  {value}" for key, value in report.items()))
    for failure in run.failures:
        print(f"sim: FAILED: {failure}", file=sys.stderr)
    if run.failures:
        words = [f"--{option}={value}" for option, value in chosen.items()]
        print(f"sim: reproduce: ./hive sim {name} --peers {run.peers} --seed {run.seed} {shlex.join(words)}", file=sys.stderr)
    return 1 if run.failures or problem is not None else 0


class Share(float):
    """The default of an option that takes a part of a whole."""


def _kind(default: Any) -> Callable[[str], Any]:
    """What an option with that default takes: a text, a share, or a number that is not negative; not 0 if the default is not."""
    if isinstance(default, str):
        return type(default)
    most = 1.0 if isinstance(default, Share) else float("inf")

    def number(text: str) -> Any:
        try:
            value = type(default)(text)
        except ValueError:
            value = -1
        if not 0 <= value <= most or value == float("inf") or (type(default) is int and default and not value):
            least = "at least 1" if type(default) is int and default else "from 0 to 1" if most == 1 else "at least 0"
            raise argparse.ArgumentTypeError(f"a number {least} is wanted, not {text!r}")
        return value

    return number


def _peers(text: str) -> int:
    if (count := _natural(text)) < 2:
        raise argparse.ArgumentTypeError("at least 2 peers make an overlay")
    return count


def _natural(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is wanted, not {text!r}")
    return value
