"""Who may do what: every address of the site and every route of the API, for every role, in one table.

A route or a method that is not in the table fails the test, so nobody adds one without saying whom it is for. Each cell is
tried for real, with what the cast has: Alice owns the experiment `bees` (open, by approval) and the draft `secret`, Dora
co-organizes both, Bob is admitted, Charlie asked to be; Eve is staff; a stranger is not signed in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from django.core.cache import cache
from django.db import transaction
from django.http import HttpResponse
from django.test import Client
from django.urls import URLPattern, get_resolver, resolve
from django.views.generic import RedirectView
from msgspec.structs import replace

from agent.admission import REQUEST_PURPOSE, AdmissionRequest
from agent.identity import Identity
from coordinator.accounts.actions import make_token, start_device
from coordinator.accounts.models import SCOPES, Machine, User
from coordinator.admission.actions import invite
from coordinator.admission.models import Membership
from coordinator.api.v1 import api
from coordinator.experiments import actions, schema
from coordinator.experiments.models import Experiment, Role
from coordinator.leaderboard import teams

from .conftest import SMALL, Agent, account, report
from .role_table import TABLE
from .test_store import submit

ROLES = ("stranger", "volunteer", "organizer", "co-organizer", "staff")
BEES = replace(SMALL, name="bees", title="Bees", admission="approval")
ADDRESS = "198.51.100.{}"


@dataclass(frozen=True)
class Row:
    method: str
    path: str
    expected: tuple[str, ...]
    """By role: a status, or `sign-in` for a redirect to the sign-in page."""


def rows() -> list[Row]:
    found = []
    for line in TABLE.strip().splitlines():
        if line.strip() and not line.startswith("#"):
            method, path, *expected = line.split()
            assert len(expected) == len(ROLES), f"{line!r} does not have a cell for each of {ROLES}"
            found.append(Row(method, path, tuple(expected)))
    return found


@pytest.fixture
def cast(db: None) -> dict[str, User | None]:
    """By role."""
    return {
        "stranger": None,
        "volunteer": account("Bob"),
        "organizer": account("Alice"),
        "co-organizer": account("Dora"),
        "staff": account("Eve", is_staff=True),
    }


@pytest.fixture
def names(cast: dict[str, User | None]) -> dict[str, str]:
    """What the table's placeholders stand for."""
    alice, dora, bob = cast["organizer"], cast["co-organizer"], cast["volunteer"]
    assert alice and dora and bob
    charlie = account("Charlie")
    for manifest in (BEES, replace(BEES, name="secret", title="Secret")):
        made = actions.create(manifest, alice)
        Role.objects.create(experiment=made, user=dora, kind=Role.Kind.CO_ORGANIZER)
    actions.set_status(Experiment.objects.get(name="bees"), "open", alice)
    bees = Experiment.objects.get(name="bees")
    Membership.objects.create(experiment=bees, user=charlie, standing=Membership.Standing.REQUESTED)
    Membership.objects.create(experiment=bees, user=bob, standing=Membership.Standing.ADMITTED)
    link = invite(bees, alice, note="", uses_max=None, life=None)
    draft_link = invite(Experiment.objects.get(name="secret"), alice, note="", uses_max=None, life=None)
    token, _ = make_token(bob, "his", list(SCOPES))
    peer = Agent(Identity.from_seed(b"p" * 32))
    submit(bees, peer, report(1, time.time(), tokens=10), at=time.time())
    machine = Machine.objects.create(user=bob, peer=peer.peer, label="his")
    teams.create(charlie, "Wasps")
    code, _ = start_device("a machine", None)
    return {
        "code": link.code,
        "draft-code": draft_link.code,
        "link": str(link.pk),
        "token": str(token.pk),
        "machine": str(machine.pk),
        "charlie": charlie.public_id,
        "dora": dora.public_id,
        "peer": peer.peer,
        "device": code.user_code,
    }


def data(path: str, user: User | None, names: dict[str, str]) -> dict[str, str]:
    """What is posted, so that a cell shows who may, and not only that an empty form is refused."""
    texts = schema.write(BEES)
    return {
        "/account/": {"display_name": "", "is_listed": ""},
        "/account/tokens/": {"name": "x", "scopes": "join", "life": "30"},
        "/account/delete/": {"email": user.email if user else ""},
        "/device/": {"code": names["device"], "decision": "approve"},
        "/organize/new/": {**texts, "name": "new", "save": "1"},
        "/organize/estimate/": texts,
        "/experiments/bees/edit/": {**texts, "title": "Other", "base": "1", "save": "1"},
        "/experiments/secret/edit/": {**texts, "name": "secret", "save": "1"},
        "/experiments/bees/status/": {"status": "paused"},
        "/experiments/secret/status/": {"status": "open"},
        "/experiments/bees/people/invite/": {"uses_max": "1", "life": "7"},
        "/experiments/bees/people/members/{charlie}/": {"decision": "admit"},
        "/experiments/bees/people/organizers/": {"email": "charlie@example.org"},
        "/teams/": {"name": "Hornets"},
    }.get(path, {})


@pytest.fixture
def browsers(cast: dict[str, User | None]) -> dict[str, Client]:
    """By role, with a session and a token of all scopes."""
    found = {}
    for i, (role, user) in enumerate(cast.items()):
        browser = Client(REMOTE_ADDR=ADDRESS.format(i))
        if user is not None:
            browser = Client(
                REMOTE_ADDR=ADDRESS.format(i), HTTP_AUTHORIZATION=f"Bearer {make_token(user, 'all', list(SCOPES))[1]}"
            )
            browser.force_login(user)
        found[role] = browser
    return found


def body(path: str, browser: Client) -> bytes:
    """What is posted to the API: a machine's code, and an agent's request that is signed for the token."""
    if path.endswith("/admission"):
        identity, token = Identity.from_seed(b"n" * 32), browser.defaults.get("HTTP_AUTHORIZATION", "").partition(" ")[2]
        asked = AdmissionRequest(peer=str(identity.peer_id), experiment=path.split("/")[4], at=int(time.time()))
        return msgspec.json.encode(replace(asked, signature=identity.sign(REQUEST_PURPOSE, asked.signed_bytes(token))))
    if path.endswith("/status"):
        return b'{"status": "open"}'
    if "organizer" in path or path.endswith("/estimate"):
        name = path.split("/")[5] if path.endswith("/manifest") else "new"
        return msgspec.json.encode({"manifest": replace(BEES, name=name), "base": 1})
    return b'{"label": "x", "device_code": "x"}'


def outcome(response: HttpResponse) -> str:
    if response.status_code == 302 and "/accounts/login/" in response.headers["Location"]:
        return "sign-in"
    return str(response.status_code)


def ask(browser: Client, row: Row, path: str, posted: dict[str, str]) -> HttpResponse:
    """One request, whose changes are taken back."""
    cache.clear()
    session = dict(browser.cookies)
    with transaction.atomic():
        if path.startswith("/api/") and row.method != "GET":
            response = browser.generic(row.method, path, body(path, browser), content_type="application/json")
        else:
            response = getattr(browser, row.method.lower())(path, posted)
        transaction.set_rollback(True)
    browser.cookies.clear()
    browser.cookies.update(session)
    return response  # type: ignore[no-any-return]


def test_every_role_at_every_address(cast: dict[str, User | None], browsers: dict[str, Client], names: dict[str, str]) -> None:
    wrong = []
    for row in rows():
        path = row.path.format(**{k.replace("-", "_"): v for k, v in names.items()})
        found = tuple(outcome(ask(browsers[r], row, path, data(row.path, cast[r], names))) for r in ROLES)
        if found != row.expected:
            wrong.append(f"{row.method:5}{row.path:60}{' '.join(found)}")
    assert not wrong, "the table says otherwise:\n" + "\n".join(wrong)


# That nothing is missing


def patterns(parts: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for part in parts:
        route = before + (str(part.pattern).removeprefix("^") if before else str(part.pattern))
        if isinstance(part, URLPattern):
            yield route, part.callback
        else:
            yield from patterns(part.url_patterns, route)


def methods(browser: Client, callback: Any, path: str) -> set[str]:
    """What the view answers to, as it says itself to a method that it does not know."""
    if getattr(callback, "view_class", None) is RedirectView:
        return {"GET"}
    response = browser.generic("PROPFIND", path)
    allowed = response.headers.get("Allow", "GET") if response.status_code == 405 else "GET"
    return {m.strip() for m in allowed.split(",")} & {
        "GET",
        "POST",
        "PATCH",
        "DELETE",
    }  # PUT: Django's form views take it for POST


def test_every_route_and_method_is_in_the_table(browsers: dict[str, Client], names: dict[str, str]) -> None:
    spelled = {k.replace("-", "_"): v for k, v in names.items()}
    known: dict[str, set[str]] = {}
    paths: dict[str, str] = {}
    for row in rows():
        path = row.path.format(**spelled)
        route = resolve(path.partition("?")[0]).route
        known.setdefault(route, set()).add(row.method)
        paths[route] = path
    missing = []
    for route, callback in patterns(get_resolver().url_patterns):
        if route not in known:
            missing.append(f"{route} is not in tests/unit/coordinator/role_table.py")
        elif not route.startswith("api/"):
            with transaction.atomic():
                lacking = methods(browsers["organizer"], callback, paths[route]) - known[route]
                transaction.set_rollback(True)
            missing += [f"{method} {route} is not in the table" for method in sorted(lacking)]
    for path, operations in api.get_openapi_schema()["paths"].items():
        route = path.removeprefix("/").replace("{", "<").replace("}", ">")
        missing += [f"{m.upper()} {path} is not in the table" for m in operations if m.upper() not in known.get(route, set())]
    assert not missing, "\n".join(missing)


def test_every_websocket_has_its_own_table() -> None:
    """Who may connect where is tested with the sockets themselves: a new one is to be tested there, then named here."""
    from coordinator.asgi import websocket

    routes = [str(r.pattern.regex.pattern).split("/")[1] for r in websocket.routes if r.pattern.regex.pattern]
    assert sorted(routes) == ["live", "rendezvous", "telemetry"]
