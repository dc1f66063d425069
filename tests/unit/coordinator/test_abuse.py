"""Hostile visitors: guessing, bulk, enumeration, forged and oversized requests, script in what peers say (THREAT_MODEL.md)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.test import Client

from coordinator.accounts.models import User
from coordinator.experiments.models import Experiment

from .conftest import Agent, event, report
from .test_store import submit

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse battery"
NASTY = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def alice_account() -> User:
    user = User.objects.create_user("alice@example.org", PASSWORD, display_name="Alice")
    user.emailaddress_set.create(email=user.email, verified=True, primary=True)  # type: ignore[attr-defined]
    return user


def sign_in(client: Client, email: str, password: str, address: str = "192.0.2.1") -> Any:
    return client.post("/accounts/login/", {"login": email, "password": password}, REMOTE_ADDR=address)


def sign_up(client: Client, email: str, address: str = "192.0.2.1", **more: str) -> Any:
    return client.post("/accounts/signup/", {"email": email, "password1": PASSWORD, **more}, REMOTE_ADDR=address)


def test_guessing_one_password_from_many_addresses_ends(client: Client, alice_account: User) -> None:
    for i in range(5):
        assert sign_in(client, "alice@example.org", f"guess number {i}", f"192.0.2.{i}").status_code == 200
    held_up = sign_in(client, "alice@example.org", PASSWORD, "192.0.2.99")
    assert held_up.status_code == 200 and b"Too many" in held_up.content and not client.session.get("_auth_user_id")


def test_guessing_many_passwords_from_one_address_ends(client: Client, db: None) -> None:
    statuses = [sign_in(client, f"user{i}@example.org", "a guess").status_code for i in range(12)]
    said = sign_in(client, "someone@example.org", "a guess")
    assert 429 in statuses or b"Too many" in said.content, statuses


def test_an_ipv6_network_is_one_address(client: Client, db: None) -> None:
    said = [sign_in(client, f"user{i}@example.org", "a guess", f"2001:db8:0:1::{i:x}") for i in range(1, 14)]
    assert said[-1].status_code == 429 or b"Too many" in said[-1].content
    other = sign_in(client, "new@example.org", "a guess", "2001:db8:0:2::1")
    assert other.status_code == 200 and b"Too many" not in other.content


def test_sign_up_in_bulk_ends_with_429(client: Client, db: None) -> None:
    statuses = [sign_up(Client(), f"user{i}@example.org").status_code for i in range(25)]
    assert statuses[0] == 302 and statuses[-1] == 429
    assert User.objects.count() <= 20
    refused = sign_up(Client(), "last@example.org")
    assert b"<h1" in refused.content and "text/html" in refused.headers["Content-Type"]


def test_one_address_is_not_flooded_with_mail(client: Client, alice_account: User) -> None:
    for i in range(20):
        client.post("/accounts/password/reset/", {"email": "alice@example.org"}, REMOTE_ADDR=f"192.0.2.{i}")
    assert 1 <= len(mail.outbox) <= 5


def test_nobody_learns_who_has_an_account(client: Client, alice_account: User) -> None:
    known, unknown = (sign_up(Client(), email) for email in ("alice@example.org", "new@example.org"))
    assert (known.status_code, known.headers["Location"]) == (unknown.status_code, unknown.headers["Location"])
    known, unknown = (
        Client().post("/accounts/password/reset/", {"email": email}) for email in ("alice@example.org", "nobody@example.org")
    )
    assert (known.status_code, known.headers["Location"]) == (unknown.status_code, unknown.headers["Location"])
    wrong = [
        sign_in(Client(), email, "not it at all", f"192.0.2.{i}").content
        for i, email in enumerate(("alice@example.org", "x@y.org"))
    ]
    assert all(b"not correct" in said for said in wrong)


def test_a_robot_that_fills_every_field_makes_no_account(client: Client, db: None) -> None:
    sign_up(client, "robot@example.org", website="https://spam.example")
    assert not User.objects.exists()


@pytest.mark.parametrize("path", ["/accounts/signup/", "/accounts/login/", "/accounts/password/reset/", "/device/", "/teams/"])
def test_a_forged_form_is_refused(alice_account: User, path: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice_account)
    assert strict.post(path, {"email": "a@b.org", "name": "Bees"}).status_code == 403


def test_the_session_of_a_browser_writes_nothing_through_the_api(alice_account: User, experiment: Experiment) -> None:
    browser = Client()
    browser.force_login(alice_account)
    answer = browser.post("/api/v1/experiments/gpt-crowd/admission", "{}", content_type="text/plain")
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/accounts/signup/", "/teams/", "/api/v1/device", "/api/v1/device/token"])
def test_a_large_body_is_refused(client: Client, alice_account: User, path: str) -> None:
    client.force_login(alice_account)
    kind = "application/json" if "/api/" in path else "application/x-www-form-urlencoded"
    answer = client.post(path, b"a=" + b"x" * 300_000, content_type=kind)
    assert answer.status_code in (400, 413)


@pytest.mark.parametrize("path", ["/accounts/signup/", "/accounts/login/", "/api/v1/device"])
def test_an_upload_is_no_way_in(client: Client, db: None, path: str) -> None:
    boundary = "x" * 60
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n\r\n{"y" * 1000}\r\n'
    answer = client.post(path, (part * 50 + f"--{boundary}--").encode(), content_type=f"multipart/form-data; boundary={boundary}")
    assert answer.status_code in (200, 400, 413, 422)


@pytest.mark.parametrize(
    "value",
    [
        "\x00",
        "a" * 10_000,
        "ﷺ" * 500,
        "' OR 1=1 --",
        NASTY,
        "../../etc/passwd",
        "\u202e",
        "é\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_nonsense_in_forms_and_addresses_is_no_server_error(client: Client, experiment: Experiment, value: str) -> None:
    for path in ("/accounts/login/", "/accounts/signup/", "/accounts/password/reset/"):
        fields = dict.fromkeys(("login", "email", "password", "password1", "next"), value)
        assert client.post(path, fields).status_code < 500
    for path in ("/peers/", "/leaderboard/", "/device/", "/api/v1/peers", "/accounts/login/", "/leaderboard/in/gpt-crowd/"):
        query = dict.fromkeys(("id", "me", "window", "by", "page", "code", "next"), value)
        assert client.get(path, query).status_code < 500
    for path in (
        f"/experiments/{value}/",
        f"/peers/{value}/",
        f"/teams/{value}/",
        f"/invitations/{value}/",
        f"/api/v1/experiments/{value}",
    ):
        assert client.get(path).status_code < 500


def test_the_page_after_sign_in_is_ours(client: Client, alice_account: User) -> None:
    for target in ("https://evil.example/", "//evil.example", "https:evil.example", "javascript:alert(1)", "/\\evil.example"):
        cache.clear()
        answer = Client().post("/accounts/login/", {"login": "alice@example.org", "password": PASSWORD, "next": target})
        assert answer.status_code == 302 and answer.headers["Location"] == "/account/", target


def test_what_peers_say_is_text_and_no_script(client: Client, experiment: Experiment, bob: Agent) -> None:
    now = time.time()
    said = report(1, now, stage="waiting", why=NASTY)
    submit(experiment, bob, said, event(2, "sample", now, prompt=NASTY, text=NASTY), event(3, "error", now, text=NASTY), at=now)
    for path in ("/", "/experiments/gpt-crowd/", f"/peers/{bob.peer}/", "/leaderboard/"):
        text = client.get(path).content.decode()
        assert "<script>alert" not in text and "<img src=x" not in text, path
    api = client.get("/api/v1/experiments/gpt-crowd/peers")
    assert api.json()[0]["why"] == NASTY and api.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(
    "path", ["/", "/experiments/gpt-crowd/", "/accounts/login/", "/api/v1/docs", "/api/v1/experiments", "/nope", "/metrics"]
)
def test_every_answer_has_its_guards(client: Client, experiment: Experiment, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin" and headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "Server" not in headers
