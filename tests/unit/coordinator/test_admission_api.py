"""The API that gives an agent its certificate."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import msgspec
import pytest
from django.test import Client
from msgspec.structs import replace

from agent.admission import DAY_S, REQUEST_PURPOSE, AdmissionRequest, Rule
from agent.identity import PeerId
from coordinator.accounts import actions as accounts
from coordinator.accounts.models import JOIN, READ, Machine, User
from coordinator.admission.models import IssuedCertificate, Membership
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment

from .conftest import SMALL, Agent

pytestmark = pytest.mark.django_db


@pytest.fixture
def bees(db: None) -> Experiment:
    return publish(replace(SMALL, name="bees", admission="invite")).experiment


@pytest.fixture
def token(volunteer: User) -> str:
    return accounts.make_token(volunteer, "x", [JOIN])[1]


def request(agent: Agent, token: str, *, experiment: str = "bees", age_s: float = 0, **changes: Any) -> bytes:
    asked = AdmissionRequest(peer=agent.peer, experiment=experiment, at=int(time.time() - age_s), label="laptop")
    asked = replace(asked, signature=agent.identity.sign(REQUEST_PURPOSE, asked.signed_bytes(token)))
    return msgspec.json.encode(replace(asked, **changes))


def ask(body: bytes, token: str, name: str = "bees") -> Any:
    client = Client(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client.post(f"/api/v1/experiments/{name}/admission", body, content_type="application/json")


def admit(experiment: Experiment, user: User, standing: str = "admitted") -> None:
    Membership.objects.update_or_create(experiment=experiment, user=user, defaults={"standing": standing})


def test_a_member_gets_a_certificate_that_agents_accept(bees: Experiment, bob: Agent, volunteer: User, token: str) -> None:
    admit(bees, volunteer)
    response = ask(request(bob, token), token)
    assert response.status_code == 200, response.content
    body = response.json()
    rule = Rule(experiment="bees", policy="invite", key=PeerId.parse(bees.revision.key))  # type: ignore[union-attr]
    found = rule.check(bob.identity.peer_id, base64.b64decode(body["certificate"]), time.time())
    assert (found.account, found.name) == (volunteer.public_id, "")
    assert found.ends_at - found.issued_at == 14 * DAY_S and abs(body["ends_at"] - found.ends_at) < 5
    machine = Machine.objects.get()
    assert (machine.user, machine.peer, machine.label) == (volunteer, bob.peer, "laptop")
    assert IssuedCertificate.objects.get().peer == bob.peer


def test_a_name_is_in_it_only_if_it_may_be_shown(bees: Experiment, bob: Agent, volunteer: User, token: str) -> None:
    admit(bees, volunteer)
    User.objects.update(is_listed=True)
    assert b"Bob" in base64.b64decode(ask(request(bob, token), token).json()["certificate"])


@pytest.mark.parametrize(
    ("standing", "says"),
    [
        ("", "it takes an invitation link"),
        ("requested", "has not been answered yet"),
        ("refused", "declined"),
        ("removed", "removed this account"),
    ],
)
def test_others_are_told_why_not(bees: Experiment, bob: Agent, volunteer: User, token: str, standing: str, says: str) -> None:
    if standing:
        admit(bees, volunteer, standing)
    response = ask(request(bob, token), token)
    assert response.status_code == 403
    detail = response.json()["detail"]
    assert says in detail and "http://testserver/experiments/bees/join/" in detail
    assert not Machine.objects.exists()


def test_anybody_with_an_account_in_an_open_experiment(experiment: Experiment, bob: Agent, token: str) -> None:
    assert ask(request(bob, token, experiment="gpt-crowd"), token, "gpt-crowd").status_code == 200


def test_a_request_is_of_that_peer_token_experiment_and_time(
    bees: Experiment, bob: Agent, charlie: Agent, volunteer: User, token: str
) -> None:
    admit(bees, volunteer)
    other = accounts.make_token(volunteer, "y", [JOIN])[1]
    for body, says in (
        (request(bob, token, peer=charlie.peer), "not signed by the peer"),
        (request(bob, other), "not signed by the peer"),
        (request(bob, token, label="desk"), "not signed by the peer"),
        (request(bob, token, experiment="wasps"), "is for experiment 'wasps'"),
        (request(bob, token, age_s=400), "too old"),
        (request(bob, token, age_s=-400), "too old"),
        (request(bob, token, peer="x"), "cannot be read"),
        (b"{}", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[" * 1000, "cannot be read"),
        (json.dumps({"x": "y" * 3000}).encode(), "more than 2048 bytes"),
    ):
        response = ask(body, token)
        assert response.status_code == 400 and says in response.json()["detail"], (says, response.content)
    assert not IssuedCertificate.objects.exists()


def test_no_token_no_certificate(bees: Experiment, bob: Agent, volunteer: User, token: str) -> None:
    admit(bees, volunteer)
    reader = accounts.make_token(volunteer, "y", [READ])[1]
    for wrong in ("", "nonsense", token[:-1] + ("a" if token[-1] != "a" else "b"), reader):
        assert ask(request(bob, wrong), wrong).status_code == 401
    accounts.revoke_token(volunteer, volunteer.tokens.get(name="x").pk)
    assert ask(request(bob, token), token).status_code == 401


def test_an_experiment_that_is_not_there(draft: Experiment, bob: Agent, token: str) -> None:
    for name in ("secret", "nope"):
        assert ask(request(bob, token, experiment=name), token, name).status_code == 404


def test_asking_again_renews(bees: Experiment, bob: Agent, volunteer: User, token: str) -> None:
    admit(bees, volunteer)
    for _ in range(2):
        assert ask(request(bob, token), token).status_code == 200
    assert IssuedCertificate.objects.count() == 1 == Machine.objects.count()
