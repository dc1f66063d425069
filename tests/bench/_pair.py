"""Pairs of ends in processes of their own, on loopback or at the two ends of an emulated link, and what they measured."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.netlab.link import EmulatedLink

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
HIVEMIND = "hivemind"
Row = tuple[float, int, float]


class BenchFailed(Exception):
    """An end did not do its part; the text says which and what it said."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the two ends of one connection saw."""

    sent: list[Row]
    got: list[Row]
    round_trips: list[tuple[float, float]] = field(default_factory=list)
    pings_lost: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def figures(self, start: float, end: float) -> dict[str, float]:
        """Rate at the receiver, CPU of both ends and control round trips between two times."""
        got, sent = window(self.got, start, end), window(self.sent, start, end)
        figures = {"mb_per_s": rate(got) / 1e6}
        for name, rows in (("sender", sent), ("receiver", got)):
            if len(rows) > 1 and rows[-1][1] > rows[0][1]:
                figures[f"{name}_cpu_ms_per_mb"] = 1e9 * (rows[-1][2] - rows[0][2]) / (rows[-1][1] - rows[0][1])
        trips = sorted(trip for at, trip in self.round_trips if start <= at <= end)
        if trips:
            figures["control_p50_ms"] = 1e3 * trips[len(trips) // 2]
            figures["control_p99_ms"] = 1e3 * trips[min(len(trips) - 1, int(0.99 * len(trips)))]
        if self.facts.get("packets") and "retransmitted" in self.facts:
            figures["retransmitted_percent"] = 100 * self.facts["retransmitted"] / self.facts["packets"]
        if "packet_bytes" in self.facts:
            figures["packet_bytes"] = self.facts["packet_bytes"]
        return figures


def window(rows: list[Row], start: float, end: float) -> list[Row]:
    return [row for row in rows if start <= row[0] <= end]


def rate(rows: list[Row]) -> float:
    """Bytes per second from the first row to the last."""
    return (rows[-1][1] - rows[0][1]) / (rows[-1][0] - rows[0][0]) if len(rows) > 1 else 0.0


class Pair:
    """One connection: `start`, then `finish` when its time is over. Always `close`."""

    def __init__(self, kind: str, seconds: float, link: EmulatedLink | None, hivemind_python: Path | None = None) -> None:
        self.kind = kind
        self.seconds = seconds
        self._link = link
        self._python = hivemind_python
        self._ends: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Start both processes and connect them; bulk follows a second later. Raises BenchFailed."""
        for side, role in ((1, "receiver"), (0, "sender")):
            command = self._command(role)
            if self._link is not None:
                command = self._link.command(side, command)
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self._ends[role] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
        self._carry("receiver", "sender")
        self._carry("sender", "receiver")

    def finish(self) -> Result:
        """Wait until both have measured. Raises BenchFailed."""
        sent = json.loads(self._line("sender", self.seconds + STOP_TIMEOUT_S))
        self._tell("receiver", "\n" if self.kind == HIVEMIND else "")
        got = json.loads(self._line("receiver", STOP_TIMEOUT_S))
        return Result(
            sent=sent["samples"],
            got=got["samples"],
            round_trips=sent.get("round_trips", []),
            pings_lost=sent.get("pings_lost", 0),
            facts=sent,
        )

    def close(self) -> None:
        """Let both end in good order, or end them; idempotent."""
        for process in self._ends.values():
            try:
                process.communicate("\n", timeout=10)
            except (subprocess.TimeoutExpired, ValueError, OSError):
                process.kill()
                process.wait()
        self._ends.clear()

    def _command(self, role: str) -> list[str]:
        own = [sys.executable, "-m", "tests.bench._end"]
        if self.kind == HIVEMIND:
            assert self._python is not None
            own = [str(self._python), str(Path(__file__).with_name("_hivemind_end.py"))]
        address = self._link.addresses[1] if self._link is not None else "127.0.0.1"
        return [*own, "--kind", self.kind, "--role", role, "--seconds", str(self.seconds), "--address", address]

    def _carry(self, source: str, target: str) -> None:
        self._tell(target, self._line(source, START_TIMEOUT_S))

    def _tell(self, role: str, text: str) -> None:
        stdin = self._ends[role].stdin
        assert stdin is not None
        stdin.write(text)
        stdin.flush()

    def _line(self, role: str, timeout_s: float) -> str:
        stdout = self._ends[role].stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], timeout_s)
        line = stdout.readline() if ready else ""
        if not line.endswith("\n"):
            raise BenchFailed(f"{self.kind}: the {role} {'said nothing' if not ready else 'ended'} within {timeout_s:g} s")
        return line


def measure(
    kind: str, link: EmulatedLink | None, *, warm_s: float, seconds: float, python: Path | None = None
) -> dict[str, float]:
    """One run of one connection: its figures over `seconds`, after `warm_s` in which it finds its rate."""
    pair = Pair(kind, warm_s + seconds, link, python)
    try:
        pair.start()
        result = pair.finish()
    finally:
        pair.close()
    if not result.sent or not result.got:
        raise BenchFailed(f"{kind}: nothing arrived")
    begun = result.sent[0][0]
    figures = result.figures(begun + warm_s, begun + warm_s + seconds)
    if link is not None and link.spec.rate_mbit:
        queues = [second.queue_ms_mean for second in link.seconds[-max(2, int(seconds)) :]]
        figures["queue_ms_mean"] = statistics.mean(queues) if queues else 0.0
    return figures


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the runs that have it."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    return {name: round(statistics.median(run[name] for run in runs if name in run), 3) for name in names}
