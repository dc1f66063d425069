"""Every HTTP address of the site."""

from django.urls import include, path, re_path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView

from coordinator.api.v1 import api, nothing_here
from coordinator.dashboard.health import live, ready

urlpatterns = [
    path("healthz", live, name="live"),
    path("readyz", ready, name="ready"),
    path("favicon.ico", require_safe(RedirectView.as_view(url="/static/site/favicon.svg", permanent=True))),
    path("api/v1/", api.urls),
    re_path(r"^api/", nothing_here),
    path("", include("coordinator.accounts.urls")),
    path("", include("coordinator.experiments.urls")),
    path("", include("coordinator.admission.urls")),
    path("", include("coordinator.leaderboard.urls")),
    path("", include("coordinator.monitoring.urls")),
    path("", include("coordinator.dashboard.urls")),
]

handler404 = "coordinator.dashboard.views.not_found"
handler429 = "coordinator.accounts.views.too_many"
