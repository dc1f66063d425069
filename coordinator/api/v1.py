"""The REST API, version 1. Everything that a page shows is here."""

from __future__ import annotations

import time
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Query, Schema
from pydantic import StringConstraints

from agent.manifest import Manifest
from coordinator.accounts import api as accounts
from coordinator.admission import api as admission
from coordinator.api import contributions
from coordinator.api.common import Detail, Name, PerAddress, find
from coordinator.experiments.models import Experiment, ManifestRevision
from coordinator.rendezvous.actions import bootstrap_addresses
from coordinator.telemetry import queries, shapes
from coordinator.telemetry.models import Resolution

api = NinjaAPI(
    title="Hive coordinator",
    version="1",
    description=(
        "Experiments, what is observed of them, and who did the work. Times are Unix seconds; `null` means unknown. "
        "Answers carry an ETag; ask again with If-None-Match. One address may ask 20 times a second, 400 at once; then 429."
    ),
    docs_url="/docs",
    urls_namespace="api-1",
    throttle=[PerAddress()],
)
api.add_router("", contributions.router)
api.add_router("", accounts.router)
api.add_router("", admission.router)

EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{1,40}$")]


class ExperimentOut(Schema):
    """One experiment and its figures."""

    name: str
    title: str
    description: str
    revision: int
    key: str
    """The coordinator's public key that signed the manifest."""
    summary: shapes.Summary


class ExperimentBrief(Schema):
    name: str
    title: str
    status: str


class Bootstrap(Schema):
    addresses: list[str]


@api.get("/experiments", response=list[ExperimentBrief], tags=["experiments"])
def list_experiments(
    request: HttpRequest, limit: Annotated[int, Query(ge=1, le=200)] = 100, offset: Annotated[int, Query(ge=0, le=100_000)] = 0
) -> object:
    """Published experiments, oldest first."""
    return Experiment.objects.visible_to()[offset : offset + limit]


@api.get("/experiments/{name}", response={200: ExperimentOut, 404: Detail}, tags=["experiments"])
def get_experiment(request: HttpRequest, name: Name) -> object:
    """One experiment and its figures now."""
    experiment = find(name)
    revision, manifest = _newest(experiment)
    return ExperimentOut(
        name=experiment.name,
        title=manifest.title,
        description=manifest.description,
        revision=revision.revision,
        key=revision.key,
        summary=queries.summary(experiment, time.time()),
    )


@api.get("/experiments/{name}/manifest", response={200: dict, 304: None, 404: Detail}, tags=["agents"])
def get_manifest(request: HttpRequest, name: Name) -> HttpResponse:
    """The newest signed manifest: `payload` (base64 of the manifest's JSON), `signature` (base64) and `key`."""
    revision, _ = _newest(find(name))
    if revision.etag in request.headers.get("If-None-Match", ""):
        response = HttpResponse(status=304)
    else:
        response = HttpResponse(revision.signed_json, content_type="application/json")
    response["ETag"] = revision.etag
    response["Cache-Control"] = "no-cache"
    return response


@api.get("/experiments/{name}/bootstrap", response={200: Bootstrap, 404: Detail}, tags=["agents"])
def get_bootstrap(request: HttpRequest, name: Name) -> object:
    """Addresses of bootstrap peers: the manifest's, and those that live agents announced."""
    return {"addresses": bootstrap_addresses(find(name), time.time())}


@api.get("/experiments/{name}/series", response={200: shapes.Series, 404: Detail}, tags=["observations"])
def get_series(
    request: HttpRequest,
    name: Name,
    resolution: Annotated[Resolution | None, Query(description="seconds per point; by default what fits")] = None,
    since: Annotated[float, Query(ge=0, le=1e11)] = 0.0,
) -> object:
    """Loss, validation loss, tokens and peers over time; the newest 5,000 points."""
    return queries.series(find(name), time.time(), resolution=resolution, since=since)


@api.get("/experiments/{name}/peers", response={200: list[shapes.Peer], 404: Detail}, tags=["observations"])
def get_peers(
    request: HttpRequest,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    offset: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> object:
    """Peers whose last report is at most 15 s old, those that have been here longest first."""
    return queries.peers(find(name), time.time(), limit=limit, offset=offset)


@api.get("/experiments/{name}/experts", response={200: list[shapes.Expert], 404: Detail}, tags=["observations"])
def get_experts(
    request: HttpRequest,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=4096)] = 4096,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> object:
    """Every place of the grid and who hosts it."""
    return queries.experts(find(name), time.time(), limit=limit, offset=offset)


@api.get("/experiments/{name}/events", response={200: list[shapes.Event], 404: Detail}, tags=["observations"])
def get_events(
    request: HttpRequest,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    before: Annotated[float | None, Query(ge=0, le=1e11)] = None,
    quiet: bool = False,
    only: Annotated[list[EventName] | None, Query(max_length=20, description="only events of these names")] = None,
) -> object:
    """What happened, newest first; `quiet` includes frequent events such as averaging rounds."""
    return queries.events(find(name), limit=limit, before=before, quiet=quiet, names=only or ())


@api.get("/experiments/{name}/connections", response={200: list[shapes.Connection], 404: Detail}, tags=["observations"])
def get_connections(request: HttpRequest, name: Name) -> object:
    """Connections between the peers that are here now."""
    return queries.connections(find(name), time.time())


def _newest(experiment: Experiment) -> tuple[ManifestRevision, Manifest]:
    revision = experiment.revision
    assert revision is not None, "a visible experiment has a revision"
    return revision, revision.manifest
