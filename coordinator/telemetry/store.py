"""Writes what agents reported: idempotent, in one transaction per flush, the same few queries for one agent or a thousand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from django.db import transaction

from agent.reports import Event as EventItem
from agent.reports import Hello, Report
from coordinator.experiments.models import Experiment
from coordinator.telemetry import experts, membership
from coordinator.telemetry.intake import Submission
from coordinator.telemetry.models import COUNT_MAX, Event, RawReport, Session

RAW_KEPT_S = 24 * 3600.0
BACKFILL_S = RAW_KEPT_S - 3600.0
"""Reports older than this count in totals but make no point of a chart: the raw rows around them are gone."""
EVENT_KEPT_S = 30 * 86_400.0
DETAIL_CHARS_MAX = 200
RATE_MAX = 1e12

COUNTERS = (
    "step", "tokens", "calls", "calls_failed", "backtracks", "rows_served",
    "bytes_p2p_sent", "bytes_p2p_received", "bytes_coordinator",
)  # fmt: skip
_UPDATED = [
    *COUNTERS, "falls", "experts_total", "experts_alive", "version", "seen_at", "joined_at", "ended_at", "last_sequence",
    "reported_at", "stage", "why", "loss", "loss_validation", "tokens_per_s", "connections", "direct", "relayed",
    "experts",
]  # fmt: skip


def open_session(experiment: Experiment, hello: Hello, now: float) -> int:
    """The id of the row for this run of this agent."""
    session, _ = Session.objects.get_or_create(
        experiment=experiment,
        peer=hello.peer,
        session=hello.session,
        defaults={"version": hello.version, "started_at": now, "seen_at": now},
    )
    return session.pk


def store(submissions: Sequence[Submission], now: float) -> None:
    """Store every item once, whatever was sent before. Raises DatabaseError, and then nothing is stored."""
    with transaction.atomic():
        ids = {s.session_id for s in submissions}
        sessions = {s.pk: s for s in Session.objects.select_for_update().filter(pk__in=ids).order_by("pk")}
        known = _known_sequences(submissions, sessions)
        reports: list[RawReport] = []
        events: list[Event] = []
        news: list[experts.News] = []
        for submission in submissions:
            session = sessions.get(submission.session_id)
            if session is None:  # its experiment was deleted meanwhile
                continue
            session.seen_at = max(session.seen_at, submission.received_at)
            for item in sorted(submission.items, key=lambda item: item.sequence):
                if (session.pk, item.sequence) in known:
                    continue
                known.add((session.pk, item.sequence))
                if isinstance(item, Report):
                    events += membership.on_report(session, item, submission.received_at)
                    if item.sequence > session.last_sequence:
                        news.append(experts.News(session, item, former=session.experts))
                    reports += _take_report(session, item, submission.received_at)
                else:
                    events += _take_event(session, item, submission.received_at)
                session.last_sequence = max(session.last_sequence, item.sequence)
        RawReport.objects.bulk_create(reports, ignore_conflicts=True, batch_size=2000)
        Event.objects.bulk_create(events, ignore_conflicts=True, batch_size=2000)
        experts.update(news, now)
        experts.drop_ended([s for s in sessions.values() if s.ended_at is not None])
        Session.objects.bulk_create(
            sessions.values(), update_conflicts=True, unique_fields=["experiment", "peer", "session"], update_fields=_UPDATED
        )


def _known_sequences(submissions: Sequence[Submission], sessions: dict[int, Session]) -> set[tuple[int, int]]:
    """Of the items that may have been sent before, those that are stored. Asks the database only if there are any.

    Items that left no row (too old, noted already) come out as unknown; taking them again changes nothing.
    """
    repeated: dict[int, list[int]] = {}
    for submission in submissions:
        session = sessions.get(submission.session_id)
        for item in submission.items:
            if session is not None and item.sequence <= session.last_sequence:
                repeated.setdefault(session.pk, []).append(item.sequence)
    known: set[tuple[int, int]] = set()
    for pk, sequences in repeated.items():
        for model in (RawReport, Event):
            rows = model.objects.filter(session_id=pk, sequence__in=sequences).values_list("session_id", "sequence")
            known |= set(rows)
    return known


def _take_report(session: Session, report: Report, received_at: float) -> list[RawReport]:
    """Raise the session's counters, and give the row of what was added."""
    before = {name: getattr(session, name) for name in COUNTERS}
    if report.sequence > session.last_sequence and any(
        getattr(report, name) < before[name] for name in ("tokens", "rows_served")
    ):
        session.falls += 1
    validation = _finite(report.loss_validation)
    if validation == session.loss_validation:
        validation = None
    for name in COUNTERS:
        setattr(session, name, max(before[name], min(getattr(report, name), COUNT_MAX)))
    if report.sequence > session.last_sequence:
        _take_state(session, report)
    at = min(report.at, received_at)
    if at < received_at - BACKFILL_S:
        return []
    return [
        RawReport(
            session=session,
            experiment_id=session.experiment_id,
            sequence=report.sequence,
            second=int(at),
            received_at=received_at,
            tokens=session.tokens - before["tokens"],
            calls=session.calls - before["calls"],
            calls_failed=session.calls_failed - before["calls_failed"],
            rows_served=session.rows_served - before["rows_served"],
            loss=_finite(report.loss),
            loss_batches=min(report.loss_batches, COUNT_MAX) if _finite(report.loss) is not None else 0,
            loss_validation=validation,
        )
    ]


def _take_state(session: Session, report: Report) -> None:
    session.reported_at = report.at
    session.stage, session.why = report.stage, report.why
    if _finite(report.loss) is not None:
        session.loss = report.loss
    if _finite(report.loss_validation) is not None:
        session.loss_validation = report.loss_validation
    session.tokens_per_s = min(max(report.tokens_per_s, 0.0), RATE_MAX)
    session.experts_total = min(report.experts_total, COUNT_MAX)
    session.experts_alive = min(report.experts_alive, COUNT_MAX)
    session.connections = [{"peer": c.peer, "kind": c.kind, "rtt_ms": c.rtt_ms} for c in report.connections]
    session.relayed = sum(c.kind == "relayed" for c in report.connections)
    session.direct = len(report.connections) - session.relayed
    session.experts = [e.uid for e in report.experts]


def _take_event(session: Session, item: EventItem, received_at: float) -> list[Event]:
    if not membership.on_event(session, item, received_at):
        return []
    at = min(item.at, received_at)
    if at < received_at - EVENT_KEPT_S:
        return []
    detail = {k: v[:DETAIL_CHARS_MAX] if isinstance(v, str) else v for k, v in item.detail.items()}
    return [
        Event(
            experiment_id=session.experiment_id,
            session=session,
            sequence=item.sequence,
            at=at,
            received_at=received_at,
            name=item.name,
            detail=detail,
        )
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and abs(value) < RATE_MAX else None
