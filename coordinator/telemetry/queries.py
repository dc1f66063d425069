"""Reads: what the site says about an experiment at a time. A fixed number of queries each, whatever the number of peers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q, QuerySet

from coordinator.experiments.models import Experiment
from coordinator.telemetry import experts as expert_rows
from coordinator.telemetry import membership, rollups, shapes, summaries
from coordinator.telemetry.models import Event, HostedExpert, Point, Resolution, Session

PEERS_MAX = 200
EXPERTS_MAX = 4096
EVENTS_MAX = 200
POINTS_MAX = 5000
CONNECTIONS_MAX = 2000
CONNECTED_MAX = 1000
"""Peers whose connections are looked at."""
QUIET_EVENTS = ("averaged", "connected", "disconnected")
"""Too frequent for a log that people read."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page of events begins: earlier than `at` (Unix seconds), or then and with a smaller `id`."""

    at: float | None
    id: int | None = None


def present(experiment: Experiment, now: float) -> QuerySet[Session]:
    """The newest session of each peer that reported lately, those that have been here longest first."""
    order = F("joined_at").asc(nulls_last=True), "pk"
    return Session.objects.filter(summaries.here(now), experiment=experiment).order_by(*order)


def summary(experiment: Experiment, now: float) -> shapes.Summary:
    """The figures at the head of the page."""
    return summaries.summaries([experiment], now)[experiment.pk]


def peers(experiment: Experiment, now: float, *, limit: int = PEERS_MAX, offset: int = 0) -> list[shapes.Peer]:
    """Peers that are here now."""
    rows: dict[str, shapes.Peer] = {}
    for s in present(experiment, now).defer("connections")[offset : offset + limit]:
        rows[s.peer] = shapes.Peer(
            peer=s.peer,
            version=s.version,
            stage=s.stage,
            why=s.why,
            step=s.step,
            tokens=s.tokens,
            tokens_per_s=s.tokens_per_s,
            loss=s.loss,
            experts=len(s.experts),
            direct=s.direct,
            relayed=s.relayed,
            joined_at=s.joined_at,
            seen_at=s.seen_at,
        )
    return list(rows.values())


def experts(experiment: Experiment, now: float, *, limit: int = EXPERTS_MAX, offset: int = 0) -> list[shapes.Expert]:
    """The whole grid, in order, with who hosts each place."""
    uids = itertools.chain.from_iterable(experiment.manifest.model.grids())
    wanted = [str(uid) for uid in itertools.islice(uids, offset, offset + limit)]
    known = {row.uid: row for row in HostedExpert.objects.filter(experiment=experiment)[: EXPERTS_MAX * 4]}
    named = present(experiment, now).exclude(experts=[]).order_by().values_list("peer", "experts")
    copies = Counter(uid for _, uid in {(peer, uid) for peer, uids in named for uid in uids})
    return [_expert(uid, known.get(uid), copies[uid], now) for uid in wanted]


def events(
    experiment: Experiment,
    *,
    limit: int = EVENTS_MAX,
    before: Cursor | None = None,
    quiet: bool = False,
    names: Sequence[str] = (),
) -> list[shapes.Event]:
    """The newest events, newest first; of these `names`, or all but the quiet ones, or all."""
    rows = Event.objects.filter(experiment=experiment).order_by("-at", "-pk")
    if before is not None and before.at is not None:
        earlier = Q(at__lt=before.at)
        rows = rows.filter(earlier | Q(at=before.at, pk__lt=before.id) if before.id is not None else earlier)
    if names:
        rows = rows.filter(name__in=names)
    elif not quiet:
        rows = rows.exclude(name__in=QUIET_EVENTS)
    columns = "pk", "at", "name", "session__peer", "detail"  # without the rest of the session, which is large
    return [
        shapes.Event(id=pk, at=at, name=name, peer=peer, detail=detail)
        for pk, at, name, peer, detail in rows.values_list(*columns)[:limit]
    ]


def connections(experiment: Experiment, now: float, *, among: int = CONNECTED_MAX) -> list[shapes.Connection]:
    """Connections between the `among` peers that have been here longest, each once; `relayed` if either end says so."""
    found: dict[tuple[str, str], shapes.Connection] = {}
    rows = list(present(experiment, now).values_list("peer", "connections")[: min(among, CONNECTED_MAX)])
    here = {peer for peer, _ in rows}
    for peer, reported in rows:
        for c in reported:
            a, b = sorted((peer, c["peer"]))
            if c["peer"] not in here or a == b or len(found) >= CONNECTIONS_MAX:
                continue
            other = found.get((a, b))
            kind = "relayed" if c["kind"] == "relayed" or (other and other.kind == "relayed") else "direct"
            rtt_ms = c["rtt_ms"] if c["rtt_ms"] is not None else (other.rtt_ms if other else None)
            found[a, b] = shapes.Connection(a=a, b=b, kind=kind, rtt_ms=rtt_ms)
    return list(found.values())


def best_resolution(experiment: Experiment, since: float, now: float) -> Resolution:
    """The finest that shows everything after `since` in at most POINTS_MAX / 2 points."""
    points = Point.objects.filter(experiment=experiment)
    first = now
    for r in Resolution:  # a coarse bucket begins before what is in it, and is older only if all of it is
        at = points.filter(resolution=r).order_by("at").values_list("at", flat=True).first()
        if at is not None and at + r <= first:
            first = at
    span = now - max(first, since)
    return next((r for r in Resolution if span / r <= POINTS_MAX / 2), Resolution.HOUR)


def series(
    experiment: Experiment,
    now: float,
    *,
    resolution: Resolution | None = None,
    since: float = 0.0,
    until: float | None = None,
) -> shapes.Series:
    """The newest POINTS_MAX points after `since` and before `until`, by default in the finest resolution that shows all of it."""
    chosen = resolution or best_resolution(experiment, since, now if until is None else min(until, now))
    rows = Point.objects.filter(experiment=experiment, resolution=chosen, at__gte=since)
    if until is not None:
        rows = rows.filter(at__lt=until)
    complete_until = rollups.complete_until()[chosen]
    points = list(rows.order_by("-at").values_list(*_COLUMNS)[:POINTS_MAX])[::-1]
    began = points[0][0] if points else since
    outages = membership.outages(max(since, began), now) if points else []
    return _series(chosen, points, complete_until, outages)


def changed_series(experiment: Experiment, since: float) -> list[shapes.Series]:
    """Per resolution, the points that were written after `since`."""
    rows = Point.objects.filter(experiment=experiment, updated_at__gt=since).order_by("resolution", "at")
    until = rollups.complete_until()  # before the points: what they lack is said to be lacking
    by_resolution = itertools.groupby(rows.values_list("resolution", *_COLUMNS)[:POINTS_MAX], lambda row: row[0])
    return [_series(Resolution(r), [row[1:] for row in points], until[Resolution(r)], []) for r, points in by_resolution]


_COLUMNS = "at", "loss_sum", "loss_batches", "validation_sum", "validation_count", "tokens", "peers"


def _series(
    resolution: Resolution, points: Sequence[tuple[Any, ...]], complete_until: float, outages: list[tuple[float, float]]
) -> shapes.Series:
    """Of rows of _COLUMNS."""
    return shapes.Series(
        resolution=resolution,
        at=[row[0] for row in points],
        loss=[row[1] / row[2] if row[2] else None for row in points],
        loss_validation=[row[3] / row[4] if row[4] else None for row in points],
        tokens=[row[5] for row in points],
        peers=[row[6] for row in points],
        complete_until=min(complete_until, points[-1][0] + resolution) if points else 0.0,
        outages=[list(pair) for pair in outages],
    )


def _expert(uid: str, row: HostedExpert | None, copies: int, now: float) -> shapes.Expert:
    if row is None:
        return shapes.Expert(uid=uid, peer=None, copies=0, epoch=None, version=None, rows=None, rows_per_s=None, seen_at=None)
    lives = row.hosted and row.seen_at > now - expert_rows.STALE_S
    return shapes.Expert(
        uid=uid,
        peer=row.peer if lives else None,
        copies=max(copies, 1) if lives else copies,
        epoch=row.epoch,
        version=row.version,
        rows=row.rows,
        rows_per_s=row.rows_per_s if lives else None,
        seen_at=row.seen_at,
    )
