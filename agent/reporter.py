"""Turns the state of an agent's parts into one Report a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from agent.experts.directory import Directory
from agent.experts.server import ExpertServer
from agent.grid import ExpertId, Grid
from agent.net.network import Network
from agent.reports import Connection, HostedExpert, Report
from agent.telemetry import Telemetry
from agent.trainer import Progress
from agent.training import Training

Stage = Literal["starting", "joining", "waiting", "training", "hosting", "paused", "draining", "stopped"]

RATE_WINDOW_S = 10.0
CONNECTIONS_MAX, EXPERTS_MAX, WHY_CHARS_MAX = 64, 128, 200
"""How much a report lists; the schema's limits."""
NOTHING_YET = Progress(0, 0, 0, 0, (), None)


@dataclass(kw_only=True)
class Parts:
    """What is reported on. A part that is not there yet, or not in this agent's roles, is None."""

    grids: list[Grid]
    network: Network | None = None
    directory: Directory | None = None
    server: ExpertServer | None = None
    training: Training | None = None
    coordinator_bytes: Callable[[], int] = lambda: 0
    """Bytes exchanged with the coordinator so far, both directions."""
    leases: Callable[[], Mapping[ExpertId, int]] = dict
    """The experts that this agent holds a lease on, with its epoch."""


class Reporter:
    """Builds reports and hands them to the telemetry."""

    def __init__(self, telemetry: Telemetry, parts: Parts) -> None:
        self.parts = parts
        self._telemetry = telemetry
        self._recent: deque[tuple[float, int]] = deque()
        self._first_loss: float | None = None

    def report(self, stage: Stage, why: str = "") -> Report:
        """Record the agent's state now; after the first batch, its loss too, which a report's mean would blur."""
        before = self._first_loss
        report = self._telemetry.report(lambda sequence, at: self._build(sequence, at, stage, why))
        if before is None and self._first_loss is not None:
            self._telemetry.event("first-batch", loss=self._first_loss)
        return report

    def _build(self, sequence: int, at: float, stage: Stage, why: str) -> Report:
        parts = self.parts
        progress = parts.training.progress() if parts.training is not None else NOTHING_YET
        counters = parts.training.counters() if parts.training is not None else None
        stats = parts.network.stats if parts.network is not None else None
        alive = parts.directory.alive() if parts.directory is not None else frozenset()
        hosted = self._hosted()
        if self._first_loss is None and progress.losses:
            self._first_loss = progress.losses[0]
        return Report(
            sequence=sequence,
            at=at,
            stage=stage,
            why=why[:WHY_CHARS_MAX],
            step=progress.next_step,
            tokens=progress.tokens,
            loss=sum(progress.losses) / len(progress.losses) if progress.losses else None,
            loss_batches=len(progress.losses),
            loss_validation=progress.loss_validation,
            tokens_per_s=self._rate(progress.tokens),
            calls=counters.calls if counters else 0,
            calls_failed=counters.calls_failed if counters else 0,
            backtracks=counters.backtracks if counters else 0,
            rows_served=parts.server.stats.rows if parts.server is not None else 0,
            bytes_p2p_sent=stats.bytes_sent if stats else 0,
            bytes_p2p_received=stats.bytes_received if stats else 0,
            bytes_coordinator=parts.coordinator_bytes(),
            experts_total=sum(map(len, parts.grids)),
            experts_alive=len(alive),
            connections=self._connections() if stage != "stopped" else (),  # the last report comes just before they close
            experts=hosted[:EXPERTS_MAX] if stage != "stopped" else (),
        )

    def _rate(self, tokens: int) -> float:
        now = time.monotonic()
        self._recent.append((now, tokens))
        while now - self._recent[0][0] > RATE_WINDOW_S:
            self._recent.popleft()
        (began, before), elapsed = self._recent[0], now - self._recent[0][0]
        return (tokens - before) / elapsed if elapsed > 0 and began < now else 0.0

    def _connections(self) -> tuple[Connection, ...]:
        if self.parts.network is None:
            return ()
        return tuple(
            Connection(peer=str(peer), kind=link.kind, rtt_ms=None if link.rtt_s is None else round(link.rtt_s * 1e3, 2))
            for peer, link in list(self.parts.network.peers().items())[:CONNECTIONS_MAX]
        )

    def _hosted(self) -> tuple[HostedExpert, ...]:
        """Experts that are held under a lease and served."""
        if self.parts.server is None:
            return ()
        leases = self.parts.leases()
        return tuple(
            HostedExpert(uid=str(uid), epoch=leases[uid], version=info.version, rows=info.rows_forward + info.rows_backward)
            for uid, info in self.parts.server.hosted().items()
            if uid in leases
        )
