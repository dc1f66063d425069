"""What the modules of the API share: names, pages of lists, errors, and how fast somebody may ask."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Schema
from ninja.errors import HttpError
from ninja.throttling import BaseThrottle

from coordinator.experiments.models import Experiment
from coordinator.limits import KeyedBuckets, client_key

T = TypeVar("T")

Name = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,63}$", description="the experiment's name")]
Peer = Annotated[str, Path(pattern=r"^[a-z2-7]{52}$", description="the peer's id, its public key")]
Limit = Annotated[int, Query(ge=1, le=200, description="rows of a page")]
Offset = Annotated[int, Query(ge=0, le=1_000_000, description="rows to pass over")]


class Detail(Schema):
    """What every refusal says: a sentence for people."""

    detail: str


class Wrong(Schema):
    """One parameter that was refused."""

    where: str
    """For example `query.limit`."""
    what: str


class Invalid(Detail):
    """A request whose parameters do not fit: 422."""

    errors: list[Wrong]


class PerAddress(BaseThrottle):
    """So many requests a second from one address, per process. uvicorn has put the client's address behind a known proxy."""

    PER_S: ClassVar[float] = 20.0
    BURST: ClassVar[float] = 400.0
    ADDRESSES_MAX: ClassVar[int] = 4096

    def __init__(self) -> None:
        self.buckets = KeyedBuckets(per_s=self.PER_S, burst=self.BURST, keys_max=self.ADDRESSES_MAX)

    def allow_request(self, request: HttpRequest) -> bool:
        return self.buckets.take(client_key(request.META.get("REMOTE_ADDR")), time.monotonic())

    def wait(self) -> float:
        """Seconds until one more is allowed."""
        return 1 / self.PER_S


def find(name: str) -> Experiment:
    """The published experiment, or the 404 that every route gives."""
    experiment = Experiment.objects.visible_to().filter(name=name).first()
    if experiment is None:
        raise HttpError(404, f"There is no experiment {name!r} here.")
    return experiment


def page(request: HttpRequest, response: HttpResponse, rows: Sequence[T], limit: int, offset: int) -> Sequence[T]:
    """The first `limit` of `rows`, which has one more if there is a next page; the header `Link` then names it (RFC 8288)."""
    if len(rows) > limit:
        link(request, response, offset=offset + limit)
    return rows[:limit]


def link(request: HttpRequest, response: HttpResponse, **changed: object) -> None:
    """Name the next page: this request's parameters with some `changed`."""
    query = request.GET.copy()
    for name, value in changed.items():
        query[name] = str(value)
    response["Link"] = f'<{request.path}?{query.urlencode()}>; rel="next"'


def as_json(response: HttpResponse, found: Schema) -> HttpResponse:
    """`found`, already of the shape that the route promises, written at once: validating thousands of points again takes long."""
    direct = HttpResponse(found.model_dump_json(), content_type="application/json; charset=utf-8")
    if "Link" in response:
        direct["Link"] = response["Link"]
    return direct
