"""The second factor: turned on, asked for, recovered from, turned off."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.core.cache import cache
from django.test import Client

from coordinator.accounts.models import User

from .conftest import PASSWORD, just_asked

pytestmark = pytest.mark.django_db


def code_for(secret: str) -> str:
    return format_hotp_value(hotp_value(secret, next(iter(yield_hotp_counters_from_time()))))


def sign_in(email: str) -> tuple[Client, Any]:
    client = Client()
    cache.clear()
    return client, client.post("/accounts/login/", {"login": email, "password": PASSWORD})


@pytest.fixture
def browser(organizer: User) -> Client:
    return just_asked(organizer)


@pytest.fixture
def secret(browser: Client) -> str:
    """Alice turned it on; returns the app's secret."""
    page = browser.get("/accounts/2fa/totp/activate/").content.decode()
    found = re.search(r"<code>([A-Z2-7]+)</code>", page)
    assert found and "<svg" in page
    response = browser.post("/accounts/2fa/totp/activate/", {"code": code_for(found[1])})
    assert response.status_code == 302, response.content.decode()
    return found[1]


def test_off_at_first(browser: Client) -> None:
    assert "mfa_activate" not in (page := browser.get("/accounts/2fa/").content.decode()) and "Turn it on" in page


def test_a_wrong_code_turns_nothing_on(browser: Client) -> None:
    browser.get("/accounts/2fa/totp/activate/")
    assert "errorlist" in browser.post("/accounts/2fa/totp/activate/", {"code": "000000"}).content.decode()
    assert not Authenticator.objects.exists()


def test_from_then_on_it_is_asked_for(organizer: User, secret: str) -> None:
    cache.clear()
    client, response = sign_in(organizer.email)
    assert response.headers["Location"].startswith("/accounts/2fa/authenticate/")
    assert client.get("/account/").status_code == 302, "the password alone opens nothing"
    assert "errorlist" in client.post("/accounts/2fa/authenticate/", {"code": "000000"}).content.decode()
    cache.clear()
    client.post("/accounts/2fa/authenticate/", {"code": code_for(secret)})
    assert client.get("/account/").status_code == 200


def test_a_code_works_once(organizer: User, secret: str) -> None:
    client, _ = sign_in(organizer.email)
    code = code_for(secret)
    client.post("/accounts/2fa/authenticate/", {"code": code})
    assert client.get("/account/").status_code == 200
    again = Client()
    again.post("/accounts/login/", {"login": organizer.email, "password": PASSWORD})
    again.post("/accounts/2fa/authenticate/", {"code": code})
    assert again.get("/account/").status_code == 302


def test_recovery_codes_let_in_when_the_phone_is_gone(browser: Client, organizer: User, secret: str) -> None:
    browser.post("/accounts/2fa/recovery-codes/generate/")
    listed = browser.get("/accounts/2fa/recovery-codes/download/").content.decode().split()
    assert len(listed) >= 8
    for expected in (200, 302):  # each works once
        client, _ = sign_in(organizer.email)
        client.post("/accounts/2fa/authenticate/", {"code": listed[0]})
        assert client.get("/account/").status_code == expected


def test_secrets_are_kept_encrypted(secret: str, browser: Client) -> None:
    browser.post("/accounts/2fa/recovery-codes/generate/")
    listed = browser.get("/accounts/2fa/recovery-codes/download/").content.decode().split()
    kept = str(list(Authenticator.objects.values_list("data", flat=True)))
    assert secret not in kept and not any(code in kept for code in listed)


def test_off_again(browser: Client, organizer: User, secret: str) -> None:
    assert "Turn it off" in browser.get("/accounts/2fa/").content.decode()
    browser.post("/accounts/2fa/totp/deactivate/")
    assert not Authenticator.objects.filter(type=Authenticator.Type.TOTP).exists()
    client, _ = sign_in(organizer.email)
    assert client.get("/account/").status_code == 200
