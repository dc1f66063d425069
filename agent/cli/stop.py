"""`hive-agent stop`: end a running agent now."""

from __future__ import annotations

import argparse
import signal

from agent.cli import running
from agent.cli.options import WHERE, add_settings, settle
from agent.errors import LocalError

EXAMPLE = "hive-agent stop gpt-crowd"
TERM_TIMEOUT_S = 10
KILL_TIMEOUT_S = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Stop a running agent at once, without waiting for what it has begun. `hive-agent finish` is kinder."
    add_settings(parser, WHERE)


def run(args: argparse.Namespace) -> int:
    directory = running.find(settle(args, needs_experiment=False))
    pid = running.send(directory, signal.SIGTERM)
    if not running.wait_gone(directory, TERM_TIMEOUT_S):
        running.send(directory, signal.SIGKILL)
        if not running.wait_gone(directory, KILL_TIMEOUT_S):
            raise LocalError(f"process {pid} does not end; the operating system holds it")
    print(f"the agent for {directory.name} (process {pid}) has stopped")
    return 0
