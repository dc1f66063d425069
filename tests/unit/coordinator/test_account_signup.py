"""Sign-up and the confirmation of the mail address."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client

from coordinator.accounts.models import User

from .conftest import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_limits() -> None:
    cache.clear()


def sign_up(client: Client, email: str = "Alice@Example.org", password: str = PASSWORD, **more: str) -> Any:
    return client.post("/accounts/signup/", {"email": email, "password1": password, **more})


def link_in(text: str) -> str:
    found = re.search(r"http://testserver(/accounts/confirm-email/[^\s]+)", text)
    assert found, text
    return found[1]


def test_from_the_form_to_the_confirmed_account(client: Client) -> None:
    response = sign_up(client)
    assert response.status_code == 302 and response.headers["Location"] == "/accounts/confirm-email/"
    assert "Look into your mail" in client.get("/accounts/confirm-email/").content.decode()
    assert client.get("/account/").status_code == 302, "not before the address is confirmed"
    (letter,) = mail.outbox
    assert letter.to == ["alice@example.org"] and letter.subject.startswith("[Hive] ")
    link = link_in(str(letter.body))
    assert "alice@example.org" in client.get(link).content.decode()
    assert not User.objects.get().emailaddress_set.get().verified, "looking at the page confirms nothing: scanners do that"
    assert client.post(link).status_code == 302
    assert User.objects.get().emailaddress_set.get().verified
    assert client.get("/account/").status_code == 200, "the browser that signed up is signed in"


def test_in_another_browser_the_link_confirms_and_signs_nobody_in(client: Client) -> None:
    sign_up(client)
    other = Client()
    other.post(link_in(str(mail.outbox[0].body)))
    assert User.objects.get().emailaddress_set.get().verified
    assert other.get("/account/").status_code == 302


def test_an_address_that_has_an_account_is_not_given_away(client: Client, organizer: User) -> None:
    response = sign_up(client, "alice@example.org")
    assert response.headers["Location"] == "/accounts/confirm-email/", "the same answer as for a new one"
    assert User.objects.count() == 1
    assert "already" in str(mail.outbox[0].body)


@pytest.mark.parametrize("password", ["short", "password123", "alice@example.org"])
def test_bad_passwords(client: Client, password: str) -> None:
    response = sign_up(client, password=password)
    assert response.status_code == 200 and "errorlist" in response.content.decode()
    assert not User.objects.exists() and not mail.outbox
    assert 'value="Alice@Example.org"' in response.content.decode(), "what was typed is kept"


def test_a_robot_that_fills_in_everything_makes_no_account(client: Client) -> None:
    sign_up(client, website="http://spam.example")
    assert not User.objects.exists()


def test_passwords_are_kept_as_argon2(client: Client) -> None:
    sign_up(client)
    assert User.objects.get().password.startswith("argon2$")


def test_the_link_runs_out(client: Client) -> None:
    page = client.get("/accounts/confirm-email/nonsense/").content.decode()
    assert "This link has run out" in page
    assert client.post("/accounts/confirm-email/nonsense/").status_code == 404


def test_an_operator_can_close_it(client: Client, settings: Any) -> None:
    settings.ACCOUNT_SIGNUP_OPEN = False
    assert "No new accounts here" in client.get("/accounts/signup/").content.decode()
    sign_up(client)
    assert not User.objects.exists()


def test_it_is_limited_by_address(client: Client) -> None:
    statuses = [sign_up(client, f"bee{i}@example.org").status_code for i in range(25)]
    assert statuses[0] == 302 and statuses[-1] == 429
    assert "Retry" in (page := client.post("/accounts/signup/", {}).content.decode()) or "too" in page.lower()
