"""The public pages. They work without JavaScript; with it, they are live."""

from __future__ import annotations

import shlex
import time

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from coordinator.dashboard import comb
from coordinator.dashboard.describe import facts
from coordinator.experiments.models import Experiment
from coordinator.monitoring import overview
from coordinator.telemetry import queries, summaries

LISTED_MAX = 50
ROOM = ((3, "few"), (8, "some"))
"""How much room the peers' table is given, by how many are here. Decided once, so that nothing moves when they come and go."""
PEERS_DRAWN, EXPERTS_DRAWN, EVENTS_DRAWN, SAMPLES_DRAWN = 25, 256, 20, 8
"""What the server draws of each list; the live stream and the API have the rest."""


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Every published experiment, with its figures now."""
    now = time.time()
    experiments = list(Experiment.objects.listed()[:LISTED_MAX])
    summaries.with_manifests(experiments)
    figures = summaries.summaries(experiments, now)
    shelf = [{"experiment": e, "manifest": e.manifest, "summary": figures[e.pk]} for e in experiments]
    return render(request, "dashboard/home.html", {"shelf": shelf, "now": now})


@require_safe
def experiment(request: HttpRequest, name: str) -> HttpResponse:
    """One experiment: how to take part, and what is observed of it."""
    found = Experiment.objects.visible_to().filter(name=name).first()
    if found is None:
        raise Http404(f"There is no experiment {name!r} here.")
    now = time.time()
    summary = queries.summary(found, now)
    experts = queries.experts(found, now)
    health = overview.of_experiment(found, now)
    context = {
        "experiment": found,
        "manages": Experiment.objects.managed_by(request.user).filter(pk=found.pk).exists(),
        "manifest": found.manifest,
        "revision": found.revision,
        "facts": facts(found.manifest),
        "install": settings.INSTALL_COMMAND,
        "join": join_words(request, found),
        "now": now,
        "summary": summary,
        "peers": queries.peers(found, now, limit=PEERS_DRAWN),
        "room": next((room for most, room in ROOM if summary.peers <= most), "many"),
        "experts": experts[:EXPERTS_DRAWN],
        "experts_further": len(experts) - len(experts[:EXPERTS_DRAWN]),
        "combs": comb.layers(experts, now),
        "hexagon": comb.HEXAGON,
        "events": queries.events(found, limit=EVENTS_DRAWN),
        "samples": queries.events(found, limit=SAMPLES_DRAWN, names=["sample"]),
        "problems": health["problems"],
        "examined_at": health["examination"].at if health["examination"] else None,
    }
    return render(request, "dashboard/experiment.html", context)


def join_words(request: HttpRequest, experiment: Experiment) -> list[str]:
    """What a volunteer types, in parts that belong together on a line."""
    origin = settings.SITE_URL or f"{request.scheme}://{request.get_host()}"
    return ["hive-agent", shlex.join(["--experiment", experiment.name]), shlex.join(["--coordinator", origin])]


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The 404 page."""
    return render(request, "404.html", status=404)
