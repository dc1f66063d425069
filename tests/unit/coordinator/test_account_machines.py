"""The account's machines: peers that proved to be its own."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.utils import timezone

from coordinator.accounts import actions, queries
from coordinator.accounts.models import READ, Machine, User
from coordinator.experiments.models import Experiment

from .conftest import Agent, report, signed_in
from .test_store import submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def machine(volunteer: User, bob: Agent) -> Machine:
    return actions.link_machine(volunteer, bob.peer, "the old laptop", timezone.now())


def test_what_each_was_last_seen_doing(machine: Machine, volunteer: User, experiment: Experiment, bob: Agent) -> None:
    page = signed_in(volunteer).get("/account/machines/").content.decode()
    assert "the old laptop" in page and "has not reported yet" in page and bob.peer in page
    submit(experiment, bob, report(1, time.time(), tokens=1_234_567), at=time.time())
    page = signed_in(volunteer).get("/account/machines/").content.decode()
    assert "1.23 M" in page and "training" in page and "/experiments/gpt-crowd/" in page


def test_none_yet(volunteer: User) -> None:
    assert "hive-agent login --coordinator http://testserver" in signed_in(volunteer).get("/account/machines/").content.decode()


def test_others_machines_are_not_listed(machine: Machine, stranger: User) -> None:
    assert "the old laptop" not in signed_in(stranger).get("/account/machines/").content.decode()


def test_unlinking(machine: Machine, volunteer: User, stranger: User) -> None:
    path = f"/account/machines/{machine.pk}/unlink/"
    assert signed_in(stranger).post(path).status_code == 404 and Machine.objects.exists()
    assert signed_in(volunteer).post(path).status_code == 302 and not Machine.objects.exists()
    assert signed_in(volunteer).post(path).status_code == 404


def test_a_peer_is_whose_account_proved_it_last(machine: Machine, stranger: User, bob: Agent) -> None:
    actions.link_machine(stranger, bob.peer, "mine now", timezone.now())
    found = Machine.objects.get()
    assert (found.user, found.label) == (stranger, "the old laptop")


def test_names_only_of_those_who_want_it(machine: Machine, volunteer: User, bob: Agent) -> None:
    assert queries.shown_names([bob.peer]) == {}
    User.objects.filter(pk=volunteer.pk).update(is_listed=True)
    assert queries.shown_names([bob.peer]) == {bob.peer: "Bob"}
    User.objects.filter(pk=volunteer.pk).update(display_name="")
    assert queries.shown_names([bob.peer]) == {}


def test_in_the_api(machine: Machine, volunteer: User, bob: Agent, experiment: Experiment) -> None:
    _, text = actions.make_token(volunteer, "x", [READ])
    client = Client(HTTP_AUTHORIZATION=f"Bearer {text}")
    (found,) = client.get("/api/v1/account/machines").json()
    assert found["peer"] == bob.peer and found["tokens"] is None and found["experiment"] is None
    submit(experiment, bob, report(1, time.time(), tokens=5), at=time.time())
    (found,) = client.get("/api/v1/account/machines").json()
    assert (found["tokens"], found["experiment"], found["label"]) == (5, "gpt-crowd", "the old laptop")
