"""`hive-agent version`."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform

from agent import PROTOCOL_VERSION, __version__

EXAMPLE = "hive-agent version --json"
PARTS = ("torch", "aiortc", "websockets", "cryptography", "msgspec")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def facts() -> dict[str, str | int]:
    parts: dict[str, str | int] = {"hive-agent": __version__, "protocol": PROTOCOL_VERSION, "python": platform.python_version()}
    for name in PARTS:
        try:
            parts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            parts[name] = "missing"
    return parts


def run(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps(facts()))
    else:
        for name, value in facts().items():
            print(f"{name} {value}")
    return 0
