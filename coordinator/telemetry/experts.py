"""Who hosts which expert, as reports say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q

from agent.grid import ExpertId, Grid
from agent.reports import Report
from coordinator.experiments.models import ManifestRevision
from coordinator.telemetry.models import COUNT_MAX, HostedExpert, Session

STALE_S = 15.0
"""An expert that no report named for this long has no host that we know of."""
LOAD_S = 10.0
"""Over how long the load of an expert is averaged."""


@dataclass(frozen=True, slots=True)
class News:
    """A session's newest report, and the experts that it had reported before."""

    session: Session
    report: Report
    former: list[str]


def update(news: Sequence[News], now: float) -> None:
    """Take over who hosts what. The higher epoch wins while its host still reports."""
    if not any(n.report.experts or n.former for n in news):
        return
    grids = {pk: _grids(pk) for pk in {n.session.experiment_id for n in news}}
    claims: dict[tuple[int, str], HostedExpert] = {}
    dropped: dict[tuple[int, str], set[str]] = {}
    for n in news:
        experiment = n.session.experiment_id
        for gone in set(n.former) - {e.uid for e in n.report.experts}:
            dropped.setdefault((experiment, n.session.peer), set()).add(gone)
        for expert in n.report.experts:
            claim = HostedExpert(
                experiment_id=experiment,
                uid=expert.uid,
                peer=n.session.peer,
                epoch=min(expert.epoch, COUNT_MAX),
                version=min(expert.version, COUNT_MAX),
                rows=min(expert.rows, COUNT_MAX),
                seen_at=n.session.seen_at,
                hosted=n.session.ended_at is None,
            )
            other = claims.get((experiment, expert.uid))
            if _in_grid(expert.uid, grids[experiment]) and (other is None or claim.epoch >= other.epoch):
                claims[experiment, expert.uid] = claim
    for (experiment, peer), uids in dropped.items():
        HostedExpert.objects.filter(experiment_id=experiment, peer=peer, uid__in=uids).update(hosted=False)
    _write(claims, now)


def drop_ended(ended: Sequence[Session]) -> None:
    """Experts of sessions that ended have no host, until a report names one; unless the peer is here in another session."""
    for session in ended:
        elsewhere = Session.objects.filter(experiment_id=session.experiment_id, peer=session.peer, ended_at=None)
        if session.experts and not elsewhere.exclude(pk=session.pk).exists():
            HostedExpert.objects.filter(experiment_id=session.experiment_id, peer=session.peer).update(hosted=False)


def _write(claims: dict[tuple[int, str], HostedExpert], now: float) -> None:
    wanted = Q(experiment_id__in={e for e, _ in claims}, uid__in={u for _, u in claims})
    for old in HostedExpert.objects.filter(wanted, hosted=True, seen_at__gt=now - STALE_S):
        claim = claims.get((old.experiment_id, old.uid))
        if claim is not None and claim.epoch < old.epoch:
            del claims[old.experiment_id, old.uid]
        elif claim is not None and claim.peer == old.peer:
            claim.rows_per_s = _load(old, claim)
    HostedExpert.objects.bulk_create(
        [claims[key] for key in sorted(claims)],  # in one order everywhere, so that two processes do not lock each other out
        update_conflicts=True,
        unique_fields=["experiment", "uid"],
        update_fields=["peer", "epoch", "version", "rows", "rows_per_s", "seen_at", "hosted"],
    )


def _load(old: HostedExpert, new: HostedExpert) -> float | None:
    """Rows a second, averaged so that what is LOAD_S old counts 1/e. A new session of the host begins anew."""
    passed_s, rows = new.seen_at - old.seen_at, new.rows - old.rows
    if passed_s <= 0 or rows < 0:
        return old.rows_per_s if rows >= 0 else None
    weight = math.exp(-passed_s / LOAD_S) if old.rows_per_s is not None else 0.0
    return weight * (old.rows_per_s or 0.0) + (1 - weight) * rows / passed_s


def _grids(experiment_id: int) -> list[Grid]:
    revision = ManifestRevision.objects.filter(experiment_id=experiment_id).order_by("-revision").first()
    return revision.manifest.model.grids() if revision else []


def _in_grid(uid: str, grids: Sequence[Grid]) -> bool:
    try:
        expert = ExpertId.parse(uid)
    except ValueError:
        return False
    return any(expert in grid for grid in grids)
