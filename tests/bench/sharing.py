"""How our congestion control shares a link: with itself, and with the kernel's TCP CUBIC and TCP BBR.

    ./hive bench sharing [--json] [--queues 60,300] [--against fast,cubic,bbr] [--last] [--loss 0] [--runs 1] …

Two bulk connections go the same way through one emulated link (tests/netlab: real kernels, real packets) of 100 Mbit/s and
40 ms, each between two processes of its own, whose queue holds 60 (a fifth of bandwidth times delay) or 300 packets. Ours begins
first, or with `--last` some seconds after the other. Shares are of what both received together after `--warm` seconds; the queue
is what a packet waited on the way, mean and worst second.
Needs what tests/netlab/link.py says.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

from tests.bench._end import KINDS
from tests.bench._pair import BenchFailed, Pair, medians
from tests.netlab.link import EmulatedLink, LinkSpec, NetlabUnavailable, as_root

PACKET_BYTES = 1500
START_S = 4.0
"""Both must have begun after this."""
LEAD_S = 4.0
"""How long the other has had the link when ours comes last."""


def share(other: str, spec: LinkSpec, warm_s: float, seconds: float, *, last: bool) -> dict[str, float]:
    """Ours beside `other` through that link, first or `last`: figures of both. Raises BenchFailed."""
    lead_s = LEAD_S if last else 0.0
    with EmulatedLink(spec) as link:
        pairs = [Pair(kind, START_S + lead_s + warm_s + seconds, link) for kind in ("fast", other)]
        try:
            for index, pair in enumerate(reversed(pairs) if last else pairs):
                if index:
                    time.sleep(lead_s)
                pair.start()
            results = [pair.finish() for pair in pairs]
        finally:
            for pair in pairs:
                pair.close()
        begun = max(result.sent[0][0] for result in results)
        ours, theirs = (result.figures(begun + warm_s, begun + warm_s + seconds) for result in results)
        seconds_seen = link.seconds[-int(START_S + seconds) : -int(START_S)] or link.seconds
    total = ours["mb_per_s"] + theirs["mb_per_s"]
    if not total:
        raise BenchFailed(f"fast beside {other}: nothing arrived")
    return {
        "our_share": ours["mb_per_s"] / total,
        "total_mb_per_s": total,
        "our_retransmitted_percent": ours["retransmitted_percent"],
        "their_retransmitted_percent": theirs["retransmitted_percent"],
        "control_p50_ms": ours.get("control_p50_ms", 0.0),
        "control_p99_ms": ours.get("control_p99_ms", 0.0),
        "queue_ms_mean": statistics.mean(second.queue_ms_mean for second in seconds_seen),
        "queue_ms_worst_second": max(second.queue_ms_mean for second in seconds_seen),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--queues", default="60,300", help="packets of 1,500 bytes that the link's queue holds")
    parser.add_argument("--against", default="fast,cubic,bbr", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rate-mbit", type=float, default=100.0)
    parser.add_argument("--rtt-ms", type=float, default=40.0)
    parser.add_argument("--loss", type=float, default=0.0, help="probability of random loss besides")
    parser.add_argument("--last", action="store_true", help="the other has had the link for a while when ours begins")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--warm", type=float, default=8.0, help="seconds before it counts")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    args.against = args.against.split(",")
    try:
        args.queues = [int(text) for text in args.queues.split(",")]
    except ValueError:
        parser.error("--queues takes numbers of packets, for example 60,300")
    if not set(args.against) <= set(KINDS) or args.runs < 1 or min(args.warm, args.seconds) <= 0:
        parser.error(f"--against takes {', '.join(KINDS)}; runs, warm and seconds are positive")
    if min(args.queues) < 2 or min(args.rate_mbit, args.rtt_ms) <= 0 or not 0 <= args.loss < 1:
        parser.error("a queue holds two packets at least, rate and round trip are positive, --loss is a probability below 1")
    return args


def main() -> None:
    args = parse()
    cells: dict[str, list[dict[str, float]]] = {}
    try:
        as_root("tests.bench.sharing", sys.argv[1:])
        for run in range(args.runs):
            for queue in args.queues:
                for other in args.against:
                    spec = LinkSpec(
                        rtt_ms=args.rtt_ms, loss=args.loss, rate_mbit=args.rate_mbit, queue_bytes=queue * PACKET_BYTES, seed=run
                    )
                    name = f"{other}{' before' if args.last else ''}, queue {queue}"
                    figures = share(other, spec, args.warm, args.seconds, last=args.last)
                    cells.setdefault(name, []).append(figures)
                    if not args.json:
                        print(f"beside {name:16}", "  ".join(f"{k} {v:.2f}" for k, v in figures.items()), flush=True)
    except (NetlabUnavailable, BenchFailed) as error:
        sys.exit(f"bench sharing: {error}")
    facts: dict[str, Any] = {
        "bench": "sharing",
        "runs": args.runs,
        "rate_mbit": args.rate_mbit,
        "rtt_ms": args.rtt_ms,
        "loss": args.loss,
        "load": round(os.getloadavg()[0], 2),
        "medians": {name: medians(runs) for name, runs in cells.items()},
    }
    if args.json:
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
