"""Storing telemetry: once each, totals that never double, and nothing that a liar can break."""

from __future__ import annotations

import math

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from agent.identity import Identity
from agent.reports import Event as EventItem
from agent.reports import Item
from coordinator.experiments.models import Experiment
from coordinator.telemetry import queries
from coordinator.telemetry.intake import Submission
from coordinator.telemetry.models import COUNT_MAX, Event, HostedExpert, RawReport, Session
from coordinator.telemetry.store import BACKFILL_S, DETAIL_CHARS_MAX, open_session, store

from .conftest import NOW, Agent, event, hosts, report

pytestmark = pytest.mark.django_db


def _settle(_: bool) -> None:
    """Nobody waits."""


def submit(experiment: Experiment, agent: Agent, *items: Item, at: float = NOW) -> None:
    """Store `items` of one agent as one flush."""
    store([submission(experiment, agent, *items, at=at)], at)


def submission(experiment: Experiment, agent: Agent, *items: Item, at: float = NOW) -> Submission:
    pk = open_session(experiment, agent.hello(at=at), at)
    return Submission(session_id=pk, experiment=experiment.name, items=items, received_at=at, settle=_settle)


def test_counters_become_what_each_report_added(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, *(report(i, tokens=100 * i, calls=3 * i, rows_served=i * i) for i in (1, 2, 3)))
    assert list(RawReport.objects.order_by("sequence").values_list("tokens", "calls", "rows_served")) == [
        (100, 3, 1),
        (100, 3, 3),
        (100, 3, 5),
    ]


def test_the_same_items_again_change_nothing(experiment: Experiment, bob: Agent) -> None:
    items = [report(1, tokens=100), event(2, "expert-claimed", uid="ffn0.0.0"), report(3, tokens=300)]
    submit(experiment, bob, *items)
    for _ in range(2):
        submit(experiment, bob, *items)
    submit(experiment, bob, items[2], items[0])
    assert RawReport.objects.count() == 2
    assert Event.objects.filter(name="expert-claimed").count() == 1
    assert queries.summary(experiment, NOW).tokens == 300 == sum(r.tokens for r in RawReport.objects.all())


def test_the_same_item_twice_in_one_flush_counts_once(experiment: Experiment, bob: Agent) -> None:
    both = [submission(experiment, bob, report(1, tokens=50)) for _ in range(2)]
    store(both, NOW)
    assert RawReport.objects.count() == 1
    assert Session.objects.get().tokens == 50


def test_a_hole_in_the_sequence_loses_no_total(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=100))
    submit(experiment, bob, report(7, tokens=700))
    assert Session.objects.get().tokens == 700 == sum(r.tokens for r in RawReport.objects.all())
    submit(experiment, bob, report(4, tokens=400, loss=2.0, loss_batches=1))  # it comes after all, and late
    assert Session.objects.get().tokens == 700 == sum(r.tokens for r in RawReport.objects.all())
    assert RawReport.objects.get(sequence=4).loss == 2.0


def test_sessions_add_up(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=100))
    again = Agent(bob.identity, session="1111111111111111")
    submit(experiment, again, report(1, tokens=40))
    assert queries.summary(experiment, NOW).tokens == 140
    assert [p.peer for p in queries.peers(experiment, NOW)] == [bob.peer]


def test_a_counter_that_falls_adds_nothing(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=100), report(2, tokens=10))
    assert Session.objects.get().tokens == 100


def test_liars_cannot_overflow_a_sum(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    for agent in (bob, charlie):
        submit(experiment, agent, report(1, tokens=2**62, calls=2**62, tokens_per_s=1e308, loss=1e300, loss_batches=2**62))
    summary = queries.summary(experiment, NOW)
    assert summary.tokens == 2 * COUNT_MAX
    assert summary.loss is None
    assert all(p.loss is None for p in queries.peers(experiment, NOW))


def test_clocks_ahead_are_cut_to_now_and_very_old_reports_make_no_point(experiment: Experiment, bob: Agent) -> None:
    submit(
        experiment, bob, report(1, NOW - BACKFILL_S - 1, tokens=5), report(2, NOW - BACKFILL_S, tokens=7), report(3, NOW + 1e6)
    )
    assert list(RawReport.objects.order_by("sequence").values_list("sequence", "second")) == [
        (2, int(NOW - BACKFILL_S)),
        (3, int(NOW)),
    ]
    assert Session.objects.get().tokens == 7
    assert queries.summary(experiment, NOW).tokens == 7


def test_validation_makes_a_point_only_when_it_is_new(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, *(report(i, loss_validation=v) for i, v in enumerate([None, 3.0, 3.0, 2.5, None], 1)))
    assert list(RawReport.objects.order_by("sequence").values_list("loss_validation", flat=True)) == [None, 3.0, None, 2.5, None]
    assert queries.summary(experiment, NOW).loss_validation == 2.5


def test_long_details_are_cut(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, event(1, "error", what="x" * 5000))
    assert len(Event.objects.get().detail["what"]) == DETAIL_CHARS_MAX


def test_the_database_itself_refuses_an_item_twice(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1))
    row = RawReport.objects.get()
    row.pk = None
    with pytest.raises(IntegrityError):
        row.save(force_insert=True)


def test_a_deleted_experiment_is_forgotten_quietly(experiment: Experiment, bob: Agent) -> None:
    late = submission(experiment, bob, report(1))
    experiment.delete()
    store([late], NOW)
    assert not Session.objects.exists()


def test_experts_follow_the_higher_epoch_while_its_host_reports(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0", epoch=3)))
    submit(experiment, charlie, report(1, experts=hosts("ffn0.0.0", epoch=2)))
    assert HostedExpert.objects.get().peer == bob.peer
    submit(experiment, charlie, report(2, experts=hosts("ffn0.0.0", epoch=4)))
    assert HostedExpert.objects.get().peer == charlie.peer
    submit(experiment, bob, report(2, NOW + 60, experts=hosts("ffn0.0.0", epoch=1)), at=NOW + 60)  # charlie fell silent
    assert HostedExpert.objects.get().peer == bob.peer


def test_an_expert_that_is_no_longer_reported_has_no_host(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0", "ffn0.0.1")))
    submit(experiment, bob, report(2, experts=hosts("ffn0.0.1")))
    found = {e.uid: e.peer for e in queries.experts(experiment, NOW)}
    assert found == {"ffn0.0.0": None, "ffn0.0.1": bob.peer, "ffn0.1.0": None, "ffn0.1.1": None}


def test_experts_that_are_not_in_the_grid_are_ignored(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn9.0.0", "ffn0.7.7", "ffn0.0", "<script>")))
    assert not HostedExpert.objects.exists()
    assert queries.summary(experiment, NOW).experts_hosted == 0


def test_a_flush_costs_the_same_few_queries_for_one_agent_or_thirty(experiment: Experiment) -> None:
    counts = []
    for n in (1, 30):
        crowd = [Agent(Identity.from_seed(bytes([n, i]) * 16)) for i in range(n)]
        batch = [submission(experiment, a, report(1, tokens=i, experts=hosts("ffn0.0.0"))) for i, a in enumerate(crowd)]
        with CaptureQueriesContext(connection) as context:
            store(batch, NOW)
        counts.append(len(context))
    assert counts[0] == counts[1] <= 12


def test_events_of_agents_are_kept_with_their_time(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, EventItem(sequence=1, at=NOW - 30, name="expert-claimed", detail={"uid": "ffn0.0.1", "epoch": 2}))
    (found,) = queries.events(experiment)
    assert (found.at, found.name, found.peer, found.detail) == (
        NOW - 30,
        "expert-claimed",
        bob.peer,
        {"uid": "ffn0.0.1", "epoch": 2},
    )


def test_an_experts_load_is_what_it_served_lately(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    def load() -> float | None:
        return queries.experts(experiment, NOW + 20)[0].rows_per_s

    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0", rows=1000)), at=NOW + 10)
    assert load() is None  # one report tells no rate
    submit(experiment, bob, report(2, experts=hosts("ffn0.0.0", rows=1100)), at=NOW + 12)
    assert load() == 50
    submit(experiment, bob, report(3, experts=hosts("ffn0.0.0", rows=1100)), at=NOW + 13)
    assert load() == pytest.approx(50 * math.exp(-0.1))  # idle for a second
    submit(experiment, charlie, report(1, experts=hosts("ffn0.0.0", epoch=2, rows=7)), at=NOW + 14)
    assert load() is None


def test_copies_of_an_expert_are_the_peers_here_that_hold_it(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    submit(experiment, bob, report(1, experts=hosts("ffn0.0.0", "ffn0.0.1")))
    submit(experiment, charlie, report(1, experts=hosts("ffn0.0.0", epoch=2)))
    assert [e.copies for e in queries.experts(experiment, NOW)] == [2, 1, 0, 0]
    assert [e.copies for e in queries.experts(experiment, NOW + 60)] == [0, 0, 0, 0]
