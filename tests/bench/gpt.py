"""The GPT cell: one trainer and two hosts, feed-forward layers remote, beside the same cell on hivemind.

    python -m tests.bench.gpt --seconds 40 --hivemind-python VENV/bin/python --json

The same model, batch and number of processes as ../shared/bench/peer_hivemind_gpt.py. Ours are three real agents, started from
a signed manifest that a small web server in this process serves, with no coordinator. The rate is what the trainer counted
between two of its own records after a warm-up. With hivemind's virtual environment given, both run in turn, `--rounds` times, and
the ratio is of the medians. Alike on both sides: sequence routing, float32 on the wire, one batch in flight, Adam 1e-3.
`--as-shipped` measures ours with two batches in flight and bfloat16 on the wire besides, `--stock` over aiortc's own SCTP.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from agent.identity import Identity
from agent.manifest import Averaging, GPTModel, Manifest, Rules, SignedManifest, Training, sign
from deploy.demo import processes

NAME = "bench-gpt"
STARTUP_S = 90.0
MODEL = GPTModel(d_model=256, layers=2, heads=4, sequence=64, expert_hidden=1024, grid=(4, 4), k_best=2, routing="sequence")


def manifest(*, as_shipped: bool) -> Manifest:
    """The reference cell's sizes (../shared/bench/peer_hivemind_gpt.py)."""
    training = Training(
        batch_size=16,
        batches_in_flight=2 if as_shipped else 1,
        learning_rate=1e-3,
        expert_learning_rate=1e-3,
        wire_dtype="bfloat16" if as_shipped else "float32",
        validation_period_s=86_400,
    )
    return Manifest(
        name=NAME,
        revision=1,
        title="GPT reference cell",
        model=MODEL,
        training=training,
        averaging=Averaging(period_s=3600),
        rules=Rules(lease_s=30, call_timeout_s=30),
    )


class Introduction(http.server.BaseHTTPRequestHandler):
    """Serves one manifest, and no list of peers."""

    signed: SignedManifest

    def do_GET(self) -> None:
        if self.path.endswith("/manifest"):
            self._answer(200, msgspec.json.encode(self.signed))
        elif self.path.endswith("/bootstrap"):
            self._answer(200, b'{"addresses": []}')
        else:
            self._answer(404, b'{"detail": "only the manifest is here"}')

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the benchmark prints one line."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class Agents:
    """Two hosts and a trainer in `directory`."""

    directory: Path
    url: str
    channel: str

    def start(self) -> list[processes.Child]:
        first = self._start("host-1", "--role", "host", "--listen", "127.0.0.1:0")
        address = self._wait(first, r"join by --bootstrap (\S+)")
        second = self._start("host-2", "--role", "host", "--bootstrap", address)
        trainer = self._start("trainer", "--role", "trainer", "--bootstrap", address)
        return [first, second, trainer]

    def reports(self) -> list[dict[str, Any]]:
        """The trainer's reports so far."""
        path = self.directory / "trainer" / NAME / "records.jsonl"
        if not path.exists():
            return []
        items = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [item for item in items if item["kind"] == "report"]

    def _start(self, name: str, *more: str) -> processes.Child:
        command = [
            sys.executable,
            "-m",
            "agent.cli.main",
            "join",
            NAME,
            "--coordinator",
            self.url,
            "--threads",
            "1",
            "--max-experts",
            "32",
        ]
        command += ["--state-dir", str(self.directory / name), "--no-panel", "--channel", self.channel, *more]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        return processes.start(name, command, self.directory / f"{name}.log", environment, Path.cwd())

    def _wait(self, child: processes.Child, pattern: str) -> str:
        deadline = time.monotonic() + STARTUP_S
        while time.monotonic() < deadline and child.running:
            if match := re.search(pattern, child.log.read_text() if child.log.exists() else ""):
                return match[1]
            time.sleep(0.1)
        raise RuntimeError(f"{child.name} did not start: {child.last_words()}")


def measure_ours(seconds: float, warmup_s: float, *, channel: str, as_shipped: bool) -> dict[str, float]:
    """Tokens per second of the trainer, and the losses at both ends of the measured time."""
    handler = type("Handler", (Introduction,), {"signed": sign(manifest(as_shipped=as_shipped), Identity.generate())})
    with tempfile.TemporaryDirectory() as directory, http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        agents = Agents(Path(directory), f"http://127.0.0.1:{server.server_address[1]}", channel)
        children: list[processes.Child] = []
        try:
            children = agents.start()
            begun = _when(agents, lambda r: r["step"] > 5 and r["experts_alive"] == r["experts_total"], STARTUP_S, children)
            start = _when(agents, lambda r: r["at"] > begun["at"] + warmup_s, warmup_s + STARTUP_S, children)
            end = _when(agents, lambda r: r["at"] >= start["at"] + seconds, seconds + STARTUP_S, children)
        finally:
            processes.end(children)
            server.shutdown()
    elapsed = end["at"] - start["at"]
    sent = end["bytes_p2p_sent"] + end["bytes_p2p_received"] - start["bytes_p2p_sent"] - start["bytes_p2p_received"]
    return {
        "tokens_per_s": round((end["tokens"] - start["tokens"]) / elapsed, 1),
        "loss": end["loss"],
        "calls_failed": end["calls_failed"],
        "mb_per_s": round(sent / elapsed / 1e6, 2),
    }


def _when(agents: Agents, ready: Any, timeout_s: float, children: list[processes.Child]) -> dict[str, Any]:
    """The first report of the trainer for which `ready` holds."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for report in agents.reports():
            if ready(report):
                return report
        for child in children:
            if not child.running:
                raise RuntimeError(f"{child.name} ended: {child.last_words()}")
        time.sleep(0.5)
    raise RuntimeError(f"the trainer did not get there within {timeout_s:.0f} s: {children[-1].last_words()}")


def measure_hivemind(python: str, script: str, steps: int) -> float:
    """Tokens per second of hivemind's cell."""
    done = subprocess.run([python, script, "--steps", str(steps)], capture_output=True, text=True, timeout=600, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"hivemind's cell failed: {done.stderr.strip()[-400:]}")
    return float(json.loads(lines[-1])["tokens_per_s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--warmup", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--as-shipped", action="store_true")
    parser.add_argument("--stock", action="store_true", help="measure ours over aiortc's own SCTP besides")
    parser.add_argument("--hivemind-python", default="")
    parser.add_argument("--hivemind-script", default="../shared/bench/peer_hivemind_gpt.py")
    parser.add_argument("--hivemind-steps", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        ours = measure_ours(options.seconds, options.warmup, channel="fast", as_shipped=False)
        rows.setdefault("ours", []).append(ours["tokens_per_s"])
        if options.stock:
            stock = measure_ours(options.seconds, options.warmup, channel="stock", as_shipped=False)
            rows.setdefault("ours_stock_sctp", []).append(stock["tokens_per_s"])
        if options.as_shipped:
            shipped = measure_ours(options.seconds, options.warmup, channel="fast", as_shipped=True)
            rows.setdefault("ours_as_shipped", []).append(shipped["tokens_per_s"])
        if options.hivemind_python:
            theirs = measure_hivemind(options.hivemind_python, options.hivemind_script, options.hivemind_steps)
            rows.setdefault("hivemind", []).append(theirs)
    result: dict[str, Any] = {"tokens_per_s": {name: {"median": median(v), "runs": v} for name, v in rows.items()}}
    if "hivemind" in rows:
        base = median(rows["hivemind"])
        result["ratio_to_hivemind"] = {name: round(median(v) / base, 2) for name, v in rows.items() if name != "hivemind"}
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
