"""When a session joined and when it ended, and the events that say so.

An agent says so itself (`joined`, `left`); the coordinator says it where the agent could not: a crash ends in silence.
Each coming and going is noted once, whoever said it first.
"""

from __future__ import annotations

import itertools

from django.db import transaction
from django.db.models import Exists, OuterRef

from agent.reports import Event as EventItem
from agent.reports import Report
from coordinator.hello import SKEW_S
from coordinator.telemetry.models import CoordinatorRun, Event, HostedExpert, Session

SILENT_S = 15.0
"""A peer whose last report is older than this counts as gone."""
LATE_S = SKEW_S + SILENT_S
"""A report as old as this does not say that its agent is here, whatever its clock."""
RUN_GAP_S = 10.0
"""A pause of the heartbeat longer than this counts as the coordinator having been down."""
GONE_MAX = 1000
"""Sessions that are ended in one round."""
_IN = {"waiting", "training", "hosting", "paused"}
_OUT = {"draining", "stopped"}


def on_report(session: Session, report: Report, received_at: float) -> list[Event]:
    """Note what `report` says about coming and going. Only the newest report counts."""
    if report.sequence <= session.last_sequence:
        return []
    at = min(report.at, received_at)
    if report.stage == "stopped":
        if session.ended_at is not None:
            return []
        session.ended_at = at
        return [_event(session, at, received_at, "left", reason="stopped")] if session.joined_at is not None else []
    late = received_at - report.at > LATE_S  # kept by the agent, and delivered after the end: it is not back
    returned = session.ended_at is not None and report.stage not in _OUT and not late
    if returned:
        session.ended_at = None
    if session.joined_at is not None:
        return [_event(session, received_at, received_at, "joined", returned=True)] if returned else []
    if report.stage in _IN:
        session.joined_at = at
        return [_event(session, at, received_at, "joined")]
    return []


def on_event(session: Session, item: EventItem, received_at: float) -> bool:
    """Note what an agent's event says about coming and going. False if it is no news, and not to be kept."""
    if item.name not in ("joined", "left"):
        return True
    if item.sequence <= session.last_sequence:
        return False
    at = min(item.at, received_at)
    if item.name == "left":
        if session.ended_at is not None:
            return False
        session.ended_at = at
        return True
    if session.joined_at is not None and session.ended_at is None:
        return False
    session.joined_at = session.joined_at or at
    session.ended_at = None
    return True


def mark_gone(now: float) -> set[str]:
    """End the sessions that fell silent. Returns the names of their experiments.

    A coordinator that was itself away first waits as long as an agent may be silent.
    """
    run = CoordinatorRun.objects.order_by("-started_at").first()
    if run is not None and now - run.started_at < SILENT_S:
        return set()
    with transaction.atomic():
        silent = Session.objects.filter(ended_at=None, seen_at__lt=now - SILENT_S).select_related("experiment")
        gone = list(silent.select_for_update(of=("self",)).order_by("pk")[:GONE_MAX])
        Session.objects.filter(pk__in=[s.pk for s in gone]).update(ended_at=now)
        Event.objects.bulk_create([_event(s, s.seen_at, now, "left", reason="silent") for s in gone if s.joined_at is not None])
        elsewhere = Session.objects.filter(experiment=OuterRef("experiment"), peer=OuterRef("peer"), ended_at=None)
        hosted = HostedExpert.objects.filter(hosted=True, peer__in={s.peer for s in gone})
        hosted.exclude(Exists(elsewhere)).update(hosted=False)
    return {s.experiment.name for s in gone}


def start_run(now: float) -> None:
    """The coordinator starts; continues the former run if it was away for a moment only."""
    if not _beat(now):
        CoordinatorRun.objects.create(started_at=now, beat_at=now)


def heartbeat(now: float) -> None:
    """Say that the coordinator is up."""
    start_run(now)


def outages(since: float, now: float) -> list[tuple[float, float]]:
    """When no coordinator was up, after `since`, oldest first; at most the 100 newest. Moments do not count."""
    runs = list(CoordinatorRun.objects.filter(beat_at__gte=since).order_by("-started_at")[:101])[::-1]
    gaps = [(a.beat_at, b.started_at) for a, b in itertools.pairwise(runs)]
    before = CoordinatorRun.objects.filter(beat_at__lt=since).order_by("-beat_at").first()
    if before is not None and runs and len(runs) <= 100:
        gaps.insert(0, (before.beat_at, runs[0].started_at))
    return [(max(a, since), b) for a, b in gaps if b - max(a, since) > RUN_GAP_S and b <= now]


def _beat(now: float) -> bool:
    newest = CoordinatorRun.objects.order_by("-beat_at").values_list("pk", flat=True).first()
    return CoordinatorRun.objects.filter(pk=newest, beat_at__gte=now - RUN_GAP_S).update(beat_at=now) > 0


def _event(session: Session, at: float, received_at: float, name: str, **detail: str | bool) -> Event:
    return Event(experiment_id=session.experiment_id, session=session, at=at, received_at=received_at, name=name, detail=detail)
