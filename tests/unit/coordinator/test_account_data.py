"""Export and deletion of an account."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.utils import timezone

from coordinator.accounts import actions
from coordinator.accounts.models import JOIN, ApiToken, Machine, User
from coordinator.admission.models import Membership
from coordinator.experiments.actions import create
from coordinator.experiments.models import Experiment, Role
from coordinator.leaderboard import teams
from coordinator.telemetry.models import Session

from .conftest import SMALL, Agent, just_asked, report, signed_in
from .test_store import submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def busy(volunteer: User, experiment: Experiment, bob: Agent) -> str:
    """Bob has one of everything; returns his token."""
    actions.link_machine(volunteer, bob.peer, "laptop", timezone.now())
    submit(experiment, bob, report(1, time.time(), tokens=99, rows_served=7), at=time.time())
    Membership.objects.create(experiment=experiment, user=volunteer, standing="admitted", message="please")
    Role.objects.create(experiment=experiment, user=volunteer, kind="owner")
    teams.create(volunteer, "Bees")
    return actions.make_token(volunteer, "desk", [JOIN])[1]


def test_everything_that_is_known_is_in_the_export(busy: str, volunteer: User, bob: Agent) -> None:
    response = signed_in(volunteer).get("/account/data/export/")
    assert "attachment" in response.headers["Content-Disposition"]
    found = response.json()
    assert found["account"]["email"] == "bob@example.org" and found["mail_addresses"][0]["verified"]
    assert found["machines"][0]["peer"] == bob.peer and found["tokens"][0]["name"] == "desk"
    assert found["organizes"][0]["experiment__name"] == "gpt-crowd" and found["takes_part_in"][0]["message"] == "please"
    assert found["work"][0]["tokens"] == 99
    text = response.content.decode()
    assert busy not in text and busy.rpartition("_")[2] not in text and "argon2" not in text
    assert ApiToken.objects.get().digest not in text


def test_the_export_is_ones_own(busy: str, stranger: User) -> None:
    found = signed_in(stranger).get("/account/data/export/").json()
    assert found["account"]["email"] == "charlie@example.org" and not found["machines"] and not found["work"]


def test_deletion_asks_for_the_password_again_and_for_the_address(busy: str, volunteer: User) -> None:
    old = signed_in(volunteer)
    assert "/reauthenticate/" in old.get("/account/delete/").headers["Location"]
    assert "/reauthenticate/" in old.post("/account/delete/", {"email": volunteer.email}).headers["Location"]
    browser = just_asked(volunteer)
    page = browser.get("/account/delete/").content.decode()
    assert "1 token stops working, 1 machine becomes anonymous, and you stop organizing 1 experiment" in page
    response = browser.post("/account/delete/", {"email": "alice@example.org"})
    assert response.status_code == 400 and "not the address of this account" in response.content.decode()
    assert User.objects.filter(pk=volunteer.pk).exists()


def test_deletion(busy: str, volunteer: User, bob: Agent) -> None:
    draft = create(SMALL.__class__(name="plans", revision=1, title="Plans"), volunteer)
    browser = just_asked(volunteer)
    response = browser.post("/account/delete/", {"email": "BOB@example.org"}, follow=True)
    assert "Your account is deleted" in response.content.decode()
    assert not User.objects.filter(email="bob@example.org").exists()
    assert not Machine.objects.exists() and not ApiToken.objects.exists() and not Membership.objects.exists()
    assert actions.find_token(busy, JOIN) is None and browser.get("/account/").status_code == 302
    assert not Experiment.objects.filter(pk=draft.pk).exists(), "a draft that only he had"
    assert Experiment.objects.filter(name="gpt-crowd").exists() and Session.objects.get().peer == bob.peer, "the work stays"
    assert signed_in_nobody(bob)


def signed_in_nobody(bob: Agent) -> bool:
    page = Client().get(f"/peers/{bob.peer}/").content.decode()
    return ">Bob<" not in page and bob.peer in page


def test_a_draft_with_another_organizer_stays(volunteer: User, organizer: User) -> None:
    draft = create(SMALL.__class__(name="plans", revision=1, title="Plans"), volunteer)
    Role.objects.create(experiment=draft, user=organizer, kind="co-organizer")
    actions.delete_account(volunteer)
    assert Experiment.objects.filter(pk=draft.pk).exists()
