"""What the modules of the API share: names, errors, and how fast somebody may ask."""

from __future__ import annotations

import time
from typing import Annotated, ClassVar

from django.http import HttpRequest
from ninja import Path, Schema
from ninja.errors import HttpError
from ninja.throttling import BaseThrottle

from coordinator.experiments.models import Experiment
from coordinator.limits import KeyedBuckets

Name = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,63}$", description="the experiment's name")]


class Detail(Schema):
    detail: str


class PerAddress(BaseThrottle):
    """So many requests a second from one address, per process. uvicorn has put the client's address behind a known proxy."""

    PER_S: ClassVar[float] = 20.0
    BURST: ClassVar[float] = 400.0
    ADDRESSES_MAX: ClassVar[int] = 4096

    def __init__(self) -> None:
        self.buckets = KeyedBuckets(per_s=self.PER_S, burst=self.BURST, keys_max=self.ADDRESSES_MAX)

    def allow_request(self, request: HttpRequest) -> bool:
        return self.buckets.take(str(request.META.get("REMOTE_ADDR", "")), time.monotonic())

    def wait(self) -> float:
        """Seconds until one more is allowed."""
        return 1 / self.PER_S


def find(name: str) -> Experiment:
    """The published experiment, or the 404 that every route gives."""
    experiment = Experiment.objects.visible_to().filter(name=name).first()
    if experiment is None:
        raise HttpError(404, f"There is no experiment {name!r} here.")
    return experiment
