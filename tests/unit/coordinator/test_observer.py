"""The site's observer: what it is sent out with, what is kept of what it found, and what is shown."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import msgspec
import pytest
from django.test import Client

from agent.admission import Rule
from agent.identity import KeyFile, PeerId
from agent.observation import Assignment, Finding
from coordinator import state
from coordinator.experiments.models import Experiment
from coordinator.monitoring import observer, overview, problems
from coordinator.monitoring.models import BootstrapCheck, Census, Outcome
from tests.unit.coordinator.conftest import NOW, Agent, account, report, signed_in
from tests.unit.coordinator.test_store import submit

pytestmark = pytest.mark.django_db


class Sent:
    """An observer that finds what it is told to."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.assignments: list[Assignment] = []

    def __call__(self, assignment: Assignment) -> Finding:
        self.assignments.append(assignment)
        return self.finding


@pytest.fixture
def present(experiment: Experiment, alice: Agent) -> Experiment:
    """The experiment with Alice's agent in it, and a bootstrap address that answers."""
    submit(experiment, alice, report(1))
    check(experiment, alice, Outcome.OK)
    return experiment


def check(experiment: Experiment, agent: Agent, outcome: Outcome) -> None:
    BootstrapCheck.objects.create(
        experiment=experiment, address=f"ws://127.0.0.1:4000/{agent.peer}", outcome=outcome, checked_at=NOW, answered_at=NOW
    )


WHOLE = Finding(peers=5, silent=1, missing=0, records=20, replicas=3.5, parts=(5,), complete=True, asked=6, seconds=1.5)


def test_it_is_sent_with_addresses_that_answer_and_the_peers_that_report(present: Experiment, alice: Agent, bob: Agent) -> None:
    check(present, bob, Outcome.FAILED)
    sent = Sent(WHOLE)
    assert observer.census_all(NOW, sent) == 1
    (assignment,) = sent.assignments
    assert assignment.contacts == (f"ws://127.0.0.1:4000/{alice.peer}",)
    assert assignment.expected == (alice.peer,)
    assert msgspec.json.decode(msgspec.json.encode(assignment), type=Assignment) == assignment


def test_it_is_admitted_like_everybody_else(present: Experiment) -> None:
    sent = Sent(WHOLE)
    observer.census_all(NOW, sent)
    key = PeerId.parse(sent.assignments[0].coordinator_key)
    rule = Rule(experiment=present.name, policy="invite", key=key)
    with KeyFileOpen(sent.assignments[0].key_file) as peer:
        assert rule.judge(peer, sent.assignments[0].certificate, NOW) is not None


class KeyFileOpen:
    """Holds a key file, as the running observer does."""

    def __init__(self, path: str) -> None:
        from pathlib import Path

        self._file = KeyFile(Path(path))

    def __enter__(self) -> PeerId:
        return self._file.open().peer_id

    def __exit__(self, *raised: object) -> None:
        self._file.close()


def test_who_it_is_can_be_told_while_it_runs(state_dir: Any) -> None:
    first = state.observer_identity(state_dir)
    with KeyFileOpen(str(state_dir / state.OBSERVER_FILE)) as peer:
        assert state.observer_identity(state_dir) == first == peer


def test_what_it_found_is_kept_and_shown(present: Experiment) -> None:
    observer.census_all(NOW, Sent(WHOLE))
    found = overview.of_experiment(present, NOW)["census"]
    assert (found.peers, found.records, found.parts, found.error) == (5, 20, [5], "")
    assert list(problems.of_census(present, found, NOW)) == []


def test_an_overlay_in_parts_and_peers_that_it_misses_are_problems(present: Experiment) -> None:
    observer.census_all(NOW, Sent(msgspec.structs.replace(WHOLE, parts=(3, 2), missing=4)))
    found = list(problems.of_census(present, Census.objects.get(), NOW))
    assert ["parts of 3, 2" in found[0].what, "4 peers report" in found[1].what] == [True, True]
    assert list(problems.of_census(present, Census.objects.get(), NOW + 301)) == []


def test_without_an_address_that_answers_it_is_not_sent_and_the_page_says_why(present: Experiment) -> None:
    BootstrapCheck.objects.update(outcome=Outcome.SKIPPED)
    sent = Sent(WHOLE)
    observer.census_all(NOW, sent)
    assert sent.assignments == []
    assert "no bootstrap address answers" in Census.objects.get().error
    assert list(problems.of_census(present, Census.objects.get(), NOW)) == []


def test_nobody_is_sent_to_an_experiment_without_peers(experiment: Experiment) -> None:
    assert observer.census_all(NOW, Sent(WHOLE)) == 0


def test_a_round_ends_when_its_time_is_up(present: Experiment) -> None:
    times = iter([0.0, observer.ROUND_S + 1])
    assert observer.census_all(NOW, Sent(WHOLE), clock=lambda: next(times)) == 0


def test_the_operator_and_the_api_see_it(present: Experiment) -> None:
    now = time.time()
    Census.objects.create(
        experiment=present, at=now, observer="a" * 52, peers=7, records=31, replicas=3.0, parts=[7], complete=True
    )
    client = signed_in(account("Olga", is_staff=True))
    page = client.get("/operator/").content.decode()
    assert "7 peers" in page and "31, 3.0 copies each" in page
    body = client.get(f"/api/v1/experiments/{present.name}/health").json()["census"]
    assert (body["peers"], body["records"], body["parts"]) == (7, 31, [7])
    assert "hive_overlay_peers" in Client().get("/metrics").content.decode()


def test_what_is_unknown_is_not_shown_as_zero(present: Experiment) -> None:
    Census.objects.create(experiment=present, at=NOW, observer="a" * 52, error="nobody answers")
    body = Client().get(f"/api/v1/experiments/{present.name}/health").json()["census"]
    assert (body["peers"], body["records"], body["error"]) == (None, None, "nobody answers")


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (subprocess.CompletedProcess([], 1, b"", b"Traceback"), "the coordinator's log"),
        (subprocess.TimeoutExpired([], 1), "did not come back"),
        (FileNotFoundError(2, "No such file"), "cannot be started"),
    ],
)
def test_an_observer_that_fails_is_said_to_have_failed(
    present: Experiment, monkeypatch: pytest.MonkeyPatch, outcome: Any, words: str
) -> None:
    def run(*arguments: object, **options: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(observer.subprocess, "run", run)
    observer.census_all(NOW)
    assert words in Census.objects.get().error
