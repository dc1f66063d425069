"""Routes of the API: what is observed of an experiment."""

from __future__ import annotations

import time
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import StringConstraints

from coordinator.api.common import Detail, Limit, Name, Offset, as_json, find, link, page
from coordinator.telemetry import queries, shapes
from coordinator.telemetry.models import Resolution

router = Router(tags=["observations"])

EventName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]{1,40}$")]
Time = Annotated[float, Query(ge=0, le=1e11, description="Unix seconds")]
Before = Annotated[float | None, Query(ge=0, le=1e11, description="only what happened earlier, Unix seconds")]
BeforeId = Annotated[int | None, Query(ge=1, le=2**62, description="with `before`: at that very time, only smaller ids")]


class SampleOut(Schema):
    """What the model wrote when somebody let it."""

    id: int
    at: float
    peer: str | None
    step: int | None
    prompt: str
    text: str


@router.get("/experiments/{name}/series", response={200: shapes.Series, 404: Detail})
def get_series(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    resolution: Annotated[Resolution | None, Query(description="seconds per point; by default what fits")] = None,
    since: Time = 0.0,
    until: Annotated[float | None, Query(ge=0, le=1e11, description="only points that begin earlier")] = None,
) -> object:
    """Loss, validation loss, tokens and peers over time; the newest 5,000 points. A next page goes further back."""
    found = queries.series(find(name), time.time(), resolution=resolution, since=since, until=until)
    if len(found.at) >= queries.POINTS_MAX:
        link(request, response, resolution=found.resolution, until=found.at[0])
    return as_json(response, found)


@router.get("/experiments/{name}/peers", response={200: list[shapes.Peer], 404: Detail})
def get_peers(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    offset: Offset = 0,
) -> object:
    """Peers whose last report is at most 15 s old, those that have been here longest first."""
    return page(request, response, queries.peers(find(name), time.time(), limit=limit + 1, offset=offset), limit, offset)


@router.get("/experiments/{name}/experts", response={200: list[shapes.Expert], 404: Detail})
def get_experts(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=4096)] = 4096,
    offset: Offset = 0,
) -> object:
    """Every place of the grid and who hosts it."""
    return page(request, response, queries.experts(find(name), time.time(), limit=limit + 1, offset=offset), limit, offset)


@router.get("/experiments/{name}/events", response={200: list[shapes.Event], 404: Detail})
def get_events(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Limit = 100,
    before: Before = None,
    before_id: BeforeId = None,
    quiet: bool = False,
    only: Annotated[list[EventName] | None, Query(max_length=20, description="only events of these names")] = None,
) -> object:
    """What happened, newest first; `quiet` includes frequent events such as averaging rounds."""
    cursor = queries.Cursor(before, before_id)
    found = queries.events(find(name), limit=limit + 1, before=cursor, quiet=quiet, names=only or ())
    if len(found) > limit:
        link(request, response, before=found[limit - 1].at, before_id=found[limit - 1].id)
    return found[:limit]


@router.get("/experiments/{name}/samples", response={200: list[SampleOut], 404: Detail})
def get_samples(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Limit = 20,
    before: Before = None,
    before_id: BeforeId = None,
) -> object:
    """Text that the model wrote as training went, newest first. Of what is older than a month, one of each day is kept."""
    found = queries.events(find(name), limit=limit + 1, before=queries.Cursor(before, before_id), names=["sample"])
    if len(found) > limit:
        link(request, response, before=found[limit - 1].at, before_id=found[limit - 1].id)
    return [
        SampleOut(
            id=e.id,
            at=e.at,
            peer=e.peer,
            step=step if isinstance(step := e.detail.get("step"), int) else None,
            prompt=str(e.detail.get("prompt", "")),
            text=str(e.detail.get("text", "")),
        )
        for e in found[:limit]
    ]


@router.get("/experiments/{name}/connections", response={200: list[shapes.Connection], 404: Detail})
def get_connections(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    limit: Annotated[int, Query(ge=1, le=2000)] = 2000,
    offset: Offset = 0,
    among: Annotated[
        int, Query(ge=1, le=1000, description="only between so many peers, those that have been here longest")
    ] = 1000,
) -> object:
    """Connections between the peers that are here now, at most 2,000 of them."""
    found = queries.connections(find(name), time.time(), among=among)
    return page(request, response, found[offset : offset + limit + 1], limit, offset)
