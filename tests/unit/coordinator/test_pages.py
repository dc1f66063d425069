"""The pages as the server sends them: complete without JavaScript, escaped, under a strict policy."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest
from django.test import Client

from agent.identity import Identity
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.experiments.presets import DIGITS
from coordinator.telemetry.rollups import roll_up_seconds

from .conftest import SMALL, Agent, event, hosts, report
from .test_store import submit

pytestmark = pytest.mark.django_db


def test_home(client: Client, experiment: Experiment, draft: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, time.time(), tokens=1_234_567), at=time.time())
    html = client.get("/").content.decode()
    assert "GPT of the crowd" in html and "1.23 M" in html and "/experiments/gpt-crowd/" in html
    assert "Not yet" not in html and "secret" not in html


def test_home_with_nothing_published(client: Client) -> None:
    assert "No experiment is published here yet" in client.get("/").content.decode()


def test_experiment_page(client: Client, experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, time.time(), tokens=1_234_567), at=time.time())
    html = client.get("/experiments/gpt-crowd/").content.decode()
    words = re.sub("<[^>]+>", "", html)
    assert "hive-agent --experiment gpt-crowd --coordinator http://testserver" in words
    assert bob.peer in html and "1.23 M" in html and "unknown" in html


def test_a_classifier_counts_images_and_writes_nothing(client: Client, bob: Agent) -> None:
    revision = publish(DIGITS)
    submit(revision.experiment, bob, report(1, time.time(), tokens=1_234_567), at=time.time())
    html = client.get("/experiments/digits/").content.decode()
    words = re.sub("<[^>]+>", " ", html)
    assert "nats per image" in words and "Images trained" in words and "on images held out" in words
    assert "4 patches of 4 × 4 pixels" in words and "CC BY 4.0" in words
    assert "token" not in words.lower() and "What it writes" not in words and "byte" not in words
    assert re.search(r"<dt>Images</dt><dd[^>]*>1.23 M", client.get("/").content.decode())


def test_the_command_names_the_public_origin(client: Client, experiment: Experiment, settings: Any) -> None:
    settings.SITE_URL = "https://hive.example"
    assert "--coordinator https://hive.example" in client.get("/experiments/gpt-crowd/").content.decode()


def test_it_says_how_to_get_the_agent(client: Client, experiment: Experiment, settings: Any) -> None:
    assert "<code>pip install .</code> in them" in client.get("/experiments/gpt-crowd/").content.decode()
    settings.INSTALL_COMMAND = "pip install git+https://hive.example/<x>"
    assert (
        "Install it: <code>pip install git+https://hive.example/&lt;x&gt;</code>"
        in client.get("/experiments/gpt-crowd/").content.decode()
    )


def test_a_finished_experiment_asks_nobody_to_join(client: Client, experiment: Experiment) -> None:
    publish(msgspec.structs.replace(SMALL, status="finished"))
    assert "hive-agent --experiment" not in client.get("/experiments/gpt-crowd/").content.decode()


def test_what_organizers_and_agents_write_is_escaped(client: Client, bob: Agent) -> None:
    evil = "<script>alert(1)</script>"
    experiment = publish(msgspec.structs.replace(SMALL, title=evil, description=evil)).experiment
    submit(experiment, bob, report(1, time.time(), why=evil), at=time.time())
    for page in ("/", "/experiments/gpt-crowd/"):
        assert evil not in client.get(page).content.decode()


@pytest.mark.parametrize("path", ["/experiments/secret/", "/experiments/nope/", "/nope"])
def test_what_is_not_there(client: Client, draft: Experiment, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "This cell is empty" in response.content.decode()


@pytest.mark.parametrize("path", ["/", "/experiments/gpt-crowd/", "/nope", "/api/v1/docs", "/healthz"])
def test_the_policy_is_strict_and_nothing_is_inline(client: Client, experiment: Experiment, path: str) -> None:
    response = client.get(path)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    html = response.content.decode()
    assert "style=" not in html and "onclick" not in html and "<style" not in html
    assert html.count("<script") == html.count('<script type="module" src=') + html.count("<script src=") + html.count(
        '<script type="application/json"'
    )


def test_pages_only_answer_to_reading(client: Client, experiment: Experiment) -> None:
    assert client.post("/").status_code == 405
    assert client.post("/experiments/gpt-crowd/").status_code == 405


QUERIES_MAX = {
    "/": 9,
    "/experiments/gpt-crowd/": 15,
    "/leaderboard/": 8,
    "/leaderboard/in/gpt-crowd/": 9,
    "/leaderboard/numbers/": 1,
    "/peers/?id=abcd": 2,
    "/teams/": 3,
    "/accounts/login/": 2,
    "/accounts/signup/": 2,
    "/nope": 1,
    "/api/v1/experiments": 2,
    "/api/v1/experiments/gpt-crowd": 8,
    "/api/v1/experiments/gpt-crowd/series": 8,
    "/api/v1/experiments/gpt-crowd/peers": 2,
    "/api/v1/experiments/gpt-crowd/experts": 5,
    "/api/v1/experiments/gpt-crowd/events": 2,
    "/api/v1/experiments/gpt-crowd/samples": 2,
    "/api/v1/experiments/gpt-crowd/connections": 2,
    "/api/v1/experiments/gpt-crowd/health": 4,
}
"""Of the database, per page and answer, whatever the number of peers and experiments."""


@pytest.mark.parametrize("path", QUERIES_MAX)
def test_a_page_costs_few_queries_whatever_the_crowd(
    client: Client, experiment: Experiment, django_assert_max_num_queries: Any, path: str
) -> None:
    now = time.time()
    costs = []
    for crowd in (2, 12):
        for i in range(crowd):
            publish(msgspec.structs.replace(SMALL, name=f"other-{i}"))
            agent = Agent(Identity.from_seed(bytes([i]) * 32))
            sample = event(2, "sample", now, step=1, prompt="a", text="b")
            hosting = hosts(("ffn0.0.0", "ffn0.0.1", "ffn0.1.0", "ffn0.1.1")[i % 4])
            submit(experiment, agent, report(1, now, tokens=5, loss=3.0, loss_batches=1, experts=hosting), sample, at=now)
        roll_up_seconds(now)
        with django_assert_max_num_queries(QUERIES_MAX[path]) as queries:
            client.get(path)
        costs.append(len(queries))
    assert costs[0] == costs[1], "a larger crowd costs more queries"


def test_a_form_without_its_token_says_what_to_do(db: None) -> None:
    response = Client(enforce_csrf_checks=True).post("/accounts/login/", {"login": "a"})
    assert response.status_code == 403 and b"This form was not sent" in response.content and b"<nav" in response.content


def test_another_host_name_is_refused_in_words_and_not_in_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get("/", headers={"host": "evil.example"})
    assert response.status_code == 400 and b"HIVE_ALLOWED_HOSTS" in response.content
    assert "Traceback" not in caplog.text and not caplog.records
