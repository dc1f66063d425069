"""API tokens: shown once, kept as a digest, revoked."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from coordinator.accounts import actions
from coordinator.accounts.models import JOIN, MANAGE, READ, ApiToken, User

from .conftest import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(volunteer: User) -> Client:
    return signed_in(volunteer)


def make(browser: Client, **fields: object) -> str:
    page = browser.post("/account/tokens/", {"name": "desk", "scopes": ["join"], "life": "90", **fields}).content.decode()
    found = re.search(r'<code id="token">(hive_[a-z0-9]{8}_[a-z0-9]{32})</code>', page)
    assert found, page
    return found[1]


def test_it_is_shown_once_and_kept_as_a_digest(browser: Client) -> None:
    text = make(browser)
    page = browser.get("/account/tokens/").content.decode()
    assert text not in page and text[:13] in page and "desk" in page
    secret = text.rpartition("_")[2]
    assert secret not in str(ApiToken.objects.values()), "the table alone opens nothing"


def test_it_speaks_for_its_account_with_its_scopes_only(browser: Client, volunteer: User) -> None:
    text = make(browser, scopes=[JOIN, READ])
    found = actions.find_token(text, JOIN)
    assert found is not None and found.user == volunteer
    assert actions.find_token(text, MANAGE) is None
    client = Client(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert client.get("/api/v1/account").json()["display_name"] == "Bob"
    only_join = make(browser)
    assert Client(HTTP_AUTHORIZATION=f"Bearer {only_join}").get("/api/v1/account").status_code == 401


@pytest.mark.parametrize("change", ["", "x", "hive__", "hive_aaaaaaaa_" + "b" * 32, "HIVE", "ümlaut"])
def test_what_is_no_token(browser: Client, change: str) -> None:
    make(browser)
    assert actions.find_token(change, JOIN) is None


def test_a_letter_off_opens_nothing(browser: Client) -> None:
    text = make(browser)
    other = "a" if text[-1] != "a" else "b"
    assert actions.find_token(text[:-1] + other, JOIN) is None


def test_a_revoked_token_is_refused_at_once(browser: Client) -> None:
    text = make(browser, scopes=[READ])
    client = Client(HTTP_AUTHORIZATION=f"Bearer {text}")
    assert client.get("/api/v1/account").status_code == 200
    assert browser.post(f"/account/tokens/{ApiToken.objects.get().pk}/revoke/").status_code == 302
    assert client.get("/api/v1/account").status_code == 401
    assert "revoked" in browser.get("/account/tokens/").content.decode()


def test_nobody_revokes_anothers(browser: Client, stranger: User) -> None:
    make(browser)
    pk = ApiToken.objects.get().pk
    assert signed_in(stranger).post(f"/account/tokens/{pk}/revoke/").status_code == 404
    assert ApiToken.objects.get().is_live
    browser.post(f"/account/tokens/{pk}/revoke/")
    assert browser.post(f"/account/tokens/{pk}/revoke/").status_code == 404


def test_it_ends(browser: Client) -> None:
    text = make(browser, life="30")
    ends = ApiToken.objects.get().expires_at
    assert ends is not None and timedelta(days=29) < ends - timezone.now() <= timedelta(days=30)
    ApiToken.objects.update(expires_at=timezone.now())
    assert actions.find_token(text, JOIN) is None
    assert "ended" in browser.get("/account/tokens/").content.decode()


def test_a_closed_accounts_tokens_are_refused(browser: Client) -> None:
    text = make(browser)
    User.objects.update(is_active=False)
    assert actions.find_token(text, JOIN) is None


def test_how_many_there_may_be(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "TOKENS_PER_USER_MAX", 2)
    make(browser), make(browser)
    response = browser.post("/account/tokens/", {"name": "third", "scopes": ["join"], "life": "90"})
    assert response.status_code == 400 and "at most 2 tokens" in response.content.decode()
    assert 'value="third"' in response.content.decode()


@pytest.mark.parametrize(
    ("field", "value"), [("name", ""), ("name", "x" * 61), ("scopes", []), ("scopes", ["root"]), ("life", "0")]
)
def test_mistakes_make_no_token(browser: Client, field: str, value: object) -> None:
    response = browser.post("/account/tokens/", {"name": "desk", "scopes": ["join"], "life": "90", field: value})
    assert response.status_code == 400 and not ApiToken.objects.exists()


def test_use_is_noted_to_the_minute(browser: Client) -> None:
    text = make(browser)
    assert ApiToken.objects.get().used_at is None
    actions.find_token(text, JOIN)
    first = ApiToken.objects.get().used_at
    actions.find_token(text, JOIN)
    assert first is not None and ApiToken.objects.get().used_at == first


def test_a_new_secret_key_takes_old_ones_along(browser: Client, settings: object) -> None:
    text = make(browser)
    old = settings.SECRET_KEY  # type: ignore[attr-defined]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new" * 20, [old]  # type: ignore[attr-defined]
    assert actions.find_token(text, JOIN) is not None
    settings.SECRET_KEY_FALLBACKS = []  # type: ignore[attr-defined]
    assert actions.find_token(text, JOIN) is None
