"""The ASGI application: HTTP, agents' WebSockets (bearer header, no Origin) and browsers' (checked Origin)."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coordinator.settings")
http = get_asgi_application()

from coordinator.rendezvous.consumers import RendezvousConsumer  # noqa: E402  after the app registry is ready
from coordinator.sockets import NoSuchSocket, OwnOrigin  # noqa: E402
from coordinator.telemetry.consumers import TelemetryConsumer  # noqa: E402
from coordinator.telemetry.live import LiveConsumer  # noqa: E402

NAME = "(?P<name>[a-z0-9-]{1,63})"

websocket = URLRouter(
    [
        re_path(rf"^ws/rendezvous/{NAME}/$", RendezvousConsumer.as_asgi()),
        re_path(rf"^ws/telemetry/{NAME}/$", TelemetryConsumer.as_asgi()),
        re_path(rf"^ws/live/{NAME}/$", OwnOrigin(LiveConsumer.as_asgi())),
        re_path(r"", NoSuchSocket.as_asgi()),
    ]
)

application = ProtocolTypeRouter({"http": http, "websocket": websocket})
