"""API for organizers: what the pages do, for programs. A token with the scope `manage` speaks for its account."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from django.http import HttpRequest, HttpResponse
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError
from pydantic import WithJsonSchema

from agent.errors import ManifestRejected
from agent.manifest import MANIFEST_BYTES_MAX, Manifest, decode
from coordinator.accounts.api import Bearer, bearer
from coordinator.accounts.models import MANAGE
from coordinator.api.common import Detail, Limit, Name, Offset, page
from coordinator.experiments import actions, queries, schema
from coordinator.experiments.actions import Refused
from coordinator.experiments.estimate import Estimate, estimate
from coordinator.experiments.models import Experiment

router = Router(tags=["organizers"])


_PLACE = {"title": "A manifest", "type": "object"}
ManifestTree = Annotated[dict[str, Any], WithJsonSchema(_PLACE)]
"""A manifest as JSON. `revision` and `status` may say anything: the site sets them."""


def describe(schemas: dict[str, Any]) -> None:
    """Put the manifest's own schema into the API's description, and refer to it where a manifest stands."""
    _, parts = msgspec.json.schema_components((Manifest,), ref_template="#/components/schemas/{name}")
    schemas.update(msgspec.json.decode(msgspec.json.encode(parts).replace(rb"\\Z", b"$")))  # ECMAScript knows no \Z
    for _, kind in schema.untagged():  # msgspec calls the tag required, and reads without it
        lacking = schemas[kind.__name__]
        lacking["required"] = [name for name in lacking["required"] if name != kind.__struct_config__.tag_field]
        if not lacking["required"]:
            del lacking["required"]
    for model in (ManifestIn, RevisionIn, PlannedOut):
        properties = schemas[model.__name__]["properties"]
        properties["manifest"] = _referring(properties["manifest"])


def _referring(described: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in described:
        return {**described, "anyOf": [_referring(each) for each in described["anyOf"]]}
    return {"$ref": "#/components/schemas/Manifest"} if described.get("title") == _PLACE["title"] else described


class OrganizedOut(Schema):
    """An experiment that the account organizes."""

    name: str
    title: str
    status: str
    role: str
    revision: int | None
    """The newest; null for a draft."""
    archived: bool


class PlannedOut(Schema):
    """An experiment as its organizers see it."""

    name: str
    title: str
    status: str
    revision: int | None
    manifest: ManifestTree | None
    """The newest manifest, or the draft's."""


class ManifestIn(Schema):
    manifest: ManifestTree


class RevisionIn(Schema):
    manifest: ManifestTree
    base: Annotated[int, Field(ge=0, le=2**31 - 1, description="the newest revision that you know; 0 for a draft")] = 0


class StatusIn(Schema):
    status: Annotated[str, Field(max_length=10, description="open, paused or finished")]


class EstimateOut(Schema):
    """Arithmetic on a manifest, not a measurement. Counts of parameters, bytes, and rates."""

    parameters: int
    parameters_active: int
    experts: int
    expert_parameters: int
    expert_bytes: int
    experts_bytes: int
    machines: int
    trunk_parameters: int
    trunk_bytes: int
    token_bytes_up: int
    step_bytes_up: int
    tokens_per_s_max: float
    averaging_bytes_per_s: float
    warnings: list[str]


@router.get("/organizer/experiments", response={200: list[OrganizedOut], 401: Detail}, auth=Bearer(MANAGE))
def list_organized(request: HttpRequest, response: HttpResponse, limit: Limit = 100, offset: Offset = 0) -> object:
    """What the account owns or co-organizes, drafts too."""
    found = [
        OrganizedOut(
            name=row["experiment"].name,
            title=row["experiment"].title,
            status=row["experiment"].status,
            role=row["kind"],
            revision=row["revision"],
            archived=row["experiment"].archived_at is not None,
        )
        for row in queries.organized_by(bearer(request))
    ]
    return page(request, response, found[offset : offset + limit + 1], limit, offset)


@router.post("/organizer/experiments", response={201: PlannedOut, 400: Detail, 401: Detail, 409: Detail}, auth=Bearer(MANAGE))
def create(request: HttpRequest, body: ManifestIn) -> object:
    """A new draft, which nobody but its organizers sees until it is opened."""
    manifest = _manifest(body.manifest)
    try:
        return Status(201, _planned(actions.create(manifest, bearer(request))))
    except Refused as e:
        raise HttpError(409, str(e)) from e


@router.get("/organizer/experiments/{name}", response={200: PlannedOut, 401: Detail, 404: Detail}, auth=Bearer(MANAGE))
def get_organized(request: HttpRequest, name: Name) -> object:
    """One of the account's experiments, with its newest manifest or its draft."""
    return _planned(_managed(request, name))


@router.put(
    "/organizer/experiments/{name}/manifest",
    response={200: PlannedOut, 400: Detail, 401: Detail, 404: Detail, 409: Detail},
    auth=Bearer(MANAGE),
)
def put_manifest(request: HttpRequest, name: Name, body: RevisionIn) -> object:
    """Save a draft, or sign and publish the next revision. 409 if `base` is not the newest revision any more."""
    experiment = _managed(request, name)
    manifest = _manifest(body.manifest)
    try:
        if experiment.revision is None:
            experiment = actions.save_draft(experiment, manifest)
        else:
            actions.revise(experiment, manifest, bearer(request), base=body.base)
    except Refused as e:
        raise HttpError(409, str(e)) from e
    return _planned(Experiment.objects.get(pk=experiment.pk))


@router.post(
    "/organizer/experiments/{name}/status",
    response={200: PlannedOut, 401: Detail, 404: Detail, 409: Detail},
    auth=Bearer(MANAGE),
)
def post_status(request: HttpRequest, name: Name, body: StatusIn) -> object:
    """Open, pause or finish: a new signed revision. 409 where the status does not follow from the present one."""
    experiment = _managed(request, name)
    try:
        actions.set_status(experiment, body.status, bearer(request))
    except Refused as e:
        raise HttpError(409, str(e)) from e
    return _planned(Experiment.objects.get(pk=experiment.pk))


@router.post("/estimate", response={200: EstimateOut, 400: Detail})
def post_estimate(request: HttpRequest, body: ManifestIn) -> object:
    """How large the experiment of a manifest is, and what it asks of volunteers. Nothing is stored."""
    manifest = _manifest(body.manifest)
    found: Estimate = estimate(manifest.model, manifest.training, manifest.averaging, manifest.rules)
    return EstimateOut(**msgspec.to_builtins(found))


def _managed(request: HttpRequest, name: str) -> Experiment:
    found = Experiment.objects.managed_by(bearer(request)).filter(name=name).first()
    if found is None:
        raise HttpError(404, f"There is no experiment {name!r} that you organize.")
    return found


def _manifest(body: dict[str, Any]) -> Manifest:
    """Raises HttpError 400, naming the field."""
    if len(str(body)) > 2 * MANIFEST_BYTES_MAX:
        raise HttpError(400, f"A manifest has at most {MANIFEST_BYTES_MAX} bytes.")
    try:
        return msgspec.structs.replace(decode(msgspec.json.encode(body)), revision=1, status="open")
    except (ManifestRejected, TypeError, ValueError, RecursionError) as e:
        raise HttpError(400, str(e)[:500]) from None


def _planned(experiment: Experiment) -> PlannedOut:
    newest, planned = experiment.revision, experiment.planned
    return PlannedOut(
        name=experiment.name,
        title=experiment.title,
        status=experiment.status,
        revision=newest.revision if newest else None,
        manifest=msgspec.to_builtins(planned) if planned else None,
    )
