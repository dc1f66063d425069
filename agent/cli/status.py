"""`hive-agent status`: what a running agent does, from the status file that it keeps."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import msgspec

from agent.cli import running, view
from agent.cli.options import WHERE, add_settings, settle
from agent.errors import LocalError
from agent.reports import Report

EXAMPLE = "hive-agent status gpt-crowd"
STALE_AFTER_S = 15.0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """status.json."""

    pid: int
    session: str
    peer: str
    units: str = view.TOKENS
    report: Report


def arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, WHERE)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def read(directory: Path) -> Status | None:
    """The latest status that was written, or None. Raises LocalError if the file is not one."""
    try:
        return msgspec.json.decode((directory / "status.json").read_bytes(), type=Status)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, RecursionError) as e:
        raise LocalError(f"{directory / 'status.json'} cannot be read: {e}") from e


def run(args: argparse.Namespace) -> int:
    """Exit code 0 if the agent runs, 1 if it does not."""
    directory = running.find(settle(args, needs_experiment=False))
    pid = running.running_pid(directory)
    status = read(directory)
    if args.json:
        body = msgspec.to_builtins(status.report) if status else None
        peer = status.peer if status else None
        print(json.dumps({"experiment": directory.name, "running": pid is not None, "pid": pid, "peer": peer, "report": body}))
        return 0 if pid else 1
    if pid is None:
        print(f"no agent runs for {directory.name}. Start one with: hive-agent join {directory.name}")
    if status is None:
        print("it has reported nothing yet" if pid else "nothing was recorded")
        return 0 if pid else 1
    age = time.time() - status.report.at
    print(f"{directory.name}, peer {status.peer}" + (f", process {pid}" if pid else ", as it was last seen"))
    for name, text in view.rows(status.report, view.Rates(), status.report.loss, status.units):
        print(f"  {name:<9} {text}")
    if pid and age > STALE_AFTER_S:
        print(f"  this is {age:.0f} s old: the agent is busy, or its disk is full")
    return 0 if pid else 1
