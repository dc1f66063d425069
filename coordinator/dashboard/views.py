"""The public pages. They work without JavaScript; with it, they are live."""

from __future__ import annotations

import shlex
import time

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from coordinator.dashboard.describe import facts
from coordinator.experiments.models import Experiment
from coordinator.telemetry import queries

LISTED_MAX = 50


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Every published experiment, with its figures now."""
    now = time.time()
    experiments = Experiment.objects.listed()[:LISTED_MAX]
    shelf = [{"experiment": e, "manifest": e.manifest, "summary": queries.summary(e, now)} for e in experiments]
    return render(request, "dashboard/home.html", {"shelf": shelf})


@require_safe
def experiment(request: HttpRequest, name: str) -> HttpResponse:
    """One experiment: how to take part, and what is observed of it."""
    found = Experiment.objects.visible_to().filter(name=name).first()
    if found is None:
        raise Http404(f"There is no experiment {name!r} here.")
    now = time.time()
    context = {
        "experiment": found,
        "manifest": found.manifest,
        "revision": found.revision,
        "facts": facts(found.manifest),
        "join": join_command(request, found),
        "now": now,
        "summary": queries.summary(found, now),
        "peers": queries.peers(found, now),
        "events": queries.events(found, limit=30),
    }
    return render(request, "dashboard/experiment.html", context)


def join_command(request: HttpRequest, experiment: Experiment) -> str:
    """What a volunteer types."""
    origin = settings.SITE_URL or f"{request.scheme}://{request.get_host()}"
    return shlex.join(["hive-agent", "--experiment", experiment.name, "--coordinator", origin])


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The 404 page."""
    return render(request, "404.html", status=404)
