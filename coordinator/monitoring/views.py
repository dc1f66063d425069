"""The operator's page, for staff, and the metrics for Prometheus."""

from __future__ import annotations

import hmac
import time

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST

from coordinator.monitoring import metrics, overview


@never_cache
@login_required
@require_safe
def operator(request: HttpRequest) -> HttpResponse:
    """Problems and their fixes, and the state of everything behind them."""
    if not getattr(request.user, "is_staff", False):
        raise Http404
    now = time.time()
    return render(request, "monitoring/operator.html", {"now": now, **overview.overview(now)})


@never_cache
@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """All metrics in Prometheus' text format. With HIVE_METRICS_TOKEN set, only for who sends it as a bearer token."""
    if settings.METRICS_TOKEN:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
            return HttpResponse(
                "a bearer token is needed\n", status=401, content_type="text/plain", headers={"WWW-Authenticate": "Bearer"}
            )
    return HttpResponse(metrics.text(time.time()), content_type=CONTENT_TYPE_LATEST)
