"""Looking after experiments: what is found, what is called a problem, what the operator and Prometheus are shown."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.identity import Identity
from agent.manifest import GPTModel, Manifest
from agent.reports import Connection
from coordinator.accounts.models import User
from coordinator.celery import app
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.monitoring import machinery, metrics, overlay, overview, problems
from coordinator.monitoring.machinery import Machinery
from coordinator.monitoring.models import BootstrapCheck, Examination, Outcome
from coordinator.telemetry import membership

from .conftest import NOW, Agent, hosts, report
from .test_rollups import rounds
from .test_store import submit

pytestmark = pytest.mark.django_db


def agents(count: int) -> list[Agent]:
    return [Agent(Identity.from_seed(bytes([i + 1]) * 32), session=f"{i:016x}") for i in range(count)]


def knows(*others: Agent, kind: str = "direct") -> tuple[Connection, ...]:
    return tuple(Connection(peer=other.peer, kind=kind) for other in others)  # type: ignore[arg-type]


def well(**changes: Any) -> Machinery:
    fields: dict[str, Any] = {
        "lags_s": {"heartbeat": 1.0, "1-hour points": 50.0},
        "periods_s": machinery.PERIODS_S,
        "queue": 0,
        "buffered": 0,
        "buffered_max": 100,
        "agents": 1,
        "rendezvous": 1,
        "viewers": 1,
    }
    return Machinery(**{**fields, **changes})


def whats(found: Any) -> str:
    return "\n".join(p.what for p in found)


# What is found


def test_an_overlay_in_one_piece(experiment: Experiment) -> None:
    a, b, c = agents(3)
    submit(experiment, a, report(1, connections=knows(b), experts=hosts("ffn0.0.0", "ffn0.0.1")), at=NOW)
    submit(experiment, b, report(1), at=NOW)
    submit(experiment, c, report(1, connections=knows(b, kind="relayed"), experts=hosts("ffn0.1.0")), at=NOW)
    found = overlay.examine(experiment, NOW + 1)
    assert (found.peers, found.parts, found.direct, found.relayed) == (3, [3], 1, 1)
    assert (found.vacant, found.vacant_count, found.experts, found.single_count) == (["ffn0.1.1"], 1, 4, 3)
    assert (found.heaviest_peer, found.heaviest_experts) == (a.peer, 2)


def test_a_split_overlay_and_peers_that_are_stuck(experiment: Experiment) -> None:
    a, b, c, d = agents(4)
    submit(experiment, a, report(1, connections=knows(b)), at=NOW)
    submit(experiment, b, report(1), at=NOW)
    submit(experiment, c, report(1, stage="waiting", why="no experts yet"), at=NOW)
    submit(experiment, d, report(1), at=NOW - membership.SILENT_S - 1)  # gone
    found = overlay.examine(experiment, NOW + 1)
    assert (found.peers, found.parts) == (3, [2, 1])
    assert found.stuck == [{"peer": c.peer, "stage": "waiting", "why": "no experts yet"}]
    said = whats(problems.of_experiment(experiment, found, [], NOW + 1))
    assert "groups of 2, 1 peers" in said and "no experts yet" in said and "4 of 4 experts have no host" in said


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=30))
def test_parts_are_the_components_of_the_graph(edges: list[tuple[int, int]]) -> None:
    """Against the plain way: spread a mark until nothing changes."""
    links: dict[str, set[str]] = {str(i): set() for i in range(10)}
    for a, b in edges:
        links[str(a)].add(str(b))  # 10 to 12 are nobody
    mark = {peer: peer for peer in links}
    for _ in links:
        for peer, others in links.items():
            for other in others & set(links):
                mark[peer] = mark[other] = min(mark[peer], mark[other])
    plain = sorted(({p for p in links if mark[p] == m} for m in set(mark.values())), key=lambda g: (-len(g), min(g)))
    assert overlay.parts(links) == plain


def test_only_what_runs_is_examined(experiment: Experiment, draft: Experiment) -> None:
    done = publish(
        Manifest(name="done", revision=1, title="d", description="", model=GPTModel(grid=(2, 2), layers=1), status="finished")
    )
    assert overlay.examine_all(NOW) == 1
    assert (
        set(Examination.objects.values_list("experiment_id", flat=True)) == {experiment.pk}
        and done.experiment_id != experiment.pk
    )


# What is called a problem


def test_a_well_coordinator_has_no_problem() -> None:
    assert list(problems.of_machinery(well(), NOW)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lags_s": {"heartbeat": 18.1}}, "“heartbeat” is 18 s behind"),
        ({"lags_s": {"1-hour points": 75.5}}, "“1-hour points” is 76 s behind"),
        ({"lags_s": {"contributions": None}}, "“contributions” has not run yet"),
        ({"queue": None}, "cannot be reached"),
        ({"queue": 101}, "101 tasks wait"),
        ({"buffered": 51}, "51 of at most 100 reports wait"),
    ],
)
def test_what_is_wrong_with_the_coordinator(changes: dict[str, Any], said: str) -> None:
    (problem,) = problems.of_machinery(well(**changes), NOW)
    assert said in problem.what and problem.fix


@pytest.mark.parametrize("changes", [{"lags_s": {"heartbeat": 17.9}}, {"queue": 100}, {"buffered": 50}])
def test_limits_are_not_yet_problems(changes: dict[str, Any]) -> None:
    assert list(problems.of_machinery(well(**changes), NOW)) == []


def test_copies_and_heavy_hosts(experiment: Experiment) -> None:
    fine = {"experiment": experiment, "at": NOW, "peers": 3, "parts": [3], "experts": 4, "heaviest_peer": "a" * 52}

    answers = BootstrapCheck(experiment=experiment, address="ws://192.0.2.1:7/x", outcome=Outcome.OK, checked_at=NOW)

    def said(**fields: Any) -> str:
        return whats(problems.of_experiment(experiment, Examination(**{**fine, **fields}), [answers], NOW))

    assert said(single_count=4, heaviest_experts=2) == "", "no copies anywhere: such an experiment keeps none"
    assert said(single_count=1) == "1 of 4 experts is on one peer alone."
    assert said(heaviest_experts=3) == "Peer aaaaaaaa hosts 3 of 4 experts."
    assert "2 of 3 reported connections are relayed" in said(direct=1, relayed=2)


def test_bootstrap_addresses(experiment: Experiment) -> None:
    def check(outcome: Outcome, detail: str = "") -> BootstrapCheck:
        return BootstrapCheck(experiment=experiment, address="ws://192.0.2.1:7/x", outcome=outcome, detail=detail, checked_at=NOW)

    examined = Examination(experiment=experiment, at=NOW, peers=0)

    def said(*checks: BootstrapCheck) -> str:
        return whats(problems.of_experiment(experiment, examined, list(checks), NOW))

    assert said(check(Outcome.OK)) == "" and "does not answer: no route" in said(
        check(Outcome.OK), check(Outcome.FAILED, "no route")
    )
    assert len(said(check(Outcome.FAILED)).splitlines()) == 2, "and none at all answers"
    assert "does not answer" not in said(check(Outcome.SKIPPED))


def test_an_examination_that_is_old_is_no_good_news(experiment: Experiment) -> None:
    old = Examination(experiment=experiment, at=NOW - problems.STALE_S - 1, peers=0)
    assert "not been looked at" in whats(problems.of_experiment(experiment, old, [], NOW))


# What is shown


def test_the_operators_page(client: Client, experiment: Experiment, django_assert_max_num_queries: Any) -> None:
    staff = User.objects.create_user("dora@example.org", "long enough for it", is_staff=True)
    client.force_login(staff)
    for agent in agents(8):
        submit(experiment, agent, report(1, time.time()), at=time.time())
    overlay.examine_all(time.time())
    with django_assert_max_num_queries(14):
        page = client.get("/operator/").content.decode()
    assert "4 of 4 experts have no host" in page and "groups of" in page and "has not run yet" in page
    assert "Tasks waiting" in page and "GPT of the crowd" in page


def test_the_overviews_cost_does_not_grow_with_experiments(experiment: Experiment, django_assert_max_num_queries: Any) -> None:
    for i in range(9):
        publish(Manifest(name=f"more-{i}", revision=1, title="m", description="", model=GPTModel(grid=(2, 2), layers=1)))
    with django_assert_max_num_queries(8):
        assert len(overview.overview(NOW)["experiments"]) == 10
    with django_assert_max_num_queries(20):
        metrics.text(NOW)


def families(client: Client, **headers: str) -> dict[str, dict[tuple[str, ...], float]]:
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain")
    parsed = text_string_to_metric_families(answer.content.decode())
    return {f.name: {tuple(s.labels.values()): s.value for s in f.samples} for f in parsed}


def test_metrics_are_what_prometheus_reads(client: Client, experiment: Experiment, bob: Agent) -> None:
    now = time.time()
    first = report(1, now, tokens=64, loss=2.5, loss_batches=1, tokens_per_s=32.0, bytes_p2p_sent=100, experts=hosts("ffn0.0.0"))
    submit(experiment, bob, first, at=now)
    rounds(now + 1)
    overlay.examine_all(now)
    BootstrapCheck.objects.create(experiment=experiment, address="ws://192.0.2.1:7/x", outcome=Outcome.FAILED, checked_at=now)
    found, mine = families(client), ("gpt-crowd",)
    assert found["hive_experiment_peers"][mine] == found["hive_experiment_trainers"][mine] == 1
    assert found["hive_experiment_tokens"][mine] == 64 and found["hive_experiment_loss"][mine] == 2.5
    assert found["hive_experiment_experts_total"][mine] == 4 and found["hive_experts_vacant"][mine] == 3
    assert found["hive_experts_single"][mine] == 1 and found["hive_overlay_parts"][mine] == 1
    assert (found["hive_bootstrap_up"][mine], found["hive_bootstrap_down"][mine]) == (0, 1)
    assert found["hive_task_lag_seconds"]["1-second points",] < 60 and found["hive_queue_tasks"][()] >= 0
    assert set(found["hive_websockets"]) == {("telemetry",), ("rendezvous",), ("viewers",)}
    assert "hive_experiment_loss_validation" not in found or mine not in found["hive_experiment_loss_validation"], (
        "unknown is no sample"
    )
    assert bob.peer not in client.get("/metrics").content.decode(), "peers are no labels"


def test_metrics_with_a_token(client: Client, experiment: Experiment, settings: Any) -> None:
    settings.METRICS_TOKEN = "secret"
    for shown in ("", "Bearer", "Bearer wrong", "Basic secret", "Bearer sécret"):
        answer = client.get("/metrics", headers={"Authorization": shown})
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer", shown
    assert families(client, Authorization="Bearer secret")


def test_a_broker_that_does_not_answer_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machinery.queue_length() == 0
    monkeypatch.setattr(app, "connection_for_read", lambda **_: app.connection("redis://127.0.0.1:1/0"))
    monkeypatch.setattr(machinery, "CONNECT_S", 0.2)
    assert machinery.queue_length() is None
