"""A new password: by a link in a mail, or with the old one."""

from __future__ import annotations

import re

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client

from coordinator.accounts.models import User

from .conftest import PASSWORD, signed_in

pytestmark = pytest.mark.django_db
BETTER = "a different long sentence"


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    cache.clear()


def test_reset_by_mail(client: Client, organizer: User) -> None:
    elsewhere = signed_in(organizer)
    response = client.post("/accounts/password/reset/", {"email": "alice@example.org"})
    assert response.status_code == 302 and "If there is an account" in client.get(response.headers["Location"]).content.decode()
    found = re.search(r"http://testserver(/accounts/password/reset/key/[^\s]+)", str(mail.outbox[0].body))
    assert found
    page = client.get(found[1], follow=True)
    assert "Choose a new password" in page.content.decode()
    assert found[1] not in page.request["PATH_INFO"], "the key leaves the address bar"
    done = client.post(page.request["PATH_INFO"], {"password1": BETTER, "password2": BETTER}, follow=True)
    assert "Your password is changed" in done.content.decode() and "again" not in done.redirect_chain[-1][0]
    organizer.refresh_from_db()
    assert organizer.check_password(BETTER)
    assert elsewhere.get("/account/").status_code == 302, "whoever had the old one is signed out"
    assert "This link has run out" in Client().get(found[1], follow=True).content.decode(), "it works once"
    assert len(mail.outbox) == 2, "the owner is told that it was changed"


def test_an_address_without_an_account_gets_the_same_answer(client: Client) -> None:
    response = client.post("/accounts/password/reset/", {"email": "nobody@example.org"})
    assert response.status_code == 302 and "If there is an account" in client.get(response.headers["Location"]).content.decode()


def test_a_bad_new_password_is_told(client: Client, organizer: User) -> None:
    client.post("/accounts/password/reset/", {"email": "alice@example.org"})
    found = re.search(r"http://testserver(/accounts/password/reset/key/[^\s]+)", str(mail.outbox[0].body))
    assert found
    path = client.get(found[1], follow=True).request["PATH_INFO"]
    page = client.post(path, {"password1": "short", "password2": "short"})
    assert "errorlist" in page.content.decode()
    organizer.refresh_from_db()
    assert organizer.check_password(PASSWORD)


def test_letters_are_limited(client: Client, organizer: User) -> None:
    for _ in range(10):
        client.post("/accounts/password/reset/", {"email": "alice@example.org"})
    assert len(mail.outbox) < 10


def test_change_with_the_old_one(organizer: User) -> None:
    browser = signed_in(organizer)
    assert (
        "errorlist"
        in browser.post(
            "/accounts/password/change/", {"oldpassword": "wrong", "password1": BETTER, "password2": BETTER}
        ).content.decode()
    )
    response = browser.post("/accounts/password/change/", {"oldpassword": PASSWORD, "password1": BETTER, "password2": BETTER})
    assert response.status_code == 302
    organizer.refresh_from_db()
    assert organizer.check_password(BETTER)
    assert browser.get("/account/").status_code == 200, "this browser stays signed in"
