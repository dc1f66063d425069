"""Finding the experiment that a page is about, for who may know of it. Others get the 404 of a page that does not exist."""

from __future__ import annotations

from django.http import Http404, HttpRequest

from coordinator.experiments.models import Experiment


def published(name: str) -> Experiment:
    """For everybody. Raises Http404."""
    experiment = Experiment.objects.visible_to().filter(name=name).first()
    if experiment is None:
        raise Http404(f"There is no experiment {name!r} here.")
    return experiment


def managed(request: HttpRequest, name: str) -> Experiment:
    """If who asks organizes it; others need not know more than that there is no such page. Raises Http404."""
    experiment = Experiment.objects.managed_by(request.user).filter(name=name).first()
    if experiment is None:
        raise Http404(f"There is no experiment {name!r} that you organize.")
    return experiment


def owned(request: HttpRequest, name: str) -> Experiment:
    """If who asks owns it, or is staff. Raises Http404."""
    experiment = Experiment.objects.owned_by(request.user).filter(name=name).first()
    if experiment is None:
        raise Http404(f"There is no experiment {name!r} that you own.")
    return experiment
