"""The figures at the head of an experiment's page: for one or for many, with the same few queries."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db.models import Count, F, FloatField, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Cast

from agent.manifest import Manifest
from coordinator.experiments.models import Experiment, ManifestRevision
from coordinator.telemetry import experts, membership, shapes
from coordinator.telemetry.models import HostedExpert, Point, Resolution, Session

RECENT_S = 10
"""The training loss that is shown is the mean over this long before the newest one."""


def here(now: float) -> Q:
    """Sessions of agents that reported lately. `stopped` is gone although it still spoke."""
    silent = now - membership.SILENT_S
    return Q(ended_at=None, seen_at__gt=silent, last_sequence__gt=0) & ~Q(stage="stopped")


def experts_total(manifest: Manifest) -> int:
    return sum(len(grid) for grid in manifest.model.grids())


def with_manifests(found: Collection[Experiment]) -> None:
    """Give each experiment its newest revision, with one query for all."""
    newest = ManifestRevision.objects.filter(experiment=OuterRef("experiment")).order_by("-revision").values("pk")[:1]
    rows = ManifestRevision.objects.filter(experiment__in=[e.pk for e in found], pk=Subquery(newest))
    revisions = {row.experiment_id: row for row in rows}
    for experiment in found:
        experiment.revision = revisions.get(experiment.pk)


def summaries(found: Collection[Experiment], now: float) -> dict[int, shapes.Summary]:
    """Of each experiment by its key, at time `now`. Five queries, and one more if some have not trained for days."""
    keys = [e.pk for e in found]
    present = _by_experiment(
        Session.objects.filter(here(now)).filter(experiment__in=keys),
        peers=Count("peer", distinct=True),
        trainers=Count("peer", distinct=True, filter=Q(stage="training")),
        rate=Sum("tokens_per_s"),
    )
    ever = _by_experiment(
        Session.objects.filter(experiment__in=keys),
        tokens=Sum("tokens"),
        sent=Sum("bytes_p2p_sent"),
        coordinator=Sum("bytes_coordinator"),
        reported_at=Max("seen_at", filter=Q(last_sequence__gt=0)),
    )
    fresh = HostedExpert.objects.filter(experiment__in=keys, hosted=True, seen_at__gt=now - experts.STALE_S)
    hosted = _by_experiment(fresh, count=Count("pk"))
    losses, validations = _losses(keys)
    return {
        e.pk: shapes.Summary(
            status=e.status,
            peers=present.get(e.pk, {}).get("peers", 0),
            trainers=present.get(e.pk, {}).get("trainers", 0),
            tokens=ever.get(e.pk, {}).get("tokens", 0),
            tokens_per_s=present.get(e.pk, {}).get("rate") or 0.0,
            loss=losses.get(e.pk),
            loss_validation=validations.get(e.pk),
            experts_total=experts_total(e.manifest),
            experts_hosted=hosted.get(e.pk, {}).get("count", 0),
            bytes_p2p=ever.get(e.pk, {}).get("sent", 0),
            bytes_coordinator=ever.get(e.pk, {}).get("coordinator", 0),
            reported_at=ever.get(e.pk, {}).get("reported_at"),
        )
        for e in found
    }


def _by_experiment(rows: QuerySet[Any], **aggregates: Any) -> dict[int, dict[str, Any]]:
    return {row["experiment"]: row for row in rows.order_by().values("experiment").annotate(**aggregates)}


def _losses(keys: Collection[int]) -> tuple[dict[int, float], dict[int, float]]:
    """Training losses, the mean over the newest RECENT_S that have one; and validation losses, the newest of any agent."""
    of_it = Point.objects.filter(experiment=OuterRef("pk"), loss_batches__gt=0).order_by("-at")
    measured = Session.objects.filter(experiment=OuterRef("pk"), loss_validation__isnull=False).order_by("-reported_at")
    newest = Experiment.objects.filter(pk__in=keys).values_list(
        "pk",
        Subquery(of_it.filter(resolution=Resolution.SECOND).values("at")[:1]),
        Subquery(of_it.filter(resolution=Resolution.HOUR).values("at")[:1]),
        Subquery(measured.values("loss_validation")[:1]),
    )
    seconds, hours, validations = Q(), Q(), {}
    for pk, second, hour, validation in newest:
        if second is not None:
            seconds |= Q(experiment=pk, at__gt=second - RECENT_S, at__lte=second)
        elif hour is not None:  # its seconds are no longer kept
            hours |= Q(experiment=pk, at=hour)
        if validation is not None:
            validations[pk] = validation
    losses = _means(seconds, Resolution.SECOND) if seconds else {}
    return losses | (_means(hours, Resolution.HOUR) if hours else {}), validations


def _means(where: Q, resolution: Resolution) -> dict[int, float]:
    rows = Point.objects.filter(where, resolution=resolution, loss_batches__gt=0).order_by().values("experiment")
    means = rows.annotate(mean=Sum("loss_sum") / Cast(Sum(F("loss_batches")), FloatField()))
    return {row["experiment"]: row["mean"] for row in means}
