"""`hive-agent logout`: forget the account that this machine signed in to."""

from __future__ import annotations

import argparse

from agent.cli.options import add_settings, settle
from agent.net.account import Account
from agent.net.coordinator import Coordinator, CoordinatorConfig

EXAMPLE = "hive-agent logout --coordinator https://hive.example.org"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Forget the account's token on this machine. An agent that runs goes on until it is restarted."
    add_settings(parser, ("coordinator", "state_dir"))


def run(args: argparse.Namespace) -> int:
    config = settle(args, needs_experiment=False)
    coordinator = Coordinator(CoordinatorConfig(url=config.coordinator, state_dir=config.state_dir))
    if Account(coordinator, config.state_dir).forget():
        print(f"signed out of {config.coordinator}. To end the token itself, revoke it at {config.coordinator}/account/tokens/")
    else:
        print(f"this machine was not signed in to {config.coordinator}")
    return 0
