"""How our congestion control shares a link with itself, with CUBIC and with BBR version 1, over queues, orders and seeds.

    ./hive sim shared-link [--json] [--queues 60,83,120,…] [--against ours,cubic,bbr-1,ours+cubic] [--seeds 3] …

100 Mbit/s and 40 ms unless said otherwise, each begins `--gap` seconds after the one before; queues in packets of 1,500 bytes
(333 are bandwidth times delay). The measured runs beside the kernel's own are `./hive bench sharing`. The exit code is 1 if
somebody got less than `--least` of an equal part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys

from tests.unit.net.sctp.light import Bottleneck, SharedLink

PACKET_BYTES = 1500


def cell(args: argparse.Namespace, queue: int, kinds: list[str], seed: int) -> dict[str, float]:
    """One run: our share, the least part of an equal one, what all got of the link, and the queue."""
    link = Bottleneck(rate=args.rate_mbit / 8 * 1e6, rtt_s=args.rtt_ms / 1e3, queue_bytes=queue * PACKET_BYTES, loss=args.loss)
    shared = SharedLink(link, kinds, seed=seed, gap_s=args.gap)
    shared.run(args.gap * (len(kinds) - 1) + args.warm)
    sent = [(flow.sent, flow.lost) for flow in shared.flows]
    got = shared.run(args.seconds)
    ours = kinds.index("ours")
    flow, (had, had_lost) = shared.flows[ours], sent[ours]
    return {
        "our_share": round(got[ours] / sum(got), 3),
        "least_part": round(min(got) / sum(got) * len(got), 3),
        "utilisation": round(sum(got), 3),
        "our_retransmitted_percent": round(100 * (flow.lost - had_lost) / max(1, flow.sent - had), 2),
        "queue_ms_mean": round(1e3 * shared.queue_s, 1),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--queues", default="60,83,120,167,300,667,1333", help="packets of 1,500 bytes that the queue holds")
    parser.add_argument("--against", default="ours,cubic,bbr-1,ours+cubic", help="with + several at once")
    parser.add_argument("--rate-mbit", type=float, default=100.0)
    parser.add_argument("--rtt-ms", type=float, default=40.0)
    parser.add_argument("--loss", type=float, default=0.0, help="probability of random loss besides")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--gap", type=float, default=0.5, help="seconds between one and the next")
    parser.add_argument("--warm", type=float, default=8.0, help="seconds before it counts")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--least", type=float, default=0.5, help="what each must get of an equal part")
    args = parser.parse_args()
    args.against = args.against.split(",")
    try:
        args.queues = [int(text) for text in args.queues.split(",")]
    except ValueError:
        parser.error("--queues takes numbers of packets, for example 60,300")
    kinds = {kind for several in args.against for kind in several.split("+")}
    if not kinds <= {"ours", "cubic", "bbr-1"} or args.seeds < 1 or args.gap < 0 or min(args.warm, args.seconds) <= 0:
        parser.error("--against takes ours, cubic, bbr-1, ours+cubic; seeds and times are positive (the gap may be 0)")
    if min(args.queues) < 2 or min(args.rate_mbit, args.rtt_ms) <= 0 or not 0 <= args.loss < 1:
        parser.error("a queue holds two packets at least, rate and round trip are positive, --loss is a probability below 1")
    return args


def main() -> int:
    args = parse()
    cells: dict[str, list[dict[str, float]]] = {}
    failed = 0
    for other, queue, first in itertools.product(args.against, args.queues, (True, False)):
        if other == "ours" and not first:
            continue
        others = other.split("+")
        kinds = ["ours", *others] if first else [*others, "ours"]
        runs = [cell(args, queue, kinds, seed) for seed in range(1, args.seeds + 1)]
        name = f"{' then '.join(kinds)}, queue {queue}"
        cells[name] = runs
        failed += sum(run["least_part"] < args.least for run in runs)
        if not args.json:
            print(f"{name:28}", " | ".join("  ".join(f"{value:g}" for value in run.values()) for run in runs), flush=True)
    facts = {"sim": "shared-link", "runs": sum(map(len, cells.values())), "below_least": failed, "cells": cells}
    print(
        json.dumps(facts)
        if args.json
        else f"{failed} of {facts['runs']} runs left somebody less than {args.least:g} of an equal part"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
