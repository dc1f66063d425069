"""Signing a machine in with a code (RFC 8628): its page, and the API that the machine polls."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from coordinator.accounts import actions, api, views
from coordinator.accounts.models import DEVICE_POLL_S, JOIN, ApiToken, DeviceCode, User
from coordinator.limits import KeyedBuckets

from .conftest import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def fresh_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((api, "_starts"), (api, "_polls"), (api, "_tries"), (views, "_codes")):
        monkeypatch.setattr(module, name, KeyedBuckets(per_s=0, burst=1000, keys_max=10))


def post(path: str, **body: Any) -> Any:
    return Client().post(path, json.dumps(body), content_type="application/json")


def start(label: str = "old laptop") -> dict[str, Any]:
    response = post("/api/v1/device", label=label)
    assert response.status_code == 200, response.content
    return response.json()  # type: ignore[no-any-return]


def poll(started: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    DeviceCode.objects.update(polled_at=None)
    response = post("/api/v1/device/token", device_code=started["device_code"])
    return response.status_code, response.json()


@pytest.fixture
def browser(volunteer: User) -> Client:
    return signed_in(volunteer)


def test_what_the_machine_is_told(db: None, settings: Any) -> None:
    settings.SITE_URL = "https://hive.example"
    found = start()
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", found["user_code"])
    assert found["verification_uri"] == "https://hive.example/device/"
    assert found["verification_uri_complete"].endswith(f"?code={found['user_code']}")
    assert found["interval"] == DEVICE_POLL_S and found["device_code"] not in str(DeviceCode.objects.values())


def test_approved_the_token_is_given_once(browser: Client, volunteer: User) -> None:
    started = start()
    assert poll(started) == (400, {"error": "authorization_pending"})
    page = browser.get(f"/device/?code={started['user_code'].lower()}").content.decode()
    assert "Is this your machine?" in page and "old laptop" in page and "bob@example.org" in page and "127.0.0.1" in page
    assert poll(started)[1] == {"error": "authorization_pending"}, "looking approves nothing"
    assert "Signed in" in browser.post("/device/", {"code": started["user_code"], "decision": "approve"}).content.decode()
    status, given = poll(started)
    assert status == 200 and given["account"] == "Bob"
    found = actions.find_token(given["token"], JOIN)
    assert found is not None and (found.user, found.name, found.scopes) == (volunteer, "old laptop", [JOIN])
    assert poll(started) == (400, {"error": "expired_token"}) and ApiToken.objects.count() == 1


def test_denied(browser: Client) -> None:
    started = start()
    assert "Refused" in browser.post("/device/", {"code": started["user_code"], "decision": "deny"}).content.decode()
    assert poll(started) == (400, {"error": "access_denied"}) and not ApiToken.objects.exists()
    page = browser.post("/device/", {"code": started["user_code"], "decision": "approve"})
    assert page.status_code == 400, "it is decided"


def test_it_runs_out(browser: Client) -> None:
    started = start()
    DeviceCode.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert poll(started) == (400, {"error": "expired_token"})
    page = browser.post("/device/", {"code": started["user_code"]})
    assert page.status_code == 400 and "It may have run out" in page.content.decode()
    actions.forget_device_codes()
    assert not DeviceCode.objects.exists()


def test_polling_too_fast(db: None) -> None:
    started = start()
    errors = [post("/api/v1/device/token", device_code=started["device_code"]).json()["error"] for _ in range(2)]
    assert errors == ["authorization_pending", "slow_down"]


def test_an_unknown_device(db: None) -> None:
    assert poll({"device_code": "x" * 32}) == (400, {"error": "expired_token"})
    assert post("/api/v1/device/token", device_code="x" * 101).status_code == 422


@pytest.mark.parametrize("code", ["", "BCDF", "AAAA-AAAA", "<script>", "BCDF-GHJK-LMNP", "ßßßßßßßß"])
def test_a_code_that_is_none(browser: Client, code: str) -> None:
    start()
    response = browser.post("/device/", {"code": code, "decision": "approve"})
    assert "<script>a" not in response.content.decode() and not DeviceCode.objects.exclude(state="pending").exists()


def test_guessing_is_limited(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_codes", KeyedBuckets(per_s=0, burst=2, keys_max=10))
    statuses = [browser.post("/device/", {"code": "BCDFGHJK"}).status_code for _ in range(3)]
    assert statuses == [400, 400, 429]


def test_starting_is_limited_by_address(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_starts", KeyedBuckets(per_s=0, burst=2, keys_max=10))
    assert post("/api/v1/device", label="x" * 61).status_code == 422
    assert [post("/api/v1/device", label="x").status_code for _ in range(3)] == [200, 200, 429]


def test_waiting_codes_are_bounded(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "PENDING_MAX", 10)
    first = start()
    for _ in range(10):
        start()
    assert DeviceCode.objects.count() == 10 and poll(first)[1] == {"error": "expired_token"}


def test_what_a_machine_calls_itself_is_shown_as_text(browser: Client) -> None:
    started = start('<img src=x>"\n')
    assert "<img src=x>" not in browser.get(f"/device/?code={started['user_code']}").content.decode()


def test_an_account_full_of_tokens(browser: Client, volunteer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "TOKENS_PER_USER_MAX", 0)
    started = start()
    browser.post("/device/", {"code": started["user_code"], "decision": "approve"})
    status, body = poll(started)
    assert status == 429 and "Revoke one" in body["detail"]
    monkeypatch.setattr(actions, "TOKENS_PER_USER_MAX", 5)
    assert poll(started)[0] == 200, "once there is room, the code still counts"
