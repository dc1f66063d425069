"""`hive-agent config`: every setting, its value and its source."""

from __future__ import annotations

import argparse
import json

from agent.cli.options import add_settings, settle
from agent.config import OPTIONS

EXAMPLE = "hive-agent config --threads 2"


def arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    config = settle(args, needs_experiment=False)
    rows = {option.name: (config.shown(option.name), config.sources[option.name]) for option in OPTIONS}
    if args.json:
        print(json.dumps({name: {"value": value, "source": source} for name, (value, source) in rows.items()}))
    else:
        for name, (value, source) in rows.items():
            print(f"{name.replace('_', '-'):<16} {value}  ({source})")
    return 0
