"""Roll-ups: the same numbers however often and in whatever order; late arrivals included."""

from __future__ import annotations

import random

import pytest
from django.db.models import Sum

from coordinator.experiments.models import Experiment
from coordinator.telemetry import queries, rollups
from coordinator.telemetry.models import Event, Point, RawReport, Resolution
from coordinator.telemetry.store import EVENT_KEPT_S, RAW_KEPT_S

from .conftest import NOW, Agent, event, report
from .test_store import submit

pytestmark = pytest.mark.django_db
HOUR = NOW // 3600 * 3600


def rounds(now: float) -> None:
    rollups.roll_up_seconds(now)
    rollups.roll_up(Resolution.SECOND, Resolution.MINUTE, now)
    rollups.roll_up(Resolution.MINUTE, Resolution.HOUR, now)


def state() -> list[tuple[object, ...]]:
    names = ("resolution", "at", "tokens", "loss_sum", "loss_batches", "validation_sum", "validation_count", "peers")
    return list(Point.objects.order_by("resolution", "at").values_list(*names))


def test_a_second_holds_what_all_peers_reported_in_it(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    submit(experiment, bob, report(1, HOUR + 0.2, tokens=10, loss=4.0, loss_batches=1, loss_validation=5.0), at=HOUR + 2)
    submit(experiment, charlie, report(1, HOUR + 0.9, tokens=30, loss=2.0, loss_batches=3), at=HOUR + 2)
    rollups.roll_up_seconds(HOUR + 2)
    series = queries.series(experiment, HOUR + 2, resolution=Resolution.SECOND)
    assert (series.at, series.loss, series.loss_validation, series.tokens, series.peers) == ([int(HOUR)], [2.5], [5.0], [40], [2])


def test_points_that_still_grow_are_told_from_complete_ones(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, *(report(i, HOUR + i, tokens=i) for i in range(1, 63)), at=HOUR + 62.4)
    rollups.roll_up_seconds(HOUR + 62.5)
    second, minute = Resolution.SECOND, Resolution.MINUTE
    assert queries.series(experiment, HOUR + 63, resolution=second).complete_until == HOUR + 62.5 - rollups.LATE_S
    assert queries.series(experiment, HOUR + 63, resolution=minute).complete_until == 0, "nothing there yet"
    rollups.roll_up(second, minute, HOUR + 62.6)
    (first, running), until = (s := queries.series(experiment, HOUR + 63, resolution=minute)).at, s.complete_until
    assert first + minute < until < running + minute
    rounds(HOUR + 200)
    assert queries.series(experiment, HOUR + 200, resolution=second).complete_until == HOUR + 63, "the end of the last"
    assert queries.series(experiment, HOUR + 200, resolution=minute).complete_until == HOUR + 120
    news = queries.changed_series(experiment, HOUR)
    assert {s.resolution: s.complete_until - HOUR for s in news} == {1: 63, 60: 120, 3600: 200 - rollups.LATE_S}


def test_coarser_points_are_sums_of_finer_ones(experiment: Experiment, bob: Agent) -> None:
    rng = random.Random(7)
    items = [
        report(i, HOUR + i * 7, tokens=100 * i, loss=rng.uniform(1, 5), loss_batches=rng.randint(1, 4)) for i in range(1, 500)
    ]
    submit(experiment, bob, *items, at=HOUR + 3600)
    rounds(HOUR + 3600)
    sums = {"t": Sum("tokens"), "n": Sum("loss_batches"), "s": Sum("loss_sum")}
    totals = {r: Point.objects.filter(resolution=r).aggregate(**sums) for r in Resolution}
    assert totals[Resolution.SECOND]["t"] == totals[Resolution.MINUTE]["t"] == totals[Resolution.HOUR]["t"] == 49900
    assert len({row["n"] for row in totals.values()}) == 1
    assert totals[Resolution.HOUR]["s"] == pytest.approx(totals[Resolution.SECOND]["s"])
    assert Point.objects.filter(resolution=Resolution.MINUTE).count() == 59
    assert all(p.at % p.resolution == 0 for p in Point.objects.all())


def test_another_round_changes_nothing(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, *(report(i, HOUR + i, tokens=i) for i in range(1, 100)), at=HOUR + 100)
    rounds(HOUR + 100)
    before = state()
    for _ in range(3):
        rounds(HOUR + 101)
    assert state() == before


def test_rounds_in_pieces_equal_one_round_over_everything(experiment: Experiment, bob: Agent) -> None:
    for i in range(1, 60):
        submit(experiment, bob, report(i, HOUR + i, tokens=i * i, loss=float(i), loss_batches=2), at=HOUR + i + 0.4)
        rounds(HOUR + i + 0.5)
    pieces = state()
    Point.objects.all().delete()
    rollups.RollUpCursor.objects.all().delete()
    rounds(HOUR + 100)
    assert state() == pieces


def test_what_arrives_late_is_filled_in(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    submit(experiment, bob, report(1, HOUR + 10, tokens=10), at=HOUR + 10)
    rounds(HOUR + 60)
    late = HOUR + 7200  # two hours later charlie's buffer comes, with reports of the same second and others
    submit(experiment, charlie, report(1, HOUR + 10, tokens=5), report(2, HOUR + 20, tokens=9), at=late)
    rounds(late + 1)
    series = queries.series(experiment, late, resolution=Resolution.SECOND)
    assert (series.at, series.tokens, series.peers) == ([int(HOUR) + 10, int(HOUR) + 20], [15, 4], [2, 1])
    assert queries.series(experiment, late, resolution=Resolution.HOUR).tokens == [19]


def test_more_buckets_than_one_statement_takes(experiment: Experiment, bob: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "BUCKETS_MAX", 3)
    submit(experiment, bob, *(report(i, HOUR + i, tokens=i) for i in range(1, 11)), at=HOUR + 20)
    assert rollups.roll_up_seconds(HOUR + 20) == 10


def test_experiments_do_not_mix(experiment: Experiment, bob: Agent) -> None:
    from coordinator.experiments.actions import publish

    from .conftest import SMALL

    other = publish(type(SMALL)(**{**{f: getattr(SMALL, f) for f in SMALL.__struct_fields__}, "name": "other"})).experiment
    submit(experiment, bob, report(1, HOUR, tokens=10), at=HOUR)
    submit(other, bob, report(1, HOUR, tokens=99), at=HOUR)
    rounds(HOUR + 1)
    assert queries.series(experiment, HOUR + 1).tokens == [10]
    assert queries.series(other, HOUR + 1).tokens == [99]


def test_the_resolution_fits_the_span(experiment: Experiment) -> None:
    def point(at: float, resolution: int = 1) -> None:
        sums = dict.fromkeys(("tokens", "calls", "calls_failed", "rows_served", "loss_batches", "validation_count", "peers"), 0)
        Point.objects.create(
            experiment=experiment, resolution=resolution, at=int(at), loss_sum=0, validation_sum=0, updated_at=at, **sums
        )

    assert queries.best_resolution(experiment, 0, NOW) is Resolution.SECOND  # nothing yet: the first points will be seconds
    point(NOW - 100)
    assert queries.best_resolution(experiment, 0, NOW) is Resolution.SECOND
    point(NOW - 2501)
    assert queries.best_resolution(experiment, 0, NOW) is Resolution.MINUTE
    assert queries.best_resolution(experiment, NOW - 600, NOW) is Resolution.SECOND
    point(NOW - 200_000, 60)
    assert queries.best_resolution(experiment, 0, NOW) is Resolution.HOUR


def test_retention_deletes_what_is_old_and_a_bounded_part_at_once(
    experiment: Experiment, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(experiment, bob, *(report(i, NOW + i) for i in range(1, 11)), event(11, "error", NOW), at=NOW + 11)
    rounds(NOW + 12)
    assert rollups.retain(NOW + 60) == 0
    monkeypatch.setattr(rollups, "ROWS_DELETED_MAX", 4)
    later = NOW + RAW_KEPT_S + 3700
    assert [rollups.retain(later) for _ in range(4)] == [4, 4, 2, 0]
    assert not RawReport.objects.exists()
    assert Point.objects.filter(resolution=1).count() == 10
    rollups.retain(NOW + EVENT_KEPT_S + 60)
    assert not Event.objects.exists()
    assert not Point.objects.filter(resolution=1, at__lt=NOW + 4).exists()
    assert Point.objects.filter(resolution=3600).exists()


def test_what_began_lately_is_shown_in_seconds_although_its_hour_began_before(experiment: Experiment, bob: Agent) -> None:
    late = HOUR + 3599
    submit(experiment, bob, report(1, late - 30, tokens=10), at=late)
    rounds(late)
    assert queries.best_resolution(experiment, 0.0, late) == Resolution.SECOND
    assert queries.best_resolution(experiment, 0.0, late + 3000) == Resolution.MINUTE


def test_of_old_sample_text_the_last_of_each_day_is_kept(experiment: Experiment, bob: Agent) -> None:
    day = 86_400.0
    first = NOW // day * day
    samples = [event(3 * d + i + 1, "sample", first + d * day + i * 3600, text=f"{d}.{i}") for d in range(3) for i in range(3)]
    submit(experiment, bob, *samples, event(100, "joined", first), at=first + 3 * day)

    def left() -> list[str]:
        return [e.detail["text"] for e in Event.objects.filter(name="sample").order_by("at")]

    rollups.retain(first + EVENT_KEPT_S)
    assert len(left()) == 9
    for hours, kept in (
        (1.5, ["0.1", "0.2"]),
        (26, ["0.2", "1.1", "1.2"]),
        (24 * 4, ["0.2", "1.2", "2.2"]),
        (24 * 40, ["0.2", "1.2", "2.2"]),
    ):
        rollups.retain(first + EVENT_KEPT_S + hours * 3600)
        assert [text for text in left() if text in kept] == kept, hours
    assert left() == ["0.2", "1.2", "2.2"]
