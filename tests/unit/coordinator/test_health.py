"""Health: alive is not ready."""

from __future__ import annotations

import time

import pytest
from django.test import Client

from coordinator.telemetry import membership

pytestmark = pytest.mark.django_db


def test_alive(client: Client, django_assert_max_num_queries: object) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}


def test_ready_needs_the_background_tasks(client: Client) -> None:
    response = client.get("/readyz")
    assert response.status_code == 503 and "Celery" in response.json()["problems"]["tasks"]
    membership.heartbeat(time.time() - 40)
    assert client.get("/readyz").status_code == 503
    membership.heartbeat(time.time())
    assert client.get("/readyz").json() == {"status": "ok", "problems": {}}
