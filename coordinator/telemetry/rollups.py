"""Roll-ups: raw reports → 1 s → 1 min → 1 h. Charts read these and never raw rows.

Each round recomputes every bucket that got something since the last one, from all of its parts, so repeating a round, or
taking late arrivals (an agent that buffered while the coordinator was away), gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models import Count, F, FloatField, Max, Q, Sum
from django.db.models.functions import Cast, Coalesce, Floor

from coordinator.telemetry.models import Event, Point, RawReport, Resolution, RollUpCursor
from coordinator.telemetry.store import EVENT_KEPT_S, RAW_KEPT_S

OVERLAP_S = 5.0
"""Looked at again in every round: a transaction may commit a little after the time that it carries."""
LATE_S = 1.5
"""Reports come every second or so, and some time after the second that they are of."""
BUCKETS_MAX = 500
"""Buckets that are recomputed by one statement."""
ROWS_DELETED_MAX = 20_000
"""Rows that one retention round deletes of a kind."""
DAY_S = 86_400
THINNED_S = 7 * DAY_S
"""Sample text is thinned in the days after it would have gone; a coordinator that was away for longer keeps some more."""
KEPT_S = {Resolution.SECOND: 7 * 86_400, Resolution.MINUTE: 366 * 86_400}
_SUMS = ("tokens", "calls", "calls_failed", "rows_served", "loss_batches")
_FIELDS = [*_SUMS, "loss_sum", "validation_sum", "validation_count", "peers", "updated_at"]


def roll_up_seconds(now: float) -> int:
    """Raw reports that arrived since the last round → 1-second points. Returns how many points were written."""
    cursor = _cursor("seconds")
    arrived = RawReport.objects.filter(received_at__gte=cursor.position - OVERLAP_S)
    written = 0
    for experiment, seconds in _by_experiment(arrived.values_list("experiment_id", "second").distinct()):
        rows = RawReport.objects.filter(experiment_id=experiment, second__in=seconds).values("second")
        sums = rows.annotate(
            **{f"sum_{name}": Sum(name) for name in _SUMS},
            sum_loss=Coalesce(Sum(F("loss") * Cast("loss_batches", FloatField())), 0.0),
            sum_validation=Coalesce(Sum("loss_validation"), 0.0),
            count_validation=Count("loss_validation"),
            count_peers=Count("session", distinct=True),
        )
        points = [_point(experiment, Resolution.SECOND, row["second"], row, now) for row in sums]
        written += _write(points)
    _advance(cursor, now)
    return written


def roll_up(source: Resolution, target: Resolution, now: float) -> int:
    """Points of `source` that changed since the last round → points of the coarser `target`."""
    cursor = _cursor(_step(source, target))
    changed = Point.objects.filter(resolution=source, updated_at__gte=cursor.position - OVERLAP_S)
    buckets = {(e, at // target * target) for e, at in changed.values_list("experiment_id", "at")}
    written = 0
    for experiment, starts in _by_experiment(sorted(buckets)):
        within = Q()
        for start in starts:
            within |= Q(at__gte=start, at__lt=start + target)
        rows = Point.objects.filter(within, experiment_id=experiment, resolution=source)
        sums = rows.annotate(bucket=F("at") - F("at") % int(target)).values("bucket").annotate(
            **{f"sum_{name}": Sum(name) for name in _SUMS},
            sum_loss=Sum("loss_sum"),
            sum_validation=Sum("validation_sum"),
            count_validation=Sum("validation_count"),
            count_peers=Max("peers"),
        )  # fmt: skip
        points = [_point(experiment, target, row["bucket"], row, now) for row in sums]
        written += _write(points)
    _advance(cursor, now)
    return written


def complete_until() -> dict[Resolution, float]:
    """Per resolution, the time up to which points are complete but for what arrives late: a point that ends after it goes on
    growing. It is as far as the roll-ups have come, less LATE_S."""
    reached = dict(RollUpCursor.objects.values_list("name", "position"))
    second = reached.get("seconds", 0.0)
    minute = min(second, reached.get(_step(Resolution.SECOND, Resolution.MINUTE), 0.0))
    hour = min(minute, reached.get(_step(Resolution.MINUTE, Resolution.HOUR), 0.0))
    until = {Resolution.SECOND: second, Resolution.MINUTE: minute, Resolution.HOUR: hour}
    return {resolution: max(0.0, at - LATE_S) for resolution, at in until.items()}


def retain(now: float) -> int:
    """Delete what is older than it is kept for, a bounded part per round. Returns how many rows went."""
    gone = _delete(RawReport.objects.filter(received_at__lt=now - RAW_KEPT_S - 3600, second__lt=now - RAW_KEPT_S))
    gone += _delete(Event.objects.filter(at__lt=now - EVENT_KEPT_S).exclude(name="sample"))
    gone += _thin_samples(now)
    for resolution, kept_s in KEPT_S.items():
        gone += _delete(Point.objects.filter(resolution=resolution, at__lt=now - kept_s))
    return gone


def _thin_samples(now: float) -> int:
    """Of sample text that is older than other events are kept for, leave the last of each day: it shows what was learned."""
    old = Event.objects.filter(name="sample", at__lt=now - EVENT_KEPT_S, at__gte=now - EVENT_KEPT_S - THINNED_S)
    days = old.annotate(day=Floor(F("at") / DAY_S)).values("experiment_id", "day")
    last = [row["last"] for row in days.annotate(last=Max("pk")).order_by()]
    return _delete(old.exclude(pk__in=last))


def _point(experiment: int, resolution: int, at: int, row: dict[str, Any], now: float) -> Point:
    return Point(
        experiment_id=experiment,
        resolution=resolution,
        at=at,
        **{name: row[f"sum_{name}"] for name in _SUMS},
        loss_sum=row["sum_loss"],
        validation_sum=row["sum_validation"],
        validation_count=row["count_validation"],
        peers=row["count_peers"],
        updated_at=now,
    )


def _write(points: Sequence[Point]) -> int:
    Point.objects.bulk_create(
        sorted(points, key=lambda p: (p.experiment_id, p.at)),  # in one order: two workers may be at the same buckets
        update_conflicts=True,
        unique_fields=["experiment", "resolution", "at"],
        update_fields=_FIELDS,
        batch_size=1000,
    )
    return len(points)


def _by_experiment(pairs: Any) -> Iterator[tuple[int, list[int]]]:
    """(experiment, bucket) pairs → one experiment and at most BUCKETS_MAX of its buckets at a time."""
    buckets: dict[int, list[int]] = {}
    for experiment, at in pairs:
        buckets.setdefault(experiment, []).append(at)
    for experiment, ats in buckets.items():
        for i in range(0, len(ats), BUCKETS_MAX):
            yield experiment, ats[i : i + BUCKETS_MAX]


def _step(source: Resolution, target: Resolution) -> str:
    return f"{source}-{target}"


def _cursor(name: str) -> RollUpCursor:
    return RollUpCursor.objects.get_or_create(name=name)[0]


def _advance(cursor: RollUpCursor, now: float) -> None:
    RollUpCursor.objects.filter(pk=cursor.pk, position__lt=now).update(position=now)


def _delete(rows: Any) -> int:
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:ROWS_DELETED_MAX])
    return int(rows.model.objects.filter(pk__in=ids).delete()[0])
