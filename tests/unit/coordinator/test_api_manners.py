"""What every route of the API does alike: pages and their links, ETags, refusals, rates, and a description that fits."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.test import AsyncClient, Client
from django.utils import timezone

from agent.identity import Identity
from agent.manifest import GPTModel, Manifest
from coordinator.accounts.actions import link_machine, make_token
from coordinator.accounts.models import JOIN, MANAGE, READ, User
from coordinator.api.common import PerAddress
from coordinator.api.v1 import api
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import teams
from coordinator.monitoring.overlay import examine
from coordinator.telemetry.models import Point

from .conftest import Agent, event, report
from .test_store import submit

pytestmark = pytest.mark.django_db


def follow(client: Client, path: str) -> list[Any]:
    """Every page from `path` on, each page's rows."""
    pages, seen = [], set()
    while path:
        assert path not in seen, "a page links to itself"
        seen.add(path)
        response = client.get(path)
        assert response.status_code == 200, response.content
        pages.append(response.json())
        link = response.headers.get("Link", "")
        assert not link or link.endswith('; rel="next"')
        path = link.partition("<")[2].partition(">")[0]
    return pages


def test_every_list_comes_in_pages(client: Client, experiment: Experiment) -> None:
    now = time.time()
    for i in range(5):
        agent = Agent(Identity.from_seed(bytes([i]) * 32), session=f"{i:016x}")
        submit(experiment, agent, event(1, "sample", now, prompt="a", text=str(i)), report(2, now), at=now)
    for seed in "abc":
        publish(Manifest(name=f"small-{seed}", revision=1, title="s", description="", model=GPTModel(grid=(2, 2), layers=1)))
    base = "/api/v1/experiments"
    for path, rows in (
        (f"{base}?limit=2", 4),
        (f"{base}/gpt-crowd/peers?limit=2", 5),
        (f"{base}/gpt-crowd/experts?limit=3", 4),
        (f"{base}/gpt-crowd/events?limit=2&only=sample", 5),
        (f"{base}/gpt-crowd/samples?limit=2", 5),
        (f"{base}/gpt-crowd/revisions?limit=1", 1),
    ):
        pages = follow(client, path)
        found = [repr(row) for page in pages for row in page]
        limit = int(path.partition("limit=")[2].partition("&")[0])
        assert len(found) == len(set(found)) == rows, path
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1) and pages[-1], path


def test_points_go_further_back(client: Client, experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.telemetry.queries.POINTS_MAX", 4)
    zero = dict.fromkeys(("calls", "calls_failed", "rows_served", "loss_batches", "validation_count", "peers"), 0)
    sums = {"loss_sum": 0.0, "validation_sum": 0.0, "updated_at": 0.0, "tokens": 1}
    Point.objects.bulk_create(Point(experiment=experiment, resolution=1, at=at, **zero, **sums) for at in range(1000, 1010))
    pages = follow(client, "/api/v1/experiments/gpt-crowd/series?resolution=1")
    assert [page["at"] for page in pages] == [[1006, 1007, 1008, 1009], [1002, 1003, 1004, 1005], [1000, 1001]]


def test_what_has_not_changed_is_not_sent_again(client: Client, experiment: Experiment) -> None:
    for path in ("", "/gpt-crowd", "/gpt-crowd/experts", "/gpt-crowd/revisions", "/gpt-crowd/manifest", "/gpt-crowd/revisions/1"):
        first = client.get(f"/api/v1/experiments{path}")
        again = client.get(f"/api/v1/experiments{path}", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b""), path


def test_a_parameter_that_does_not_fit_is_named(client: Client) -> None:
    response = client.get("/api/v1/experiments?limit=0&offset=x")
    body = response.json()
    assert response.status_code == 422
    assert [e["where"] for e in body["errors"]] == ["query.limit", "query.offset"]
    assert body["detail"].startswith("query.limit: Input should be greater than or equal to 1")


def test_whoever_asks_too_often_is_told_when_to_ask_again(client: Client, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = PerAddress()
    monkeypatch.setattr(PerAddress, "allow_request", lambda self, request: throttle.buckets.take("them", 0.0))
    assert all(client.get("/api/v1/experiments").status_code == 200 for _ in range(3))
    while throttle.buckets.take("them", 0.0):
        pass
    response = client.get("/api/v1/experiments")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    assert "asks too often" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/api/", "/api/v1", "/api/v1/nope", "/api/v2/experiments", "/api/v1/experiments/"])
def test_an_address_that_is_none_is_refused_in_json(client: Client, db: None, path: str) -> None:
    for response in (client.get(path), client.post(path, {}, content_type="application/json")):
        assert response.status_code in (301, 404)
        if response.status_code == 404:
            assert "/api/v1/docs" in response.json()["detail"]


def test_no_two_shapes_have_one_name(client: Client) -> None:
    """Components are told apart by name only: the second of two would silently describe both."""
    shapes: dict[str, set[type]] = {}
    for router in api._get_bound_routers():
        for view in router.path_operations.values():
            for operation in view.operations:
                for model in operation.response_models.values():
                    for found in _models(model):
                        shapes.setdefault(found.__name__, set()).add(found)
    assert len(shapes) > 20
    assert {name for name, classes in shapes.items() if len(classes) > 1} <= {"NinjaResponseSchema"}


def _models(kind: Any, seen: set[Any] | None = None) -> set[type]:
    """The pydantic models that an annotation names, however deep."""
    seen = set() if seen is None else seen
    if kind in seen:
        return seen
    if isinstance(kind, type) and hasattr(kind, "model_fields"):
        seen.add(kind)
        for field in kind.model_fields.values():
            _models(field.annotation, seen)
    for part in getattr(kind, "__args__", ()):
        _models(part, seen)
    return seen


def test_the_live_stream_is_described(client: Client) -> None:
    body = client.get("/api/v1/openapi.json").json()
    tick = body["components"]["schemas"]["Tick"]
    assert {"summary", "peers", "experts", "events", "series"} <= set(tick["required"])
    assert "/ws/live/" in body["info"]["description"]
    for methods in body["paths"].values():
        for method, operation in methods.items():
            assert "429" in operation["responses"] and ("304" in operation["responses"]) == (method == "get")


def test_the_pages_of_the_description_load_nothing_from_elsewhere(client: Client) -> None:
    response = client.get("/api/v1/docs")
    text = response.content.decode()
    assert response.status_code == 200 and "http://" not in text and "https://" not in text
    assert "<script>" not in text and "<style>" not in text and "onload=" not in text


def test_revisions(client: Client, experiment: Experiment) -> None:
    manifest = experiment.manifest
    publish(Manifest(name="gpt-crowd", revision=1, title="Renamed", description="", model=manifest.model))
    rows = client.get("/api/v1/experiments/gpt-crowd/revisions").json()
    assert [r["revision"] for r in rows] == [2, 1] and rows[0]["etag"] != rows[1]["etag"]
    assert client.get("/api/v1/experiments/gpt-crowd/revisions/1").json()["signature"]
    assert client.get("/api/v1/experiments/gpt-crowd/revisions/3").status_code == 404
    assert client.get("/api/v1/experiments/gpt-crowd/revisions/0").status_code == 422


def test_samples_are_what_the_model_wrote(client: Client, experiment: Experiment, bob: Agent) -> None:
    now = time.time()
    submit(experiment, bob, event(1, "sample", now, step=7, prompt="def ", text="f():"), event(2, "joined", now), at=now)
    (row,) = client.get("/api/v1/experiments/gpt-crowd/samples").json()
    assert (row["peer"], row["step"], row["prompt"], row["text"]) == (bob.peer, 7, "def ", "f():")


def test_events_of_one_moment_are_not_lost_between_pages(client: Client, experiment: Experiment, bob: Agent) -> None:
    now = time.time()
    submit(experiment, bob, *[event(i, "expert-claimed", now, uid=str(i)) for i in range(1, 8)], at=now)
    pages = follow(client, "/api/v1/experiments/gpt-crowd/events?limit=3&only=expert-claimed")
    assert [row["detail"]["uid"] for page in pages for row in page] == ["7", "6", "5", "4", "3", "2", "1"]


def test_health_says_what_is_wrong_and_what_to_do(client: Client, experiment: Experiment, bob: Agent) -> None:
    now = time.time()
    new = client.get("/api/v1/experiments/gpt-crowd/health").json()
    assert new["at"] is None and new["problems"] == []  # it has been there for less than two minutes
    Experiment.objects.update(created_at=datetime.now(UTC) - timedelta(minutes=3))
    never = client.get("/api/v1/experiments/gpt-crowd/health").json()
    assert never["at"] is None and never["problems"][0]["severity"] == "bad"
    submit(experiment, bob, report(1, now), at=now)
    examine(experiment, now)
    found = client.get("/api/v1/experiments/gpt-crowd/health").json()
    assert (found["peers"], found["vacant_count"], found["experts"]) == (1, 4, 4)
    assert any("no host" in p["what"] and p["fix"] for p in found["problems"])


def test_the_operators_overview_is_for_staff(client: Client, experiment: Experiment) -> None:
    bob = User.objects.create_user("bob@example.org", "long enough for it")
    staff = User.objects.create_user("dora@example.org", "long enough for it", is_staff=True)
    for user, scopes, status in ((bob, [READ], 404), (staff, [JOIN], 404), (staff, [READ], 200)):
        _, token = make_token(user, "t", scopes)
        assert client.get("/api/v1/operator", headers={"Authorization": f"Bearer {token}"}).status_code == status
    assert client.get("/api/v1/operator").status_code == 404
    client.force_login(bob)
    assert client.get("/api/v1/operator").status_code == 404
    client.force_login(staff)
    body = client.get("/api/v1/operator").json()
    assert [e["experiment"] for e in body["experiments"]] == ["gpt-crowd"] and body["buffered_max"] > 0


def test_a_team(client: Client, experiment: Experiment) -> None:
    user = User.objects.create_user("bee@example.org", "long enough for it", display_name="Bee", is_listed=True)
    teams.create(user, "Bees", "We hum.")
    call_command("recompute_leaderboard", verbosity=0)
    body = client.get("/api/v1/teams/bees").json()
    assert (body["name"], body["about"], body["size"], body["names"]) == ("Bees", "We hum.", 1, ["Bee"])
    assert client.get("/api/v1/teams/wasps").status_code == 404
    assert client.get("/api/v1/leaderboard/teams").status_code == 200


def test_an_accounts_own_lists_come_in_pages_too(client: Client, experiment: Experiment) -> None:
    bob = User.objects.create_user("bob@example.org", "long enough for it")
    for i in range(5):
        link_machine(bob, str(Identity.from_seed(bytes([i]) * 32).peer_id), f"machine {i}", timezone.now())
    _, token = make_token(bob, "t", [READ, MANAGE])
    client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    assert [len(page) for page in follow(client, "/api/v1/account/machines?limit=2")] == [2, 2, 1]
    assert follow(client, "/api/v1/organizer/experiments?limit=1") == [[]]


def test_asking_for_device_codes_in_bulk_is_told_when_to_ask_again(client: Client) -> None:
    answers = [
        client.post("/api/v1/device", {"label": "x"}, content_type="application/json", REMOTE_ADDR="2001:db8:77::1")
        for _ in range(11)
    ]
    assert [a.status_code for a in answers] == [200] * 10 + [429]
    assert answers[-1].headers["Retry-After"] == "60" and "Ask again in 60 s" in answers[-1].json()["detail"]


# What is refused


def said(response: Any, status: int) -> str:
    """The sentence of a refusal, which is JSON whoever refuses."""
    assert (response.status_code, response.headers["Content-Type"].partition(";")[0]) == (status, "application/json")
    body = response.json()
    assert set(body) == {"detail"}
    sentence: str = body["detail"]
    return sentence


def test_without_a_token_it_says_where_to_get_one(client: Client, experiment: Experiment) -> None:
    for header in ({}, {"Authorization": "Bearer xx"}, {"Authorization": "Basic %%%"}, {"Authorization": "Bearer hive_\xff"}):
        assert "made at /account/tokens/" in said(client.get("/api/v1/account", headers=header), 401)


@pytest.mark.parametrize("body", ["", "x", '{"manifest":', "[" * 5000, "\x00"])
def test_a_body_that_is_not_json(client: Client, db: None, body: str) -> None:
    response = client.post("/api/v1/estimate", body, content_type="application/json")
    assert response.status_code == 422 if not body else "must be JSON" in said(response, 400)


def test_a_body_that_is_too_large(client: Client, db: None, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    answer = client.post("/api/v1/estimate", '"' + "a" * 99 + '"', content_type="application/json")
    assert "at most 100 bytes" in said(answer, 413)
    assert client.post("/api/v1/estimate", '"' + "a" * 98 + '"', content_type="application/json").status_code == 422


async def test_a_method_or_a_host_that_is_not_served(async_client: AsyncClient, client: Client, db: None) -> None:
    assert "takes GET, not DELETE" in said(await async_client.delete("/api/v1/experiments"), 405)
    assert "host name" in said(await async_client.get("/api/v1/experiments", headers={"host": "evil.example"}), 400)
    assert "host name" in said(await sync_to_async(client.get)("/api/v1/experiments", headers={"host": "evil.example"}), 400)


def test_other_pages_are_left_alone(client: Client, db: None) -> None:
    assert client.post("/leaderboard/").content == b""
