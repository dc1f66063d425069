"""Health: `/healthz` says that the process answers, `/readyz` that it can do its work."""

from __future__ import annotations

import time

from django.conf import settings
from django.core.cache import cache
from django.db import Error as DatabaseProblem
from django.http import HttpRequest, JsonResponse
from redis.exceptions import RedisError

from coordinator.telemetry.models import CoordinatorRun

BEAT_LATE_S = 30.0


def live(request: HttpRequest) -> JsonResponse:
    """Always 200 while the process answers."""
    return JsonResponse({"status": "ok"})


def ready(request: HttpRequest) -> JsonResponse:
    """200 if the database and Redis answer and the background tasks run, else 503 that names what does not."""
    problems = {}
    try:
        run = CoordinatorRun.objects.order_by("-beat_at").first()
    except DatabaseProblem as e:
        problems["database"] = str(e)[:200]
    else:
        if run is None or time.time() - run.beat_at > BEAT_LATE_S:
            problems["tasks"] = "no heartbeat from Celery; is the worker, and is beat, running?"
    if settings.REDIS_URL:
        try:
            cache.get("readiness")
        except RedisError as e:
            problems["redis"] = str(e)[:200]
    return JsonResponse({"status": "not ready" if problems else "ok", "problems": problems}, status=503 if problems else 200)
