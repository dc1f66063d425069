"""Sign-in and sign-out."""

from __future__ import annotations

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


def sign_in(client: Client, email: str = "alice@example.org", password: str = PASSWORD, **more: str) -> Any:
    return client.post("/accounts/login/", {"login": email, "password": password, **more})


@pytest.mark.parametrize("email", ["alice@example.org", "ALICE@Example.org"])
def test_in_and_out(client: Client, organizer: User, email: str) -> None:
    response = sign_in(client, email)
    assert response.status_code == 302 and response.headers["Location"] == "/account/"
    assert client.get("/account/").status_code == 200
    assert "Agents go on" in client.get("/accounts/logout/").content.decode(), "asked first: a link signs nobody out"
    client.post("/accounts/logout/")
    assert client.get("/account/").status_code == 302


def test_a_wrong_password_and_a_wrong_address_look_the_same(client: Client, organizer: User) -> None:
    pages = [
        sign_in(client, password="wrong").content.decode(),
        sign_in(client, email="nobody@example.org", password="wrong").content.decode(),
    ]
    texts = [page.partition('class="errorlist')[2].partition("</ul>")[0] for page in pages]
    assert texts[0] == texts[1] != ""


def test_it_leads_back_to_where_one_was(client: Client, organizer: User) -> None:
    asked = client.get("/organize/new/?preset=tiny")
    assert asked.headers["Location"].startswith("/accounts/login/?next=/organize/new/")
    response = sign_in(client, next="/organize/new/?preset=tiny")
    assert response.headers["Location"] == "/organize/new/?preset=tiny"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"])
def test_it_leads_nowhere_else(client: Client, organizer: User, target: str) -> None:
    assert sign_in(client, next=target).headers["Location"] == "/account/"


def test_an_address_that_is_not_confirmed_gets_another_letter(client: Client, organizer: User) -> None:
    organizer.emailaddress_set.update(verified=False)
    response = sign_in(client)
    assert response.headers["Location"] == "/accounts/confirm-email/" and len(mail.outbox) == 1
    assert client.get("/account/").status_code == 302


def test_a_closed_account_does_not_get_in(client: Client, organizer: User) -> None:
    User.objects.update(is_active=False)
    sign_in(client)
    assert client.get("/account/").status_code == 302


def test_guessing_is_limited(client: Client, organizer: User) -> None:
    for _ in range(12):
        response = sign_in(client, password="wrong")
    page = response.content.decode()
    assert response.status_code == 429 or "Too many" in page
    page = sign_in(client).content.decode()
    assert client.get("/account/").status_code == 302, "the right password does not help any more for now"


def test_a_new_session_at_sign_in(client: Client, organizer: User) -> None:
    client.get("/accounts/login/")
    before = client.session.session_key
    sign_in(client)
    assert client.session.session_key != before


def test_pages_of_the_account_are_kept_by_no_cache(client: Client, organizer: User) -> None:
    sign_in(client)
    for path in ("/account/", "/account/tokens/", "/account/machines/", "/organize/"):
        assert "no-store" in client.get(path).headers["Cache-Control"]
