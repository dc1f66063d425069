"""Who may take part: the pages for who wants to, and for organizers. Alice organizes, Bob volunteers, Charlie is a stranger."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.utils import timezone
from msgspec.structs import replace

from agent.manifest import Manifest
from coordinator.accounts.models import User
from coordinator.admission import actions
from coordinator.admission import mail as letters
from coordinator.admission.models import Invite, Membership, standing
from coordinator.experiments.actions import create, publish, set_status
from coordinator.experiments.models import Experiment, Role

from .conftest import SMALL, signed_in

pytestmark = pytest.mark.django_db
BEES = replace(SMALL, name="bees", title="Bees")


def opened(organizer: User, manifest: Manifest) -> Experiment:
    made = create(manifest, organizer)
    set_status(made, "open", organizer)
    return Experiment.objects.get(pk=made.pk)


@pytest.fixture
def by_approval(organizer: User) -> Experiment:
    return opened(organizer, replace(BEES, admission="approval"))


@pytest.fixture
def by_invitation(organizer: User) -> Experiment:
    return opened(organizer, replace(BEES, admission="invite"))


def text(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:1000]
    return str(response.content.decode())


# Approval


def test_from_the_request_to_the_command(by_approval: Experiment, organizer: User, volunteer: User) -> None:
    assert "To ask them, sign in" in text(Client().get("/experiments/bees/join/"))
    bob, alice = signed_in(volunteer), signed_in(organizer)
    assert "Ask to take part" in text(bob.get("/experiments/bees/join/"))
    page = text(bob.post("/experiments/bees/join/ask/", {"message": "I have a <b>GPU</b>"}, follow=True))
    assert "Your request waits" in page
    page = text(alice.get("/experiments/bees/people/"))
    assert "I have a &lt;b&gt;GPU" in page and "bob@example.org" in page
    path = f"/experiments/bees/people/members/{volunteer.public_id}/"
    alice.post(path, {"decision": "admit"})
    page = text(bob.get("/experiments/bees/join/"))
    assert "You may take part" in page and "hive-agent login --coordinator http://testserver" in page
    alice.post(path, {"decision": "remove"})
    assert "You were removed" in text(bob.get("/experiments/bees/join/"))
    bob.post("/experiments/bees/join/ask/", {"message": "again"})
    assert standing(by_approval, volunteer) == "removed", "asking again undoes nothing"
    alice.post(path, {"decision": "admit"})
    assert standing(by_approval, volunteer) == "admitted"


def test_a_request_is_declined(by_approval: Experiment, organizer: User, volunteer: User) -> None:
    actions.ask(by_approval, volunteer, "")
    signed_in(organizer).post(f"/experiments/bees/people/members/{volunteer.public_id}/", {"decision": "refuse"})
    assert "Not this time" in text(signed_in(volunteer).get("/experiments/bees/join/"))


def test_letters(by_approval: Experiment, organizer: User, volunteer: User, stranger: User, settings: Any) -> None:
    settings.SITE_URL = "https://hive.example"
    for user in (volunteer, stranger):
        signed_in(user).post("/experiments/bees/join/ask/", {"message": "secret words"})
    (letter,) = mail.outbox
    assert letter.to == ["alice@example.org"] and letter.subject == "[Hive] Somebody asks to take part in Bees"
    assert "https://hive.example/experiments/bees/people/" in letter.body and "secret words" not in str(letter.body)
    alice = signed_in(organizer)
    alice.post(f"/experiments/bees/people/members/{volunteer.public_id}/", {"decision": "admit"})
    alice.post(f"/experiments/bees/people/members/{volunteer.public_id}/", {"decision": "admit"})
    assert [m.to for m in mail.outbox[1:]] == [["bob@example.org"]], "told once"
    assert "You may take part in Bees" in str(mail.outbox[1].body) and "/experiments/bees/join/" in str(mail.outbox[1].body)


def test_a_title_cannot_add_headers_to_a_letter(organizer: User, volunteer: User) -> None:
    title = "Bees\nBcc: all@example.org"
    experiment = opened(organizer, replace(BEES, title=title, admission="approval"))
    actions.ask(experiment, volunteer, "")
    letters.somebody_waits(experiment, "https://hive.example")
    (letter,) = mail.outbox
    assert letter.subject == "[Hive] Somebody asks to take part in Bees Bcc: all@example.org" and letter.recipients() == [
        organizer.email
    ]


def test_decisions_that_do_not_apply(by_approval: Experiment, organizer: User, volunteer: User) -> None:
    alice = signed_in(organizer)
    path = f"/experiments/bees/people/members/{volunteer.public_id}/"
    assert alice.post(path, {"decision": "crown"}).status_code == 400
    assert "Nothing changed" in text(alice.post(path, {"decision": "remove"}, follow=True))
    actions.ask(by_approval, volunteer, "")
    assert "Nothing changed" in text(alice.post(path, {"decision": "remove"}, follow=True))
    assert standing(by_approval, volunteer) == "requested"


def test_requests_are_bounded(by_approval: Experiment, volunteer: User, stranger: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "REQUESTS_MAX", 1)
    actions.ask(by_approval, volunteer, "")
    with pytest.raises(actions.Refused, match="Too many requests"):
        actions.ask(by_approval, stranger, "")
    page = signed_in(stranger).post("/experiments/bees/join/ask/", {"message": "x" * 501})
    assert page.status_code == 400 and "x" * 501 in page.content.decode()


def test_an_open_experiment_asks_nobody(organizer: User, volunteer: User) -> None:
    opened(organizer, BEES)
    assert "Everybody may take part" in text(Client().get("/experiments/bees/join/"))
    signed_in(volunteer).post("/experiments/bees/join/ask/", {"message": ""})
    assert not Membership.objects.exists()


# Invitations


def link_of(alice: Client, **fields: str) -> str:
    """Make an invitation through the page; returns its path."""
    text(alice.post("/experiments/bees/people/invite/", {"uses_max": "1", "life": "7", **fields}, follow=True))
    found = re.search(r"http://testserver(/invitations/\w+/)", text(alice.get("/experiments/bees/people/")))
    assert found
    return found[1]


def test_a_link_lets_in_whoever_accepts_it(by_invitation: Experiment, organizer: User, volunteer: User, stranger: User) -> None:
    alice = signed_in(organizer)
    link = link_of(alice, note="for Bob")
    assert "To accept, sign in" in text(Client().get(link))
    asked = Client().post(link)
    assert asked.headers["Location"] == f"/accounts/login/?next={link}"
    bob = signed_in(volunteer)
    assert "Accept as bob@example.org" in text(bob.get(link)) and standing(by_invitation, volunteer) == ""
    assert "You may take part" in text(bob.post(link, follow=True))
    assert "You are in already" in text(bob.get(link), 410)
    assert "has run out" in text(signed_in(stranger).get(link), 410), "it was for one"
    signed_in(stranger).post(link)
    assert standing(by_invitation, stranger) == ""
    assert "1 of 1" in text(alice.get("/experiments/bees/people/"))


def test_accepting_twice_uses_it_once(by_invitation: Experiment, organizer: User, volunteer: User) -> None:
    link = link_of(signed_in(organizer), uses_max="2")
    for _ in range(2):
        signed_in(volunteer).post(link)
    assert Invite.objects.get().uses == 1


def test_a_withdrawn_or_old_link_lets_in_nobody(by_invitation: Experiment, organizer: User, volunteer: User) -> None:
    alice = signed_in(organizer)
    link = link_of(alice, uses_max="", life="")
    Invite.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "has run out" in text(signed_in(volunteer).get(link), 410)
    Invite.objects.update(expires_at=None)
    alice.post(f"/experiments/bees/people/invitations/{Invite.objects.get().pk}/withdraw/")
    signed_in(volunteer).post(link)
    assert standing(by_invitation, volunteer) == ""
    assert alice.post(f"/experiments/bees/people/invitations/{Invite.objects.get().pk}/withdraw/").status_code == 404


def test_who_was_removed_does_not_come_back_by_a_link(by_invitation: Experiment, organizer: User, volunteer: User) -> None:
    link = link_of(signed_in(organizer), uses_max="5")
    Membership.objects.create(experiment=by_invitation, user=volunteer, standing="removed")
    assert "a link does not undo that" in text(signed_in(volunteer).post(link, follow=True))


@pytest.mark.parametrize("code", ["a" * 32, "short", "a" * 8 + "0" * 24])
def test_a_code_that_is_none(by_invitation: Experiment, organizer: User, code: str) -> None:
    link_of(signed_in(organizer))
    assert Client().get(f"/invitations/{code}/").status_code == 404


def test_the_table_alone_makes_no_link(by_invitation: Experiment, organizer: User) -> None:
    code = link_of(signed_in(organizer)).split("/")[2]
    kept = str(list(Invite.objects.values()))
    assert code[:8] in kept and code[8:] not in kept
    assert Client().get(f"/invitations/{code[:-1]}{'0' if code[-1] != '0' else '1'}/").status_code == 404


@pytest.mark.parametrize("fields", [{"uses_max": "0"}, {"uses_max": "x"}, {"life": "3"}, {"note": "x" * 81}])
def test_mistakes_make_no_invitation(by_invitation: Experiment, organizer: User, fields: dict[str, str]) -> None:
    response = signed_in(organizer).post("/experiments/bees/people/invite/", {"uses_max": "1", "life": "7", **fields})
    assert response.status_code == 400 and "<details open" in response.content.decode() and not Invite.objects.exists()


def test_invitations_are_bounded(by_invitation: Experiment, organizer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "INVITES_MAX", 1)
    alice = signed_in(organizer)
    link_of(alice)
    assert "at most 1 live" in text(alice.post("/experiments/bees/people/invite/", {"uses_max": "", "life": ""}, follow=True))


def test_another_experiments_invitation_is_not_withdrawn_here(
    by_invitation: Experiment, organizer: User, volunteer: User
) -> None:
    link_of(signed_in(organizer))
    create(replace(BEES, name="wasps"), volunteer)
    pk = Invite.objects.get().pk
    assert signed_in(volunteer).post(f"/experiments/wasps/people/invitations/{pk}/withdraw/").status_code == 404
    assert Invite.objects.get().is_live


# Organizers


def test_owners_appoint_and_dismiss(by_approval: Experiment, organizer: User, volunteer: User, stranger: User) -> None:
    alice, bob = signed_in(organizer), signed_in(volunteer)
    text(alice.post("/experiments/bees/people/organizers/", {"email": " BOB@example.org "}, follow=True))
    assert Role.objects.get(user=volunteer).kind == "co-organizer"
    assert text(bob.get("/experiments/bees/people/")) and "Appoint" not in text(bob.get("/experiments/bees/people/"))
    assert bob.post("/experiments/bees/people/organizers/", {"email": "charlie@example.org"}).status_code == 404
    assert bob.post(f"/experiments/bees/people/organizers/{volunteer.public_id}/dismiss/").status_code == 404
    page = alice.post("/experiments/bees/people/organizers/", {"email": "bob@example.org"})
    assert page.status_code == 400 and "organize this experiment already" in page.content.decode()
    alice.post(f"/experiments/bees/people/organizers/{volunteer.public_id}/dismiss/")
    assert bob.get("/experiments/bees/people/").status_code == 404
    assert alice.post(f"/experiments/bees/people/organizers/{organizer.public_id}/dismiss/").status_code == 404, "owners stay"


def test_an_address_without_an_account_is_told(by_approval: Experiment, organizer: User, stranger: User) -> None:
    alice = signed_in(organizer)
    page = alice.post("/experiments/bees/people/organizers/", {"email": "nobody@example.org"})
    assert page.status_code == 400 and "Nobody here has an account" in page.content.decode()
    stranger.emailaddress_set.update(verified=False)
    assert alice.post("/experiments/bees/people/organizers/", {"email": "charlie@example.org"}).status_code == 400


def test_one_of_the_coordinators_own_belongs_to_its_staff(organizer: User) -> None:
    publish(BEES)
    assert signed_in(organizer).get("/experiments/bees/people/").status_code == 404
    User.objects.filter(pk=organizer.pk).update(is_staff=True)
    assert "belongs to its staff" in text(signed_in(organizer).get("/experiments/bees/people/"))


def test_the_page_costs_few_queries(by_approval: Experiment, organizer: User, django_assert_max_num_queries: Any) -> None:
    for i in range(20):
        user = User.objects.create(email=f"bee{i}@example.org")
        Membership.objects.create(experiment=by_approval, user=user, standing="requested" if i % 2 else "admitted")
    alice = signed_in(organizer)
    with django_assert_max_num_queries(14):
        alice.get("/experiments/bees/people/")
