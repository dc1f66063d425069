"""Measures a demo from what its agents recorded. Pure: items in, facts and verdict out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.reports import Event, Report

STALLED_AFTER_S = 20.0
"""A survivor whose tokens have not grown for this long has stopped training."""
WINDOW_S = 5.0
"""Calls are looked at over this time before each report."""
FAILED_SHARE_MAX = 0.1
"""With more failed calls than this in the window, an agent counts as disturbed."""
MOMENTS_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Moment:
    """Cumulative counters of one report, and whether the WINDOW_S before it went well."""

    at: float
    calls: int
    calls_failed: int
    well: bool


@dataclass(kw_only=True)
class AgentStory:
    """One agent's reports, boiled down as they arrive."""

    number: int
    peer: str = ""
    first_loss: tuple[float, float] | None = None
    """(Unix time, loss) of its first batch."""
    latest: Report | None = None
    loss_last: float | None = None
    validations: list[tuple[float, float]] = field(default_factory=list)
    """(Unix time, loss) whenever the validation loss changed."""
    grew_at: float | None = None
    """Unix time of the latest report in which tokens had grown."""
    first_trained_at: float | None = None
    not_finite: int = 0
    connections: dict[str, str] = field(default_factory=dict)
    """Every peer that it was ever connected to → the kind of the latest connection."""
    errors: list[str] = field(default_factory=list)
    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=MOMENTS_MAX))

    def take(self, item: Report | Event) -> None:
        """Add one item; they come in order."""
        if isinstance(item, Event):
            loss = item.detail.get("loss")
            if item.name == "first-batch" and isinstance(loss, float | int):
                self.first_loss = (item.at, float(loss))
            if item.name == "error":
                self.errors.append(" ".join(map(str, item.detail.values()))[:200])
                del self.errors[:-20]
            return
        if item.tokens > (self.latest.tokens if self.latest else 0):
            self.grew_at = item.at
            self.first_trained_at = self.first_trained_at or item.at
        for loss in (item.loss, item.loss_validation):
            self.not_finite += loss is not None and not math.isfinite(loss)
        if item.loss is not None:
            self.loss_last = item.loss
        if item.loss_validation is not None and (not self.validations or self.validations[-1][1] != item.loss_validation):
            self.validations.append((item.at, item.loss_validation))
            del self.validations[:-100]
        self.connections.update({c.peer: c.kind for c in item.connections})
        self.moments.append(self._moment(item))
        self.latest = item

    def _moment(self, item: Report) -> Moment:
        before = next((m for m in reversed(self.moments) if m.at <= item.at - WINDOW_S), None)
        calls, failed = (before.calls, before.calls_failed) if before else (0, 0)
        well = item.calls_failed - failed <= FAILED_SHARE_MAX * (item.calls - calls)
        return Moment(item.at, item.calls, item.calls_failed, well)

    def recovered_s(self, since: float, until: float) -> float | None:
        """Seconds from `since` to the last report before `until` whose calls were disturbed (0 if none were).

        None if they still were at the end, or no batch was trained in between.
        """
        moments = [m for m in self.moments if since < m.at <= until]
        if not moments or not moments[-1].well or self.grew_at is None or self.grew_at <= since:
            return None
        return max((m.at - since for m in moments if not m.well), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Killed:
    """A kill that was carried out, at a Unix time. `agent` is its number, None for the coordinator."""

    target: str
    at: float
    agent: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What surrounds the agents' own records."""

    experiment: str
    seconds: float
    """From the start of the agents to the end."""
    ended_at: float
    """Unix time of the end."""
    started_at: float
    """Unix time at which the demo command was given."""
    kills: tuple[Killed, ...] = ()
    """In the order of time."""
    died: tuple[int, ...] = ()
    """Agents that ended by themselves before the end."""

    @property
    def gone(self) -> set[int]:
        """Agents that were not there at the end."""
        return {k.agent for k in self.kills if k.agent is not None} | set(self.died)


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def summarize(stories: Sequence[AgentStory], facts: Facts) -> dict[str, object]:
    """The facts of issue 2's contract. Every number is measured; what was never seen is null or zero."""
    latest = [s.latest for s in stories if s.latest]
    survivors = [s for s in stories if s.number not in facts.gone]
    seen = [s.latest for s in survivors if s.latest] or latest
    validations = [s.validations[-1] for s in stories if s.validations]
    first_trained = [s.first_trained_at for s in stories if s.first_trained_at is not None]
    tokens = sum(r.tokens for r in latest)
    trained_s = facts.ended_at - min(first_trained) if first_trained else 0.0
    return {
        "experiment": facts.experiment,
        "agents": len(stories),
        "seconds": round(facts.seconds, 1),
        "tokens": tokens,
        "tokens_per_s": round(tokens / trained_s, 1) if trained_s > 0 else 0.0,
        "loss_first": loss_first(stories),
        "loss_last": mean([s.loss_last for s in survivors if s.loss_last is not None]),
        "loss_validation": max(validations)[1] if validations else None,
        "experts_total": max((r.experts_total for r in latest), default=0),
        "experts_alive": min((r.experts_alive for r in seen), default=0),
        "connections": connections(stories),
        "bytes_p2p": sum(r.bytes_p2p_sent for r in latest),
        "bytes_coordinator": sum(r.bytes_coordinator for r in latest),
        "calls": sum(r.calls for r in latest),
        "calls_failed": sum(r.calls_failed for r in latest),
        "backtracks": sum(r.backtracks for r in latest),
        "setup_seconds": round(min(first_trained) - facts.started_at, 1) if first_trained else None,
        "kills": kills(survivors, facts),
        "tokens_by_agent": {f"agent-{s.number}": s.latest.tokens if s.latest else 0 for s in stories},
        "experts_by_agent": {f"agent-{s.number}": len(s.latest.experts) if s.latest else 0 for s in survivors},
        "problems": problems(stories, facts),
    }


def loss_first(stories: Sequence[AgentStory]) -> float | None:
    """The loss of the run's first batch. (Who joins later joins a model that has learnt.)"""
    return min((s.first_loss for s in stories if s.first_loss), default=(0.0, None))[1]


def connections(stories: Sequence[AgentStory]) -> list[dict[str, str]]:
    """Every pair that was connected, once, by the agents' names where they are known; `relayed` if either side saw it so."""
    names: Mapping[str, str] = {s.peer: f"agent-{s.number}" for s in stories if s.peer}
    pairs: dict[tuple[str, str], str] = {}
    for story in stories:
        for peer, kind in story.connections.items():
            a, b = sorted((f"agent-{story.number}", names.get(peer, peer)))
            pairs[a, b] = "relayed" if "relayed" in (kind, pairs.get((a, b))) else "direct"
    return [{"a": a, "b": b, "kind": kind} for (a, b), kind in sorted(pairs.items())]


def kills(survivors: Sequence[AgentStory], facts: Facts) -> list[dict[str, object]]:
    """What was killed when, and how long the slowest survivor was disturbed by it (null: it was still at the end)."""
    ends = [k.at for k in facts.kills[1:]] + [facts.ended_at]
    found: list[dict[str, object]] = []
    for kill, until in zip(facts.kills, ends, strict=False):
        times = [s.recovered_s(kill.at, until) for s in survivors]
        worst = None if None in times or not times else round(max(t for t in times if t is not None), 1)
        found.append({"target": kill.target, "at": round(kill.at - (facts.ended_at - facts.seconds), 1), "recovered_s": worst})
    return found


def problems(stories: Sequence[AgentStory], facts: Facts) -> list[str]:
    """Why training did not really go on; empty if it did."""
    found = [f"agent-{number} ended by itself" for number in facts.died]
    began = loss_first(stories)
    for story in stories:
        name = f"agent-{story.number}"
        if story.not_finite:
            found.append(f"{name} reported {story.not_finite} losses that are not finite")
        if story.number in facts.gone:
            continue
        if story.latest is None:
            found.append(f"{name} never reported")
        elif story.grew_at is None:
            found.append(f"{name} trained no token" + (f": {story.latest.why}" if story.latest.why else ""))
        elif facts.ended_at - story.grew_at > STALLED_AFTER_S:
            found.append(f"{name} trained nothing in the last {facts.ended_at - story.grew_at:.0f} s")
        if began is not None and story.loss_last is not None and story.loss_last >= began:
            found.append(f"{name}'s loss did not fall: the run began with {began:.3f}, and it is at {story.loss_last:.3f}")
    return found
