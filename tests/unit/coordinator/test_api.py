"""Every route of the API: what it answers, to whom, at its limits, and at what cost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.test import Client

from agent.identity import Identity
from agent.manifest import decode_signed
from agent.reports import Connection
from coordinator import state
from coordinator.experiments.models import Experiment
from coordinator.rendezvous.actions import announce

from .conftest import Agent, event, hosts, report
from .test_rollups import rounds
from .test_store import submit

pytestmark = pytest.mark.django_db
ROUTES = ["", "/manifest", "/bootstrap", "/series", "/peers", "/experts", "/events", "/connections"]


@pytest.fixture
def now() -> float:
    return time.time()


def get(client: Client, path: str, status: int = 200) -> Any:
    response = client.get(f"/api/v1/experiments{path}")
    assert response.status_code == status, response.content
    return response.json()


def test_the_list_has_what_is_published(client: Client, experiment: Experiment, draft: Experiment) -> None:
    assert get(client, "") == [{"name": "gpt-crowd", "title": "GPT of the crowd", "status": "open"}]
    assert get(client, "?limit=1&offset=1") == []
    get(client, "?limit=201", 422)
    get(client, "?offset=-1", 422)


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_not_published_is_not_there(client: Client, draft: Experiment, route: str) -> None:
    for name in ("secret", "nope"):
        assert get(client, f"/{name}{route}", 404) == {"detail": f"There is no experiment '{name}' here."}


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_is_written_by_get_and_nothing_else_is_allowed(client: Client, experiment: Experiment, route: str) -> None:
    assert client.post(f"/api/v1/experiments/gpt-crowd{route}", {}, content_type="application/json").status_code == 405


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_before_anybody_came(client: Client, experiment: Experiment, route: str) -> None:
    get(client, f"/gpt-crowd{route}")


@pytest.mark.parametrize("route", [r for r in ROUTES if r != "/manifest"])
def test_queries_do_not_grow_with_the_crowd(
    client: Client, experiment: Experiment, route: str, now: float, django_assert_max_num_queries: Any
) -> None:
    for i in range(12):
        submit(
            experiment, Agent(Identity.from_seed(bytes([i]) * 32)), report(1, now, tokens=1, experts=hosts("ffn0.0.0")), at=now
        )
    with django_assert_max_num_queries(13):
        get(client, f"/gpt-crowd{route}")


def test_an_experiment(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    submit(experiment, bob, report(1, now, tokens=12, tokens_per_s=12.0, bytes_p2p_sent=99), at=now)
    body = get(client, "/gpt-crowd")
    assert (body["name"], body["title"], body["description"], body["revision"]) == (
        "gpt-crowd",
        "GPT of the crowd",
        "It learns.",
        1,
    )
    assert body["summary"] | {"reported_at": None} == {
        "status": "open", "peers": 1, "trainers": 1, "tokens": 12, "tokens_per_s": 12.0, "loss": None, "loss_validation": None,
        "experts_total": 4, "experts_hosted": 0, "bytes_p2p": 99, "bytes_coordinator": 0, "reported_at": None,
    }  # fmt: skip


def test_the_manifest_is_what_agents_verify(client: Client, experiment: Experiment, state_dir: Any) -> None:
    response = client.get("/api/v1/experiments/gpt-crowd/manifest")
    manifest = decode_signed(response.content).open(
        pinned_key=str(state.signing_identity(state_dir).peer_id), name="gpt-crowd", revision_min=1
    )
    assert manifest.model.grid == (2, 2)


def test_the_manifest_is_not_sent_twice(client: Client, experiment: Experiment) -> None:
    url = "/api/v1/experiments/gpt-crowd/manifest"
    etag = client.get(url).headers["ETag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}'):
        response = client.get(url, headers={"If-None-Match": given})
        assert (response.status_code, response.content, response.headers["ETag"]) == (304, b"", etag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_bootstrap_has_the_manifests_addresses_and_those_announced(
    client: Client, experiment: Experiment, bob: Agent, now: float
) -> None:
    assert get(client, "/gpt-crowd/bootstrap") == {"addresses": []}
    announce(experiment, bob.peer, f"ws://192.0.2.1:7000/{bob.peer}", now)
    assert get(client, "/gpt-crowd/bootstrap") == {"addresses": [f"ws://192.0.2.1:7000/{bob.peer}"]}


def test_series(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    submit(experiment, bob, report(1, now, tokens=8, loss=2.0, loss_batches=1), at=now)
    rounds(now + 1)
    for resolution in (1, 60, 3600):
        body = get(client, f"/gpt-crowd/series?resolution={resolution}")
        assert (body["resolution"], body["loss"], body["tokens"]) == (resolution, [2.0], [8])
    assert get(client, f"/gpt-crowd/series?since={now + 10}")["at"] == []
    for bad in ("resolution=2", "resolution=x", "since=-1", "since=nan", "since=1e12"):
        get(client, f"/gpt-crowd/series?{bad}", 422)


def test_peers(client: Client, experiment: Experiment, bob: Agent, charlie: Agent, now: float) -> None:
    links = (Connection(peer=charlie.peer, kind="direct"), Connection(peer="a" * 52, kind="relayed"))
    submit(experiment, bob, report(1, now, step=3, tokens=5, loss=2.0, connections=links), at=now)
    submit(experiment, charlie, report(1, now, stage="waiting", why="no experts yet"), at=now)
    first, second = get(client, "/gpt-crowd/peers")
    assert (first["peer"], first["step"], first["direct"], first["relayed"]) == (bob.peer, 3, 1, 1)
    assert (second["peer"], second["stage"], second["why"]) == (charlie.peer, "waiting", "no experts yet")
    assert len(get(client, "/gpt-crowd/peers?limit=1")) == 1
    assert [p["peer"] for p in get(client, "/gpt-crowd/peers?limit=1&offset=1")] == [charlie.peer]
    get(client, "/gpt-crowd/peers?limit=1001", 422)
    get(client, "/gpt-crowd/peers?limit=0", 422)


def test_experts(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    submit(experiment, bob, report(1, now, experts=hosts("ffn0.1.0", epoch=2, version=9, rows=64)), at=now)
    body = get(client, "/gpt-crowd/experts")
    assert [e["uid"] for e in body] == ["ffn0.0.0", "ffn0.0.1", "ffn0.1.0", "ffn0.1.1"]
    assert body[2] | {"seen_at": 0} == {
        "uid": "ffn0.1.0", "peer": bob.peer, "copies": 1, "epoch": 2, "version": 9, "rows": 64, "rows_per_s": None, "seen_at": 0
    }  # fmt: skip
    assert body[0] == {
        "uid": "ffn0.0.0",
        "peer": None,
        "copies": 0,
        "epoch": None,
        "version": None,
        "rows": None,
        "rows_per_s": None,
        "seen_at": None,
    }
    assert [e["uid"] for e in get(client, "/gpt-crowd/experts?limit=1&offset=3")] == ["ffn0.1.1"]
    get(client, "/gpt-crowd/experts?limit=4097", 422)


def test_events(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    items = [
        event(1, "joined", now),
        event(2, "averaged", now + 1),
        event(3, "expert-claimed", now + 2),
        event(4, "left", now + 3),
    ]
    submit(experiment, bob, *items, at=now + 4)

    def names(query: str) -> list[str]:
        return [e["name"] for e in get(client, f"/gpt-crowd/events{query}")]

    assert names("") == ["left", "expert-claimed", "joined"]
    assert names("?quiet=true") == ["left", "expert-claimed", "averaged", "joined"]
    assert names("?only=joined&only=left") == ["left", "joined"]
    assert names("?limit=1") == ["left"]
    assert names(f"?before={now + 2}") == ["joined"]
    for bad in ("?limit=201", "?only=UPPER", "?before=x", "?" + "&".join(["only=joined"] * 21)):
        get(client, f"/gpt-crowd/events{bad}", 422)


def test_connections_are_counted_once_and_only_between_those_here(
    client: Client, experiment: Experiment, alice: Agent, bob: Agent, charlie: Agent, now: float
) -> None:
    submit(experiment, bob, report(1, now, connections=(Connection(peer=charlie.peer, kind="direct", rtt_ms=3.0),)), at=now)
    theirs = (Connection(peer=bob.peer, kind="relayed"), Connection(peer=alice.peer, kind="direct"))
    submit(experiment, charlie, report(1, now, connections=theirs), at=now)
    a, b = sorted((bob.peer, charlie.peer))
    assert get(client, "/gpt-crowd/connections") == [{"a": a, "b": b, "kind": "relayed", "rtt_ms": 3.0}]


def test_the_schema_describes_every_route(client: Client) -> None:
    paths = client.get("/api/v1/openapi.json").json()["paths"]
    assert set(paths) >= {"/api/v1/experiments"} | {f"/api/v1/experiments/{{name}}{route}" for route in ROUTES}
    for path, methods in paths.items():
        for method, operation in methods.items():
            assert operation.get("description") and operation.get("tags"), f"{method} {path} says nothing of itself"
