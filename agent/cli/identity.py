"""`hive-agent identity`: who this agent is."""

from __future__ import annotations

import argparse
import json

from agent.cli.options import add_settings, settle
from agent.identity import KeyFile

EXAMPLE = "hive-agent identity"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show this agent's peer id; the key is made on first use. The private key itself is never shown."
    add_settings(parser, ("state_dir", "key_file"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    config = settle(args, needs_experiment=False)
    key_file = KeyFile(config.key_file)
    try:
        peer = str(key_file.open().peer_id)
    finally:
        key_file.close()
    if args.json:
        print(json.dumps({"peer": peer, "key_file": str(config.key_file)}))
    else:
        print(f"peer id   {peer}\nkey file  {config.key_file}")
    return 0
