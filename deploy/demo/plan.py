"""What a demo is asked to do: its command line, checked."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.cli.options import Parser
from agent.errors import ConfigError

AGENTS_MAX = 32
SECONDS_MAX = 30 * 86_400
CHAOS_MAX = 64
DEFAULT_PORT = 8000
EXPERIMENT = "gpt-crowd"


@dataclass(frozen=True, order=True, kw_only=True)
class Kill:
    """`SIGKILL` for the coordinator or for one agent, `at_s` seconds after the first agents were started."""

    at_s: float
    target: str
    """`coordinator`, `agent` (one that is not the bootstrap peer), or `agent-N`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One demo."""

    agents: int = 3
    for_s: float | None = None
    """Seconds from the start of the agents; None goes on until Ctrl-C."""
    port: int | None = None
    """None takes DEFAULT_PORT, or a free one if that is taken."""
    headless: bool = False
    json: bool = False
    ephemeral: bool = False
    state_dir: Path | None = None
    """Where everything is kept; None takes var/demo of this clone."""
    kills: tuple[Kill, ...] = ()


def parse_kill(text: str, agents: int) -> Kill:
    """Read `coordinator@60`, `agent@90` or `agent-2@90`. Raises ConfigError."""
    match = re.fullmatch(r"(coordinator|agent(?:-(\d{1,3}))?)@(\d{1,7}(?:\.\d{1,3})?)", text)
    if not match:
        raise ConfigError(
            f"--chaos {text[:60]!r} is not understood; write coordinator@60, agent@90 or agent-2@90 (seconds from the start)"
        )
    if match[2] is not None and not 1 <= int(match[2]) <= agents:
        raise ConfigError(f"--chaos {text}: there are agents 1 to {agents}")
    return Kill(at_s=float(match[3]), target=match[1])


def _number(flag: str, text: str, lowest: int, highest: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
        raise ConfigError(f"{flag} must be a whole number from {lowest} to {highest}, not {text[:40]!r}")
    return int(text)


def check(plan: Plan) -> Plan:
    """Raises ConfigError if the parts of the plan contradict each other."""
    if plan.ephemeral and plan.state_dir is not None:
        raise ConfigError("--ephemeral and --state-dir contradict each other: the one keeps nothing, the other says where")
    if len(plan.kills) > CHAOS_MAX:
        raise ConfigError(f"--chaos is given {len(plan.kills)} times; at most {CHAOS_MAX} make sense")
    for kill in plan.kills:
        if plan.for_s is not None and kill.at_s >= plan.for_s:
            raise ConfigError(f"--chaos {kill.target}@{kill.at_s:g} would come after the end (--for {plan.for_s:g})")
    victims = [kill.target for kill in plan.kills if kill.target != "coordinator"]
    if len(victims) >= plan.agents:
        raise ConfigError(f"--chaos kills {len(victims)} of {plan.agents} agents; at least one must be left to train")
    if len(named := [v for v in victims if v != "agent"]) != len(set(named)):
        raise ConfigError("--chaos kills the same agent twice")
    if sum(kill.target == "coordinator" for kill in plan.kills) > 1:
        raise ConfigError("--chaos kills the coordinator twice")
    return plan


def parse(argv: Sequence[str]) -> Plan:
    """Read a command line. Raises ConfigError; `--help` ends the process as argparse does."""
    parser = Parser(
        prog="./hive demo",
        description=f"Coordinator, experiment {EXPERIMENT} on real text, and agents as processes that train it peer to peer. "
        "Of HIVE_* only HIVE_CHANNEL (fast or stock) reaches the agents.",
        epilog="example: ./hive demo --agents 3 --for 180 --headless --json --chaos coordinator@60",
        allow_abbrev=False,
    )
    parser.add_argument("--agents", default="3", metavar="N", help=f"how many agents, 1 to {AGENTS_MAX} (3)")
    parser.add_argument("--for", dest="for_s", metavar="SECONDS", help="stop by itself after this time (until Ctrl-C)")
    parser.add_argument("--port", metavar="N", help=f"the site's port ({DEFAULT_PORT}, or a free one if that is taken)")
    parser.add_argument("--headless", action="store_true", help="do not open a browser")
    parser.add_argument("--json", action="store_true", help="end with one line of measured facts on standard output")
    parser.add_argument(
        "--ephemeral", action="store_true", help="use a fresh temporary state directory and a free port, and leave nothing"
    )
    parser.add_argument("--state-dir", metavar="DIR", help="keep state, records and logs here (var/demo)")
    parser.add_argument(
        "--chaos",
        action="append",
        default=[],
        metavar="WHO@SECONDS",
        help="kill (SIGKILL) coordinator, agent or agent-N that long after the start, for good; may be given several times",
    )
    args: argparse.Namespace = parser.parse_args(argv)
    agents = _number("--agents", args.agents, 1, AGENTS_MAX)
    return check(
        Plan(
            agents=agents,
            for_s=None if args.for_s is None else float(_number("--for", args.for_s, 10, SECONDS_MAX)),
            port=None if args.port is None else _number("--port", args.port, 1, 65_535),
            headless=args.headless,
            json=args.json,
            ephemeral=args.ephemeral,
            state_dir=None if args.state_dir is None else Path(args.state_dir).absolute(),
            kills=tuple(sorted(parse_kill(text, agents) for text in args.chaos)),
        )
    )


def victim(target: str, alive: Sequence[int]) -> int | None:
    """Which of the agents that are alive `target` means: a named one, or the last. None if it is not there.

    Plain `agent` takes the one that was started last, so that it is not the bootstrap peer unless that is alone.
    """
    if target == "agent":
        return max(alive, default=None)
    number = int(target.removeprefix("agent-"))
    return number if number in alive else None
