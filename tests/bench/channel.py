"""How fast data channels are: Hive's SCTP, aiortc's, TCP and hivemind's libp2p; loopback and emulated links.

    ./hive bench channel [--json] [--runs 3] [--only loopback,links,shared] [--hivemind-venv PATH] …

Always two processes; kinds take turns within each run, and figures are medians over the runs. Bulk goes one way as fast as it is
acknowledged; every 10 ms a control message goes to the other end and back. Rates are what the receiver got, in 10^6 bytes per
second, after `--warm` seconds; CPU is that of each process in ms per 10^6 bytes. The machine's own noise is in every number:
trust ratios within one run.

loopback  `fast` is what agents use (packets as large as the path takes), `base` keeps packets at 1,188 bytes as on the
          internet, `plain` does so without UDP GSO and GRO, `stock` is aiortc, `hivemind` unary calls of 1 MB, four at a time.
links     round-trip times × loss on a link with no rate of its own (--rtt, --loss), packets of 1,500 bytes.
shared    100 Mbit/s, 40 ms, a queue of 300 packets, TCP's rate beside it. Who shares it how: ./hive bench sharing.

hivemind 1.1.12 wants an environment of its own: python -m venv V; V/bin/pip install torch==2.13.0 hivemind==1.1.12.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench._end import KINDS
from tests.bench._pair import HIVEMIND, BenchFailed, measure, medians
from tests.netlab.link import EmulatedLink, LinkSpec, NetlabUnavailable, as_root

PARTS = ("loopback", "links", "shared")
LOOPBACK_KINDS = ("fast", "base", "plain", "stock")
LINK_KINDS = ("fast", "stock")
SHARED_KINDS = ("fast", "stock", "cubic", "bbr")


@dataclass(frozen=True)
class Cell:
    """One place and the kinds that are measured there."""

    name: str
    spec: LinkSpec | None
    kinds: tuple[str, ...]


def cells(args: argparse.Namespace) -> Iterator[Cell]:
    """What was asked for, in order."""
    more = (HIVEMIND,) if args.hivemind_venv else ()
    chosen = tuple(args.kinds.split(",")) if args.kinds else None
    if "loopback" in args.only:
        yield Cell("loopback", None, chosen or LOOPBACK_KINDS + more)
    if "links" in args.only:
        for rtt in args.rtt:
            for loss in args.loss:
                spec = LinkSpec(rtt_ms=rtt, loss=loss / 100)
                yield Cell(f"{rtt:g} ms, {loss:g} % loss", spec, chosen or LINK_KINDS + more)
    if "shared" in args.only:
        spec = LinkSpec(rtt_ms=40, rate_mbit=100, queue_bytes=450_000)
        yield Cell("100 Mbit/s, 40 ms", spec, chosen or SHARED_KINDS + more)


def run(cell: Cell, kind: str, args: argparse.Namespace) -> dict[str, float]:
    """One connection of that kind in that place. Raises BenchFailed."""
    python = args.hivemind_venv / "bin" / "python" if args.hivemind_venv else None
    if cell.spec is None:
        return measure(kind, None, warm_s=1.0, seconds=args.seconds, python=python)
    with EmulatedLink(cell.spec) as link:
        return measure(kind, link, warm_s=args.warm, seconds=args.seconds, python=python)


def ratios(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours against the others, as far as they were measured."""
    found = {}
    for ours in ("fast", "base", "plain"):
        for other in ("stock", HIVEMIND, "cubic", "bbr"):
            if ours in medians and medians.get(other, {}).get("mb_per_s"):
                found[f"{ours}/{other}"] = round(medians[ours]["mb_per_s"] / medians[other]["mb_per_s"], 2)
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--kinds", help=f"instead of the usual ones, of {', '.join((*KINDS, HIVEMIND))}")
    parser.add_argument("--rtt", default="20,50,100,200", help="round-trip times of `links`, ms")
    parser.add_argument("--loss", default="0,0.1,1", help="losses of `links`, percent each way")
    parser.add_argument("--warm", type=float, default=4.0, help="seconds on links before it counts")
    parser.add_argument("--seconds", type=float, default=5.0, help="that count")
    parser.add_argument("--hivemind-venv", type=Path, help="virtual environment with hivemind 1.1.12, to measure its calls too")
    args = parser.parse_args()
    args.only = args.only.split(",")
    try:
        args.rtt, args.loss = ([float(text) for text in given.split(",")] for given in (args.rtt, args.loss))
    except ValueError:
        parser.error("--rtt and --loss take numbers, for example --rtt 20,100 --loss 0,1")
    if not set(args.only) <= set(PARTS) or args.runs < 1 or min(args.warm, args.seconds) <= 0:
        parser.error(f"--only takes {', '.join(PARTS)}; runs, warm and seconds are positive")
    if args.kinds and not set(args.kinds.split(",")) <= {*KINDS, HIVEMIND}:
        parser.error(f"--kinds takes {', '.join((*KINDS, HIVEMIND))}")
    if args.hivemind_venv and not (args.hivemind_venv / "bin" / "python").exists():
        parser.error(f"{args.hivemind_venv} is not a virtual environment: there is no bin/python in it")
    if args.kinds and HIVEMIND in args.kinds and not args.hivemind_venv:
        parser.error("hivemind is measured with --hivemind-venv PATH")
    return args


def measure_all(args: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Every kind in every place, `args.runs` times, taking turns. Raises BenchFailed."""
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for _ in range(args.runs):
        for cell in cells(args):
            for kind in cell.kinds:
                figures = run(cell, kind, args)
                results.setdefault(cell.name, {}).setdefault(kind, []).append(figures)
                if not args.json:
                    line = "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
                    print(f"{cell.name:20} {kind:9} {line}", flush=True)
    return results


def main() -> None:
    args = parse()
    try:
        if set(args.only) - {"loopback"}:
            as_root("tests.bench.channel", sys.argv[1:])
        results = measure_all(args)
    except NetlabUnavailable as error:
        sys.exit(f"bench channel: {error}. Without links: --only loopback")
    except BenchFailed as error:
        sys.exit(f"bench channel: {error}")
    places: dict[str, Any] = {}
    for name, kinds in results.items():
        middle = {kind: medians(runs) for kind, runs in kinds.items()}
        places[name] = {"medians": middle, "ratios": ratios(middle)}
    if args.json:
        print(json.dumps({"bench": "channel", "runs": args.runs, "load": round(os.getloadavg()[0], 2), "places": places}))
        return
    for name, place in places.items():
        for kind, figures in place["medians"].items():
            print(f"median {name:20} {kind:9}", "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))
        print(f"ratios {name:20}", ", ".join(f"{pair} {ratio}" for pair, ratio in place["ratios"].items()))


if __name__ == "__main__":
    main()
