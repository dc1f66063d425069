"""Routes of the API: experiments, their signed revisions, and what agents need to join."""

from __future__ import annotations

import time
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from agent.manifest import Manifest
from coordinator.api.common import Detail, Limit, Name, Offset, find, link, page
from coordinator.experiments.models import Experiment, ManifestRevision
from coordinator.rendezvous.actions import bootstrap_addresses
from coordinator.telemetry import queries, shapes

router = Router()
SIGNED = {
    "type": "object",
    "required": ["payload", "signature", "key"],
    "properties": {
        "payload": {"type": "string", "description": "base64 of the manifest's JSON, exactly as signed"},
        "signature": {"type": "string", "description": "base64, Ed25519"},
        "key": {"type": "string", "description": "the coordinator's public key"},
    },
}
REVISION_MAX = 2**31 - 1


class ExperimentOut(Schema):
    """One experiment and its figures."""

    name: str
    title: str
    description: str
    revision: int
    key: str = Field(description="the coordinator's public key, which signed the manifest")
    summary: shapes.Summary


class ExperimentBrief(Schema):
    name: str
    title: str
    status: str


class RevisionOut(Schema):
    """A signed manifest, without its content."""

    revision: int
    key: str
    etag: str
    created_at: float


class Bootstrap(Schema):
    addresses: list[str]


@router.get("/experiments", response=list[ExperimentBrief], tags=["experiments"])
def list_experiments(request: HttpRequest, response: HttpResponse, limit: Limit = 100, offset: Offset = 0) -> object:
    """Published experiments, oldest first."""
    return page(request, response, Experiment.objects.listed()[offset : offset + limit + 1], limit, offset)


@router.get("/experiments/{name}", response={200: ExperimentOut, 404: Detail}, tags=["experiments"])
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


@router.get("/experiments/{name}/revisions", response={200: list[RevisionOut], 404: Detail}, tags=["experiments"])
def get_revisions(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Limit = 100,
    before: Annotated[int | None, Query(ge=1, le=REVISION_MAX, description="only revisions with a smaller number")] = None,
) -> object:
    """Every manifest that the experiment ever had, newest first."""
    rows = ManifestRevision.objects.filter(experiment=find(name)).order_by("-revision")
    if before is not None:
        rows = rows.filter(revision__lt=before)
    found = list(rows[: limit + 1])
    if len(found) > limit:
        link(request, response, before=found[limit - 1].revision)
    return [RevisionOut(revision=r.revision, key=r.key, etag=r.etag, created_at=r.created_at.timestamp()) for r in found[:limit]]


@router.get(
    "/experiments/{name}/revisions/{revision}",
    response={200: dict, 404: Detail},
    tags=["experiments"],
    openapi_extra={"responses": {200: {"content": {"application/json": {"schema": SIGNED}}}}},
)
def get_revision(request: HttpRequest, name: Name, revision: Annotated[int, Path(ge=1, le=REVISION_MAX)]) -> HttpResponse:
    """One signed manifest."""
    found = ManifestRevision.objects.filter(experiment=find(name), revision=revision).first()
    if found is None:
        raise HttpError(404, f"{name} has no revision {revision}.")
    return _signed(request, found)


@router.get(
    "/experiments/{name}/manifest",
    response={200: dict, 404: Detail},
    tags=["agents"],
    openapi_extra={"responses": {200: {"content": {"application/json": {"schema": SIGNED}}}}},
)
def get_manifest(request: HttpRequest, name: Name) -> HttpResponse:
    """The newest signed manifest: `payload` (base64 of the manifest's JSON), `signature` (base64) and `key`."""
    revision, _ = _newest(find(name))
    return _signed(request, revision)


@router.get("/experiments/{name}/bootstrap", response={200: Bootstrap, 404: Detail}, tags=["agents"])
def get_bootstrap(request: HttpRequest, name: Name) -> object:
    """Addresses of bootstrap peers, at most 64: the manifest's, and those that live agents announced."""
    return {"addresses": bootstrap_addresses(find(name), time.time())}


def _signed(request: HttpRequest, revision: ManifestRevision) -> HttpResponse:
    if revision.etag in request.headers.get("If-None-Match", ""):
        response = HttpResponse(status=304)
    else:
        response = HttpResponse(revision.signed_json, content_type="application/json")
    response["ETag"] = revision.etag
    response["Cache-Control"] = "no-cache"
    return response


def _newest(experiment: Experiment) -> tuple[ManifestRevision, Manifest]:
    revision = experiment.revision
    assert revision is not None, "a visible experiment has a revision"
    return revision, revision.manifest
