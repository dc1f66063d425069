"""The DHT in real processes over real WebRTC on one machine, beside the same cell on hivemind.

    python -m tests.bench.dht --peers 16 --hivemind-venv VENV --json

Peers are started one after the other, each a process of its own with up to three earlier ones as contacts; set-up is from the
start of the process until it has found its place in the overlay. hivemind's peers are forked from a process that has imported
everything: `setup_s_per_peer_after_imports` is what to compare with that; a hivemind peer that is a process of its own, as on a
volunteer's machine, takes `imports_s` more. Then one peer publishes experts in batches as a host does (a lease each, and the
prefixes that lead to it), another reads the leases in batches, and a third reads single ones; nobody has read them before, and
readers keep no records of others. Reads take the first answer, as the directory of experts does. Times are means, as hivemind's
cell has them. With a virtual environment that has hivemind, both run in turn, `--rounds` times, and ratios are of the medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_S, COMMAND_S, CELL_S = 60.0, 120.0, 400.0
SIDE = 16
FIGURES = ("setup_s_per_peer", "store_ms_per_expert", "bulk_get_ms_per_expert", "fresh_get_ms")
AFTER_IMPORTS = "setup_s_per_peer_after_imports"
PEERS_MIN = 3


class Process:
    """One peer (tests/bench/_dht_peer.py)."""

    def __init__(self, seed: int, contacts: list[str]) -> None:
        self.began = time.perf_counter()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.bench._dht_peer", str(seed), *contacts],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        """What it says next. RuntimeError if it ended."""
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"a peer ended with exit code {self._child.wait(10)}; its words are above")
        message: dict[str, Any] = json.loads(line)
        return message

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(command) + "\n")
        self._child.stdin.flush()
        return self.read()

    def finish(self) -> dict[str, Any]:
        """End it; what it used."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self.read()

    def reap(self) -> None:
        """Make sure that it is gone."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10)
        self._child.stdout.close()


def measure_ours(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run with real processes."""
    rng = random.Random(seed)
    peers: list[Process] = []
    addresses: list[str] = []
    setup: list[float] = []
    joined: list[float] = []
    try:
        for i in range(options.peers):
            peers.append(Process(1000 * (seed + 1) + i, rng.sample(addresses, min(3, len(addresses)))))
            ready = peers[-1].read()
            setup.append(time.perf_counter() - peers[-1].began)
            joined.append(ready["joined_s"])
            addresses.append(ready["address"])
        storing, reading, single = rng.sample(peers, 3)
        uids = [f"ffn0.{i // SIDE}.{i % SIDE}" for i in range(options.experts)]
        stored = storing.ask(do="store", uids=uids, batch=options.batch)
        eager = not options.careful
        bulk = reading.ask(do="get", uids=uids, batch=options.batch, eager=eager)
        one = single.ask(do="get", uids=rng.sample(uids, options.singles), batch=1, eager=eager)
        used = [peer.finish() for peer in peers]
    finally:
        for peer in peers:
            peer.reap()
    return {
        "engine": "hive",
        "setup_s_per_peer": round(sum(setup) / len(setup), 3),
        "store_ms_per_expert": round(1e3 * sum(stored["times"]) / len(uids), 2),
        "bulk_get_ms_per_expert": round(1e3 * sum(bulk["times"]) / len(uids), 2),
        "fresh_get_ms": round(1e3 * sum(one["times"]) / options.singles, 2),
        "stored": stored["done"],
        "found": bulk["done"],
        "found_single": one["done"],
        "setup_s_per_peer_after_imports": round(sum(joined) / len(joined), 3),
        "cpu_s_per_peer": round(sum(u["cpu_s"] for u in used) / len(used), 2),
        "rss_mb_per_peer": round(sum(u["rss_mb"] for u in used) / len(used), 1),
        "links_per_peer": round(sum(u["links"] for u in used) / len(used), 1),
    }


def measure_hivemind(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One run of the reference cell."""
    python = Path(options.hivemind_venv) / "bin" / "python"
    script = Path(__file__).with_name("_dht_hivemind.py")
    words = [f"--{name}={getattr(options, name)}" for name in ("peers", "experts", "batch", "singles")]
    done = subprocess.run(
        [python, script, *words, f"--seed={seed}"], capture_output=True, text=True, timeout=CELL_S, check=False, cwd="/"
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"hivemind's cell failed: {done.stderr.strip()[-400:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the figures, and whether everything that was stored was found."""
    names = [*FIGURES, *(name for name in (AFTER_IMPORTS, "imports_s") if name in runs[0])]
    return {name: median(run[name] for run in runs) for name in names} | {"runs": runs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=int, default=16)
    parser.add_argument("--experts", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="experts per call (default %(default)s)")
    parser.add_argument("--singles", type=int, default=20, help="single reads (default %(default)s)")
    parser.add_argument("--careful", action="store_true", help="reads wait for two replicas; else for one, as agents do")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--hivemind-venv", default="", metavar="PATH", help="a virtual environment that has hivemind 1.1.12")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.peers < PEERS_MIN or not 1 <= options.singles <= options.experts or options.batch < 1:
        parser.error(f"it takes {PEERS_MIN} peers or more, batches of 1 or more, and no more single reads than experts")
    if options.hivemind_venv and not (Path(options.hivemind_venv) / "bin" / "python").exists():
        parser.error(f"{options.hivemind_venv} is no virtual environment: make one, and pip install hivemind==1.1.12 there")
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, Any]] = []
    for seed in range(options.rounds):
        ours.append(measure_ours(options, seed))
        if options.hivemind_venv:
            theirs.append(measure_hivemind(options, seed))
    result: dict[str, Any] = {"bench": "dht", "peers": options.peers, "experts": options.experts, "hive": summary(ours)}
    if theirs:
        result["hivemind"] = summary(theirs)
        hive, hivemind = result["hive"], result["hivemind"]
        better = {name: hivemind[name] / hive[name] for name in FIGURES[1:]}
        better["setup_after_imports"] = hivemind["setup_s_per_peer"] / hive[AFTER_IMPORTS]
        better["setup_of_a_process"] = (hivemind["setup_s_per_peer"] + hivemind["imports_s"]) / hive["setup_s_per_peer"]
        result["times_better"] = {name: round(ratio, 2) for name, ratio in better.items()}
    result["load_1min"] = round(os.getloadavg()[0], 1)
    expected = (options.experts, options.experts, options.singles)
    result["ok"] = all((run["stored"], run["found"], run["found_single"]) == expected for run in ours)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
