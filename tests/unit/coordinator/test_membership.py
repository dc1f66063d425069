"""Comings and goings: each noted once, whoever said it first; and when the coordinator itself was away."""

from __future__ import annotations

import pytest

from coordinator.experiments.models import Experiment
from coordinator.telemetry import membership, queries
from coordinator.telemetry.models import Event, HostedExpert, Session

from .conftest import NOW, Agent, event, hosts, report
from .test_store import submit

pytestmark = pytest.mark.django_db


def story(experiment: Experiment) -> list[tuple[str, object]]:
    """Names and reasons of the events, oldest first."""
    rows = Event.objects.filter(experiment=experiment).order_by("pk")
    return [(e.name, e.detail.get("reason") or e.detail.get("returned")) for e in rows]


def test_the_first_working_report_is_a_joining(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, stage="joining"))
    assert story(experiment) == []
    submit(experiment, bob, report(2), report(3))
    assert story(experiment) == [("joined", None)]


@pytest.mark.parametrize("first", ["event", "report"])
def test_joining_is_noted_once(experiment: Experiment, bob: Agent, first: str) -> None:
    items = [event(1, "joined"), report(2)] if first == "event" else [report(1), event(2, "joined")]
    submit(experiment, bob, *items)
    assert story(experiment) == [("joined", None)]


def test_leaving_is_noted_once(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1), event(2, "left"), report(3, stage="stopped"))
    submit(experiment, bob, event(2, "left"))
    assert story(experiment) == [("joined", None), ("left", None)]
    assert queries.peers(experiment, NOW) == []
    assert membership.mark_gone(NOW + 100) == set()


def test_a_stopped_report_alone_is_a_leaving(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0")), report(2, stage="stopped"))
    assert story(experiment) == [("joined", None), ("left", "stopped")]
    assert not HostedExpert.objects.get().hosted


def test_silence_is_a_leaving_after_fifteen_seconds_and_not_before(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0")))
    assert membership.mark_gone(NOW + membership.SILENT_S) == set()
    assert len(queries.peers(experiment, NOW + 14.9)) == 1
    assert queries.peers(experiment, NOW + 15.1) == []
    assert membership.mark_gone(NOW + membership.SILENT_S + 0.1) == {"gpt-crowd"}
    assert membership.mark_gone(NOW + membership.SILENT_S + 0.2) == set()
    assert story(experiment) == [("joined", None), ("left", "silent")]
    assert not HostedExpert.objects.get().hosted


def test_experts_of_a_peer_that_restarted_stay_its(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0")))
    again = Agent(bob.identity, session="1111111111111111")
    submit(experiment, again, report(1, NOW + 14, experts=hosts("ffn0.0.0", epoch=2)), at=NOW + 14)
    membership.mark_gone(NOW + 20)
    assert HostedExpert.objects.get().hosted


def test_a_peer_that_speaks_again_is_back(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1))
    membership.mark_gone(NOW + 20)
    submit(experiment, bob, report(2, NOW + 30), at=NOW + 30)
    assert story(experiment) == [("joined", None), ("left", "silent"), ("joined", True)]
    assert len(queries.peers(experiment, NOW + 30)) == 1


def test_an_agent_that_never_got_in_does_not_leave(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, stage="joining"))
    membership.mark_gone(NOW + 20)
    assert story(experiment) == []


def test_a_coordinator_that_was_away_waits_before_it_calls_anybody_gone(experiment: Experiment, bob: Agent) -> None:
    membership.start_run(NOW)
    submit(experiment, bob, report(1))
    membership.start_run(NOW + 100)  # it was dead for 100 s, and the agent trained on
    assert membership.mark_gone(NOW + 100 + membership.SILENT_S - 0.1) == set()
    assert membership.mark_gone(NOW + 100 + membership.SILENT_S) == {"gpt-crowd"}


def test_outages_are_the_gaps_between_runs(db: None) -> None:
    membership.start_run(NOW)
    for second in range(0, 60, 5):
        membership.heartbeat(NOW + second)
    membership.start_run(NOW + 60)  # a restart of a moment
    membership.heartbeat(NOW + 65)
    membership.start_run(NOW + 165)
    membership.heartbeat(NOW + 170)
    assert membership.outages(NOW, NOW + 200) == [(NOW + 65, NOW + 165)]
    assert membership.outages(NOW + 100, NOW + 200) == [(NOW + 100, NOW + 165)]
    assert membership.outages(NOW + 160, NOW + 200) == []


def test_what_an_agent_delivers_long_after_its_end_does_not_bring_it_back(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=5, experts=hosts("ffn0.0.0")))
    membership.mark_gone(NOW + membership.SILENT_S + 0.1)
    later = NOW + membership.LATE_S + 10
    successor = Agent(bob.identity, session="b" * 16)
    submit(experiment, successor, report(1, later - 1, experts=hosts("ffn0.0.0", epoch=2)), at=later - 1)
    submit(experiment, bob, report(2, NOW + 2, tokens=9, experts=hosts("ffn0.0.0")), at=later)
    assert HostedExpert.objects.get().hosted, "its successor still hosts it"
    submit(experiment, bob, event(3, "left", NOW + 3), report(4, NOW + 3, tokens=11, stage="stopped"), at=later)
    assert story(experiment) == [("joined", None), ("left", "silent"), ("joined", None)]
    assert [p.tokens for p in queries.peers(experiment, later)] == [0]
    assert sorted(s.tokens for s in Session.objects.all()) == [0, 11], "its work counts"
