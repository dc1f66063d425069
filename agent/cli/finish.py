"""`hive-agent finish`: the same as one Ctrl-C in the agent's terminal."""

from __future__ import annotations

import argparse
import signal

from agent.cli import running
from agent.cli.options import WHERE, add_settings, settle
from agent.errors import LocalError

EXAMPLE = "hive-agent finish gpt-crowd"
TIMEOUT_S = 120


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a running agent leave in good order: it ends the batches that it has begun, gives its experts up, tells its peers "
        "and stops. Handing the experts' exact state over comes in a later version; now, others take them up anew."
    )
    add_settings(parser, WHERE)


def run(args: argparse.Namespace) -> int:
    directory = running.find(settle(args, needs_experiment=False))
    pid = running.send(directory, signal.SIGINT)
    print(f"the agent for {directory.name} (process {pid}) is leaving", flush=True)
    if not running.wait_gone(directory, TIMEOUT_S):
        raise LocalError(f"it has not left after {TIMEOUT_S} s; hive-agent stop {directory.name} ends it at once")
    print("it has left")
    return 0
