"""Boards: who stands where, over 24 h, 7 days and all time, in an experiment and overall.

A window is whole hours of the clock, the one that runs included. The rank of a day ago is the rank that the same window,
moved back by 24 hours, gives today: nothing is remembered that could not be computed again.
"""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import Max, Sum

from coordinator.experiments.models import Experiment
from coordinator.leaderboard import ledger, teams
from coordinator.leaderboard.models import EVER, KINDS, SUMS, Board, Standing, Tally, Window
from coordinator.leaderboard.ranking import ranks

DAY_S = 86_400
WINDOW_S = {Window.DAY: DAY_S, Window.WEEK: 7 * DAY_S}
REFRESH_S = {Window.DAY: 0.0, Window.WEEK: 300.0, Window.ALL: 60.0}
"""A board is computed at most this often, and only if something changed or an hour began."""
STANDINGS_MAX = 10_000
"""Peers that a board lists of each kind."""
BOARDS_MAX = 200
"""Experiments that have a board."""

Totals = dict[str, dict[str, int]]
"""Peer → its sums."""


def compute(now: float, *, force: bool = False) -> int:
    """Compute the boards that are due. Returns how many were."""
    done = 0
    experiments = list(Experiment.objects.visible_to().order_by("-pk").values_list("pk", flat=True)[:BOARDS_MAX])
    changed: dict[int | None, float] = dict(
        Tally.objects.filter(experiment_id__in=experiments).values_list("experiment_id").annotate(Max("updated_at"))
    )
    changed[None] = max(changed.values(), default=0.0)
    for window in Window:
        boards = {b.experiment_id: b for b in Board.objects.filter(window=window)}
        for experiment in (*experiments, None):
            if force or _due(boards.get(experiment), changed.get(experiment, 0.0), window, now):
                ids = experiments if experiment is None else [experiment]
                _write(experiment, window, _sums(ids, window, now), _sums(ids, window, now - DAY_S, ended=now), now)
                done += 1
    return done


def forget(now: float) -> int:
    """Delete the sums of hours that no board looks at any more."""
    return int(Tally.objects.filter(hour__gt=EVER, hour__lt=now - ledger.HOURS_KEPT_S).delete()[0])


def _due(board: Board | None, changed_at: float, window: str, now: float) -> bool:
    if board is None:
        return True
    new_hour = now // ledger.HOUR_S != board.computed_at // ledger.HOUR_S
    return new_hour or (changed_at >= board.computed_at and now - board.computed_at >= REFRESH_S[Window(window)])


def _sums(experiments: list[int], window: str, now: float, *, ended: float | None = None) -> Totals:
    """Each peer's sums over `window` as of `now`. `ended`: what all time had at `now` is today's less what came since."""
    rows = Tally.objects.filter(experiment_id__in=experiments)
    if window in WINDOW_S:
        last = int(now // ledger.HOUR_S) * ledger.HOUR_S
        return _grouped(rows.filter(hour__gt=max(EVER, last - WINDOW_S[Window(window)]), hour__lte=last))
    totals = _grouped(rows.filter(hour=EVER))
    if ended is not None:
        last = int(now // ledger.HOUR_S) * ledger.HOUR_S
        for peer, since in _grouped(rows.filter(hour__gt=last)).items():
            totals[peer] = {name: value - since[name] for name, value in totals[peer].items()}
    return totals


def _grouped(rows: Iterable[Tally]) -> Totals:
    sums = rows.values("peer").annotate(**{f"sum_{n}": Sum(n) for n in SUMS})  # type: ignore[attr-defined]
    return {row["peer"]: {n: row[f"sum_{n}"] for n in SUMS} for row in sums.iterator(5000)}


def _write(experiment: int | None, window: str, totals: Totals, former: Totals, now: float) -> None:
    rank = {kind: ranks(totals, kind) for kind in KINDS}
    before = {kind: ranks(former, kind) for kind in KINDS}
    listed = {peer for kind in KINDS for peer, r in rank[kind].items() if r <= STANDINGS_MAX}
    sums = {f: sum(t[f] for t in totals.values()) for f in SUMS}
    counts = {f"ranked_{kind}": len(rank[kind]) for kind in KINDS}
    with transaction.atomic():
        board, _ = Board.objects.update_or_create(
            experiment_id=experiment, window=window, defaults={"computed_at": now, "peers": len(listed), **sums, **counts}
        )
        board.standings.all().delete()
        Standing.objects.bulk_create(
            [
                Standing(
                    board=board,
                    peer=peer,
                    **totals[peer],
                    **{f"rank_{kind}": rank[kind].get(peer) for kind in KINDS},
                    **{f"before_{kind}": before[kind].get(peer) for kind in KINDS},
                )
                for peer in sorted(listed)
            ],
            batch_size=500,
        )
        teams.write(board, totals)
