"""The pages as the server sends them: complete without JavaScript, escaped, under a strict policy."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest
from django.test import Client

from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment

from .conftest import SMALL, Agent, report
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
    assert "hive-agent --experiment gpt-crowd --coordinator http://testserver" in html
    assert bob.peer in html and "1.23 M" in html and "unknown" in html


def test_the_command_names_the_public_origin(client: Client, experiment: Experiment, settings: Any) -> None:
    settings.SITE_URL = "https://hive.example"
    assert "--coordinator https://hive.example" in client.get("/experiments/gpt-crowd/").content.decode()


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


def test_a_page_costs_few_queries_whatever_the_crowd(
    client: Client, experiment: Experiment, django_assert_max_num_queries: Any
) -> None:
    from agent.identity import Identity

    for i in range(12):
        submit(experiment, Agent(Identity.from_seed(bytes([i]) * 32)), report(1, time.time()), at=time.time())
    with django_assert_max_num_queries(12):
        client.get("/experiments/gpt-crowd/")
    with django_assert_max_num_queries(10):
        client.get("/")
