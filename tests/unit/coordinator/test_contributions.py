"""Contributions: derived from reports once, bounded where they are implausible, and the same however often they are made."""

from __future__ import annotations

import random

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from agent.identity import Identity
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import derive, ledger, plausible, scores
from coordinator.leaderboard.models import EVER, SUMS, Board, Contribution, Kind, Source, Standing, Tally
from coordinator.leaderboard.plausible import LIMITS, Claim, judge
from coordinator.telemetry.models import RawReport, Session

from .conftest import NOW, Agent, report
from .test_store import submit

pytestmark = pytest.mark.django_db
HOUR = NOW // 3600 * 3600
RECORD = (
    "experiment_id",
    "peer",
    "served",
    "session",
    "kind",
    "source",
    "verified",
    "amount",
    "claimed",
    "started_at",
    "ended_at",
)


def records() -> list[tuple[object, ...]]:
    return list(Contribution.objects.order_by(*RECORD).values_list(*RECORD))


def tallies() -> list[tuple[object, ...]]:
    return list(Tally.objects.order_by("experiment_id", "peer", "hour").values_list("experiment_id", "peer", "hour", *SUMS))


def standings() -> list[tuple[object, ...]]:
    ranks = [f"{when}_{kind}" for when in ("rank", "before") for kind in ("tokens", "rows", "uptime")]
    return list(
        Standing.objects.order_by("board__experiment", "board__window", "peer").values_list(
            "board__experiment", "board__window", "peer", *SUMS, *ranks
        )
    )


def amounts(kind: str) -> dict[str, int]:
    return dict(Tally.objects.filter(hour=EVER).values_list("peer", kind))


def crowd(n: int) -> list[Agent]:
    return [Agent(Identity.from_seed(bytes([i]) * 32)) for i in range(n)]


def test_a_minute_of_a_session_makes_a_row_of_each_kind(experiment: Experiment, bob: Agent) -> None:
    items = [report(i + 1, HOUR + i, tokens=100 * (i + 1), rows_served=7 * (i + 1)) for i in range(70)]
    submit(experiment, bob, *items, at=HOUR + 70)
    assert derive.derive(HOUR + 70) == 6
    found = {(c.kind, c.started_at): (c.amount, c.claimed, c.ended_at) for c in Contribution.objects.all()}
    assert found == {
        ("tokens", HOUR): (6000, 6000, HOUR + 60),
        ("tokens", HOUR + 60): (1000, 1000, HOUR + 120),
        ("rows", HOUR): (420, 420, HOUR + 60),
        ("rows", HOUR + 60): (70, 70, HOUR + 120),
        ("uptime", HOUR): (60, 60, HOUR + 60),
        ("uptime", HOUR + 60): (10, 10, HOUR + 120),
    }
    one = Contribution.objects.first()
    assert one is not None
    assert (one.peer, one.session, one.served, one.source, one.verified) == (bob.peer, bob.session, "", Source.REPORT, False)


def test_a_round_that_is_repeated_changes_nothing(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, *(report(i, HOUR + i, tokens=10 * i) for i in range(1, 100)), at=HOUR + 100)
    derive.derive(HOUR + 100)
    before = records(), tallies()
    assert derive.derive(HOUR + 101) == 0
    assert (records(), tallies()) == before


def test_reports_in_bursts_and_late_give_what_one_round_gives(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    rng = random.Random(3)
    at = HOUR + 3000.0
    for agent in (bob, charlie):
        total = 0
        items = []
        for i in range(1, 400):
            total += rng.randint(0, 50)
            items.append(report(i, HOUR + 7 * i, tokens=total, rows_served=total * 2))
        while items:  # the coordinator was away; the agent sends what it kept, in order, in pieces
            n = rng.randint(1, 60)
            submit(experiment, agent, *items[:n], at=at)
            del items[:n]
            derive.derive(at)
            at += 20
    made = records(), tallies()
    Contribution.objects.all().delete()
    Tally.objects.all().delete()
    derive.again(HOUR + 4000)
    assert (records(), tallies()) == made


def test_a_counter_that_falls_is_noted_and_takes_nothing_away(experiment: Experiment, bob: Agent) -> None:
    submit(
        experiment, bob, report(1, tokens=100), report(2, tokens=10), report(3, tokens=120), report(4, rows_served=1, tokens=120)
    )
    derive.derive(NOW)
    assert amounts("tokens") == {bob.peer: 120}
    assert Session.objects.get().falls == 1


def test_a_counter_out_of_order_is_no_fall(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(2, tokens=100))
    submit(experiment, bob, report(1, tokens=50))
    assert Session.objects.get().falls == 0


@pytest.mark.parametrize("kind", ["tokens", "rows"])
def test_the_limit_and_one_past_it(kind: str) -> None:
    most = LIMITS.per_minute(kind)
    zero = {"tokens": 0, "rows": 0}
    at = judge([Claim(session="a", slot=0, **zero | {kind: most})])
    past = judge([Claim(session="a", slot=0, **zero | {kind: most + 1})])
    assert at["a", kind] == (most, most)
    assert past["a", kind] == (most, most + 1)


def test_sessions_of_one_peer_share_its_limit_and_its_presence() -> None:
    most = LIMITS.per_minute("tokens")
    claims = [Claim(session=s, slot=slot, tokens=most // 2, rows=0) for s in "abc" for slot in (0, 1)]
    judged = judge(claims)
    assert [judged[s, "tokens"] for s in "abc"] == [(most, most), (0, most), (0, most)]
    assert judged["a", "uptime"] == (20, 20) and ("b", "uptime") not in judged


def test_absurd_claims_are_recorded_and_do_not_count(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, HOUR + 1, tokens=2**62), at=HOUR + 2)
    derive.derive(HOUR + 2)
    assert amounts("tokens") == {bob.peer: LIMITS.per_minute("tokens")}
    assert amounts("withheld_tokens") == {bob.peer: 2**50 - LIMITS.per_minute("tokens")}


def test_the_database_refuses_what_is_not_sound(experiment: Experiment) -> None:
    sound = {"peer": "p", "kind": "tokens", "amount": 1, "claimed": 1, "started_at": 0, "ended_at": 60}
    for wrong in ({"amount": -1, "claimed": 0}, {"amount": 2}, {"ended_at": 0}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Contribution.objects.create(experiment=experiment, **sound | wrong)


def test_receipts_fit_the_same_record(experiment: Experiment, bob: Agent, alice: Agent) -> None:
    submit(experiment, bob, report(1, HOUR + 1, rows_served=100), at=HOUR + 2)
    derive.derive(HOUR + 2)
    receipt = ledger.Entry(
        peer=bob.peer,
        served=alice.peer,
        kind=Kind.ROWS,
        source=Source.RECEIPT,
        verified=True,
        amount=80,
        claimed=80,
        started_at=int(HOUR),
        ended_at=int(HOUR) + 60,
    )
    assert ledger.post(experiment.pk, [receipt], HOUR + 3) == 1
    assert ledger.post(experiment.pk, [receipt], HOUR + 4) == 0
    scores.compute(HOUR + 5)
    standing = Standing.objects.get(board__window="day", board__experiment=experiment)
    assert (standing.rows, standing.verified_rows) == (100, 80)
    kept = tallies()
    ledger.rebuild_tallies(HOUR + 6)
    assert tallies() == kept


def test_old_minutes_are_merged_and_sums_stay(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    for agent in (bob, charlie):
        submit(experiment, agent, *(report(i, HOUR + 20 * i, tokens=9 * i) for i in range(1, 600)), at=HOUR + 12_000)
    derive.derive(HOUR + 12_000)
    before = tallies()
    many = Contribution.objects.count()
    assert derive.merge(HOUR + 12_000) == 0
    later = HOUR + 12_000 + 30 * 3600
    while derive.merge(later):
        pass
    assert Contribution.objects.count() < many / 20
    assert set(Contribution.objects.values_list("ended_at", "started_at")) == {
        (HOUR + 3600 * (h + 1), HOUR + 3600 * h) for h in range(4)
    }
    ledger.rebuild_tallies(HOUR + 12_000)
    assert tallies() == before
    while derive.merge(HOUR + 40 * 86_400):
        pass
    ledger.rebuild_tallies(HOUR + 12_000)
    assert [t for t in tallies() if t[2] == EVER] == [t for t in before if t[2] == EVER]


def test_recomputing_from_raw_records_gives_the_same_numbers(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(11)
    at = HOUR + 4000
    for agent in crowd(8):
        tokens = rows = 0
        items = []
        for i in range(1, 60):
            tokens, rows = tokens + rng.randint(0, 900), rows + rng.randint(0, 90)
            items.append(report(i, HOUR + 65 * i, tokens=tokens, rows_served=rows))
        submit(experiment, agent, *items, at=at)
    derive.derive(at)
    scores.compute(at, force=True)
    made = records(), tallies(), standings()
    assert made[0] and made[1] and made[2]
    monkeypatch.setattr("time.time", lambda: at)
    call_command("recompute_leaderboard", verbosity=0)
    assert (records(), tallies(), standings()) == made
    Contribution.objects.all().delete()
    Tally.objects.update(tokens=1)
    Board.objects.all().delete()
    call_command("recompute_leaderboard", verbosity=0)
    assert (records(), tallies(), standings()) == made


def test_a_round_costs_the_same_few_queries_for_one_agent_or_thirty(experiment: Experiment) -> None:
    counts = []
    for n in (1, 30):
        for agent in crowd(n):
            submit(experiment, agent, report(n + 1, HOUR + n, tokens=n), at=HOUR + n)
        with CaptureQueriesContext(connection) as context:
            derive.derive(HOUR + n)
            scores.compute(HOUR + n)
        counts.append(len(context))
    assert counts[1] <= counts[0] <= 120


def test_minutes_are_cut_into_steps(experiment: Experiment, bob: Agent) -> None:
    n = derive.MINUTES_PER_STEP + 1
    submit(experiment, bob, *(report(i + 1, HOUR + 60 * i, tokens=i + 1) for i in range(n)), at=HOUR + 60 * n)
    derive.derive(HOUR + 60 * n)
    assert Contribution.objects.filter(kind="tokens").count() == n
    assert amounts("tokens") == {bob.peer: n}


def test_reports_of_a_deleted_experiment_are_gone(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=1))
    derive.derive(NOW)
    experiment.delete()
    assert derive.derive(NOW + 1) == 0
    assert not Contribution.objects.exists() and not Tally.objects.exists() and not RawReport.objects.exists()


def test_slots_fit_into_minutes() -> None:
    assert plausible.MINUTE_S % plausible.SLOT_S == 0
