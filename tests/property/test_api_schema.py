"""The OpenAPI description against the API, by schemathesis: made-up requests, good and bad, to every operation.

Its checks: no server error; every status, content type, header and body as described; bad parameters refused, good ones
taken; unknown methods refused with 405; routes that need a token refuse who has none. Run it for longer with `-m slow`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.utils import timezone
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from agent.identity import Identity
from agent.manifest import GPTModel, Manifest
from agent.reports import Event, Hello, HostedExpert, Report
from coordinator.accounts.actions import link_machine, make_token
from coordinator.accounts.models import SCOPES, User
from coordinator.api.common import PerAddress
from coordinator.experiments.actions import publish
from coordinator.leaderboard import derive, scores, teams
from coordinator.limits import KeyedBuckets
from coordinator.monitoring.overlay import examine_all
from coordinator.telemetry import rollups
from coordinator.telemetry.intake import Submission
from coordinator.telemetry.models import Resolution
from coordinator.telemetry.store import open_session, store

DESCRIPTION = "/api/v1/openapi.json"
PEER = Identity.from_seed(b"p" * 32)
GOOD = {"name": "gpt-crowd", "peer": str(PEER.peer_id), "slug": "bees", "revision": 1}
"""Path parameters that name something: made-up ones would see 404 only."""


@pytest.fixture
def inhabited(db: None, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A site with something of everything, and no rate limit. Gives a token."""
    settings.STATE_DIR = tmp_path
    now = time.time()
    monkeypatch.setattr(PerAddress, "allow_request", lambda *_: True)
    monkeypatch.setattr(KeyedBuckets, "take", lambda *_: True)
    manifest = Manifest(
        name="gpt-crowd", revision=1, title="GPT", description="It learns.", model=GPTModel(grid=(2, 2), layers=1)
    )
    experiment = publish(manifest).experiment
    user = User.objects.create_user("bee@example.org", "long enough for it", display_name="Bee", is_listed=True)
    link_machine(user, str(PEER.peer_id), "bee", timezone.now())
    teams.create(user, "Bees")
    fields = {
        "tokens": 64,
        "loss": 2.0,
        "loss_batches": 1,
        "experts": (HostedExpert(uid="ffn0.0.0", epoch=1, version=2, rows=3),),
    }
    items = (
        Report(sequence=1, at=now - 70, stage="training"),
        Report(sequence=2, at=now - 1, stage="training", **fields),  # type: ignore[arg-type]
        Event(sequence=3, at=now, name="sample", detail={"step": 1, "prompt": "def ", "text": "main():"}),
    )
    hello = Hello(peer=str(PEER.peer_id), experiment="gpt-crowd", session="0123456789abcdef", at=int(now), version="0.1.0")
    session = open_session(experiment, hello, now)
    store([Submission(session_id=session, experiment="gpt-crowd", items=items, received_at=now, settle=lambda _: None)], now)
    rollups.roll_up_seconds(now)
    rollups.roll_up(Resolution.SECOND, Resolution.MINUTE, now)
    derive.derive(now)
    scores.compute(now, force=True)
    examine_all(now)
    _, token = make_token(user, "all", list(SCOPES))
    for signal in (request_started, request_finished):  # they would close the test's own connection
        signal.disconnect(close_old_connections)
    yield token
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


schema = schemathesis.openapi.from_wsgi(
    DESCRIPTION, get_wsgi_application(), config=schemathesis.Config.from_dict({"generation": {"mode": "all", "database": "none"}})
)
SHORT = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(SHORT, max_examples=150)


@schema.parametrize()
@SHORT
def test_it_does_what_it_says(case: Any, inhabited: str) -> None:
    ask(case, inhabited)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@schema.parametrize()
@LONG
def test_it_does_what_it_says_at_length(case: Any, inhabited: str) -> None:
    ask(case, inhabited)


def ask(case: Any, token: str) -> None:
    """Send a made-up request about things that exist, where its names fit, and check the answer."""
    if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
        case.path_parameters = {name: GOOD.get(name, value) for name, value in (case.path_parameters or {}).items()}
    headers = {"Accept-Encoding": "identity"}
    spoilt = (
        {place.value for place, info in case.meta.components.items() if info.mode is GenerationMode.NEGATIVE}
        if case.meta
        else set()
    )
    if "header" not in spoilt:  # else the missing token is what is wrong with it
        headers["Authorization"] = f"Bearer {token}"
    # a signature, a code, or sizes that fit together: not made up by chance
    rare = case.operation.path.endswith(("/admission", "/device/token", "/organizer/experiments", "/estimate", "{name}/manifest"))
    case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance] if rare else None)
