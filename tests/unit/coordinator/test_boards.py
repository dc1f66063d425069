"""Boards: windows, ranks, what changed since a day ago, what counts as verified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.experiments.models import Experiment
from coordinator.leaderboard import ledger, scores
from coordinator.leaderboard.models import Board, Kind, Source, Standing, Tally
from coordinator.leaderboard.ranking import counted, ranks

from .conftest import NOW, Agent

pytestmark = pytest.mark.django_db
HOUR = int(NOW // 3600 * 3600)
DAY = 86_400


def work(experiment: Experiment, agent: Agent, at: float, amount: int, kind: Kind = Kind.TOKENS, claimed: int = 0) -> None:
    start = int(at) // 60 * 60
    entry = ledger.Entry(
        peer=agent.peer, kind=kind, amount=amount, claimed=claimed or amount, started_at=start, ended_at=start + 60, session="s"
    )
    ledger.post(experiment.pk, [entry], at)


def board(experiment: Experiment | None, window: str) -> dict[str, Standing]:
    return {s.peer: s for s in Board.objects.get(experiment=experiment, window=window).standings.all()}


def test_windows_are_whole_hours_and_end_with_the_running_one(experiment: Experiment, bob: Agent) -> None:
    work(experiment, bob, HOUR - 23 * 3600, 1)  # the oldest hour of the day
    work(experiment, bob, HOUR - 23 * 3600 - 60, 10)  # just before it
    work(experiment, bob, HOUR - 7 * DAY + 3600, 100)
    work(experiment, bob, HOUR - 7 * DAY + 3540, 1000)
    work(experiment, bob, HOUR + 60, 10_000)
    scores.compute(HOUR + 120)
    found = {w: board(experiment, w)[bob.peer].tokens for w in ("day", "week", "all")}
    assert found == {"day": 10_001, "week": 10_111, "all": 11_111}


def test_ranks_and_how_they_changed_since_yesterday(experiment: Experiment, alice: Agent, bob: Agent, charlie: Agent) -> None:
    work(experiment, alice, HOUR - DAY - 3600, 50)
    work(experiment, bob, HOUR - DAY - 3600, 30)
    work(experiment, bob, HOUR, 40)
    work(experiment, charlie, HOUR, 50)
    scores.compute(HOUR + 60)
    found = board(experiment, "all")
    assert {p: (s.rank_tokens, s.before_tokens) for p, s in found.items()} == {
        bob.peer: (1, 2), alice.peer: (2, 1), charlie.peer: (2, None)
    }  # fmt: skip
    day = board(experiment, "day")
    assert alice.peer not in day
    assert (day[charlie.peer].rank_tokens, day[charlie.peer].before_tokens) == (1, None)
    assert (day[bob.peer].rank_tokens, day[bob.peer].before_tokens) == (2, 2)
    assert day[bob.peer].rank_rows is None


def test_overall_is_the_sum_of_what_is_published(experiment: Experiment, draft: Experiment, bob: Agent) -> None:
    other = Experiment.objects.create(name="other", title="Other", status="open")
    for e, n in ((experiment, 1), (other, 20), (draft, 300)):
        work(e, bob, HOUR, n)
    scores.compute(HOUR + 60)
    assert board(None, "all")[bob.peer].tokens == 21
    assert not Board.objects.filter(experiment=draft).exists()


def test_what_was_withheld_and_what_is_verified_is_said(experiment: Experiment, alice: Agent, bob: Agent) -> None:
    work(experiment, bob, HOUR, 10, claimed=1000)
    receipt = ledger.Entry(
        peer=bob.peer, served=alice.peer, kind=Kind.TOKENS, amount=4, claimed=4, started_at=HOUR, ended_at=HOUR + 60,
        source=Source.RECEIPT, verified=True,
    )  # fmt: skip
    ledger.post(experiment.pk, [receipt], HOUR)
    scores.compute(HOUR + 60)
    s = board(experiment, "day")[bob.peer]
    assert (s.tokens, s.verified_tokens, s.withheld_tokens, s.withheld) == (10, 4, 990, 990)
    whole = Board.objects.get(experiment=experiment, window="day")
    assert (whole.tokens, whole.verified_tokens, whole.peers, whole.ranked_tokens, whole.ranked_rows) == (10, 4, 1, 1, 0)


def test_signed_work_counts_where_the_peer_itself_said_less() -> None:
    sums = {"tokens": 5, "verified_tokens": 9}
    assert counted(sums, "tokens") == 9


def test_boards_are_computed_when_something_changed_or_an_hour_began(experiment: Experiment, bob: Agent) -> None:
    now = float(HOUR + 10)
    assert scores.compute(now) == 6
    assert scores.compute(now + 400) == 0
    work(experiment, bob, now + 401, 1)
    assert scores.compute(now + 410) == 6
    work(experiment, bob, now + 411, 1)
    assert scores.compute(now + 415) == 2  # the day's; the others wait
    assert scores.compute(HOUR + 3601) == 6


def test_old_hours_are_forgotten_and_totals_are_not(experiment: Experiment, bob: Agent) -> None:
    work(experiment, bob, HOUR, 7)
    scores.forget(HOUR + ledger.HOURS_KEPT_S)
    assert Tally.objects.count() == 2
    scores.forget(HOUR + ledger.HOURS_KEPT_S + 1)
    assert Tally.objects.get().tokens == 7


def test_a_board_lists_so_many_and_no_more(
    experiment: Experiment, alice: Agent, bob: Agent, charlie: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "STANDINGS_MAX", 2)
    for n, agent in enumerate((alice, bob, charlie), 1):
        work(experiment, agent, HOUR, n)
    scores.compute(HOUR + 60)
    assert set(board(experiment, "day")) == {bob.peer, charlie.peer}
    whole = Board.objects.get(experiment=experiment, window="day")
    assert (whole.ranked_tokens, whole.tokens) == (3, 6)


@given(st.dictionaries(st.integers(0, 50), st.integers(0, 5)))
def test_ranks_are_those_of_a_contest(amounts: dict[int, int]) -> None:
    found = ranks({who: {"tokens": n, "verified_tokens": 0} for who, n in amounts.items()}, "tokens")
    assert set(found) == {who for who, n in amounts.items() if n > 0}
    for who, rank in found.items():
        assert rank == 1 + sum(n > amounts[who] for n in amounts.values())
