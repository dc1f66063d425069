"""Reads for organizers' pages."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from django.db.models import OuterRef, Subquery

from agent.manifest import Manifest
from coordinator.accounts.models import User
from coordinator.experiments.changes import Change, changes
from coordinator.experiments.models import Experiment, ManifestRevision, Role

LISTED_MAX = 200


def organized_by(user: User) -> list[dict[str, Any]]:
    """What `user` owns or co-organizes, those at work first, with their role and newest revision."""
    newest = ManifestRevision.objects.filter(experiment=OuterRef("experiment")).order_by("-revision")
    roles = (
        Role.objects.filter(user=user)
        .select_related("experiment")
        .annotate(revision=Subquery(newest.values("revision")[:1]), published_at=Subquery(newest.values("created_at")[:1]))
        .order_by("-experiment__created_at")[:LISTED_MAX]
    )
    order = {"open": 0, "paused": 1, "draft": 2, "finished": 3}
    rows = [{"experiment": r.experiment, "kind": r.kind, "revision": r.revision, "published_at": r.published_at} for r in roles]
    return sorted(rows, key=lambda row: (row["experiment"].archived_at is not None, order[row["experiment"].status]))


@dataclass(frozen=True, kw_only=True)
class Step:
    """A revision, and how it differs from the one before."""

    revision: ManifestRevision
    changes: list[Change]


def history(experiment: Experiment, limit: int = 50, before: int | None = None) -> list[Step]:
    """The newest revisions, newest first; those before revision `before`."""
    rows = experiment.revisions.select_related("author").order_by("-revision")
    if before is not None:
        rows = rows.filter(revision__lt=before)
    found = list(rows[: limit + 1])
    pairs = itertools.zip_longest(found, found[1:])
    steps = [Step(revision=r, changes=_between(former, r.manifest)) for r, former in pairs]
    return steps[:limit]


def compare(experiment: Experiment, number: int, against: int | None) -> tuple[ManifestRevision, ManifestRevision | None] | None:
    """Revision `number` and the one to compare it with: by default the one before. None if there is no such revision."""
    revision = experiment.revisions.select_related("author").filter(revision=number).first()
    if revision is None:
        return None
    other = experiment.revisions.filter(revision=against if against is not None else number - 1).first()
    return (revision, other) if other is not None or against is None else None


def _between(former: ManifestRevision | None, manifest: Manifest) -> list[Change]:
    return changes(former.manifest, manifest) if former is not None else []
