"""Reads of boards, contributions and peers: a fixed number of queries each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max, Min, QuerySet, Sum
from django.db.models import F as Field

from coordinator.accounts.models import Machine
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import models, shapes
from coordinator.leaderboard.models import EVER, Board, Contribution, Sums, Tally
from coordinator.leaderboard.ranking import counted
from coordinator.telemetry import experts as expert_rows
from coordinator.telemetry.membership import SILENT_S
from coordinator.telemetry.models import HostedExpert, Session

ROWS_MAX = 200
MINE_MAX = 10
"""Rows that are pinned for a visitor."""
TEAMS_MAX = 50
VERSIONS_MAX = 10
SESSIONS_MAX = 100
EXPERTS_MAX = 512


@dataclass(frozen=True, slots=True)
class Who:
    """What a peer's account wants others to know of it."""

    name: str | None = None
    team: str | None = None


def who(peers: Iterable[str]) -> dict[str, Who]:
    """Of these peers, those whose accounts want to be named."""
    listed = Machine.objects.filter(peer__in=list(peers), user__is_listed=True)
    rows = listed.values_list("peer", "user__display_name", "user__team_membership__team__slug")
    return {peer: Who(name or None, team) for peer, name, team in rows}


def peers_of(user: object) -> list[str]:
    """The peers that are this account's."""
    if not getattr(user, "is_authenticated", False):
        return []
    return list(Machine.objects.filter(user=user).values_list("peer", flat=True)[:ROWS_MAX])


def find_board(experiment: Experiment | None, window: str) -> Board | None:
    return Board.objects.filter(experiment=experiment, window=window).first()


def standings(board: Board | None, by: str, *, limit: int = ROWS_MAX, offset: int = 0) -> list[shapes.Standing]:
    """Whoever has a rank, best first."""
    if board is None:
        return []
    ranked = board.standings.filter(**{f"rank_{by}__isnull": False}).order_by(f"rank_{by}", "peer")
    return _standings(ranked[offset : offset + limit], by)


def standings_of(board: Board | None, by: str, peers: Sequence[str], prefix: str = "") -> list[shapes.Standing]:
    """These peers' rows, and those whose id begins with `prefix`, best first; at most MINE_MAX."""
    if board is None or not (peers or prefix):
        return []
    rows = board.standings.filter(peer__startswith=prefix) if prefix else board.standings.filter(peer__in=peers)
    return _standings(rows.order_by(Field(f"rank_{by}").asc(nulls_last=True), "peer")[:MINE_MAX], by)


def team_standings(board: Board | None, by: str) -> list[shapes.TeamStanding]:
    if board is None:
        return []
    rows = board.team_standings.select_related("team").order_by(Field(f"rank_{by}").asc(nulls_last=True), "team__name")
    return [
        shapes.TeamStanding(rank=getattr(row, f"rank_{by}"), slug=row.team.slug, name=row.team.name, peers=row.peers, **sums(row))
        for row in rows[:TEAMS_MAX]
    ]


def board(experiment: Experiment | None, window: str, by: str, *, limit: int, offset: int) -> shapes.Board:
    """A board as the API gives it."""
    found = find_board(experiment, window)
    return shapes.Board(
        experiment=experiment.name if experiment else None,
        window=window,
        by=by,
        computed_at=found.computed_at if found else None,
        count=getattr(found, f"ranked_{by}") if found else 0,
        totals=totals(found, by),
        standings=standings(found, by, limit=limit, offset=offset),
    )


def totals(board: Board | None, by: str) -> shapes.BoardTotals:
    row = board or Board()
    return shapes.BoardTotals(verified_share=share(row, by), **sums(row))


def sums(row: Sums) -> dict[str, int]:
    """The columns as the site gives them."""
    values = {name: getattr(row, name) for name in models.SUMS}
    return {
        "tokens": counted(values, "tokens"),
        "rows": counted(values, "rows"),
        "uptime_s": counted(values, "uptime"),
        "verified_tokens": row.verified_tokens,
        "verified_rows": row.verified_rows,
        "withheld": row.withheld,
    }


def share(row: Sums, by: str) -> float | None:
    """How much of a number somebody else signed for; None where there is nothing to sign for."""
    whole = counted({name: getattr(row, name) for name in (by, f"verified_{by}")}, by)
    return getattr(row, f"verified_{by}") / whole if whole else None


def contributions(
    experiments: QuerySet[Experiment],
    *,
    peer: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = ROWS_MAX,
) -> list[shapes.Contribution]:
    """The newest records, newest first; `before` is the id of the last one of the page before."""
    rows = Contribution.objects.filter(experiment__in=experiments).select_related("experiment").order_by("-pk")
    if peer is not None:
        rows = rows.filter(peer=peer)
    if kind is not None:
        rows = rows.filter(kind=kind)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return [
        shapes.Contribution(
            id=c.pk,
            experiment=c.experiment.name,
            peer=c.peer,
            served=c.served or None,
            kind=c.kind,
            amount=c.amount,
            claimed=c.claimed,
            source=c.source,
            verified=c.verified,
            started_at=c.started_at,
            ended_at=c.ended_at,
        )
        for c in rows[:limit]
    ]


def peer(text: str, experiments: QuerySet[Experiment], now: float) -> shapes.PeerDetail | None:
    """One peer, as far as these experiments know it; None if they do not."""
    mine = Session.objects.filter(peer=text, experiment__in=experiments)
    ever = mine.aggregate(first=Min("started_at"), seen=Max("seen_at"), count=Count("pk"), falls=Sum("falls"))
    if not ever["count"]:
        return None
    versions = mine.values("version").annotate(newest=Max("seen_at")).order_by("-newest").values_list("version", flat=True)
    here = list(mine.filter(ended_at=None, seen_at__gt=now - SILENT_S).select_related("experiment")[:SESSIONS_MAX])
    known = who([text]).get(text, Who())
    hosted = HostedExpert.objects.filter(peer=text, experiment__in=experiments, hosted=True)
    hosted = hosted.filter(seen_at__gt=now - expert_rows.STALE_S).select_related("experiment").order_by("experiment", "uid")
    done = Tally.objects.filter(peer=text, hour=EVER, experiment__in=experiments).select_related("experiment")
    return shapes.PeerDetail(
        peer=text,
        name=known.name,
        team=known.team,
        here=bool(here),
        first_seen_at=ever["first"],
        seen_at=ever["seen"],
        sessions=ever["count"],
        versions=list(versions[:VERSIONS_MAX]),
        totals=[shapes.PeerTotals(experiment=t.experiment.name, **sums(t)) for t in done.order_by("experiment")],
        experts=[
            shapes.PeerExpert(
                experiment=e.experiment.name, uid=e.uid, epoch=e.epoch, version=e.version, rows=e.rows, seen_at=e.seen_at
            )
            for e in hosted[:EXPERTS_MAX]
        ],
        connections=[shapes.PeerConnection(experiment=s.experiment.name, **c) for s in here for c in s.connections],
        falls=ever["falls"] or 0,
    )


def sessions(text: str, experiments: QuerySet[Experiment], *, limit: int, offset: int = 0) -> list[shapes.PeerSession]:
    """The runs of one peer, newest first."""
    rows = (
        Session.objects.filter(peer=text, experiment__in=experiments).select_related("experiment").order_by("-started_at", "-pk")
    )
    return [
        shapes.PeerSession(
            experiment=s.experiment.name,
            session=s.session,
            version=s.version,
            started_at=s.started_at,
            joined_at=s.joined_at,
            seen_at=s.seen_at,
            ended_at=s.ended_at,
            stage=s.stage,
            why=s.why,
            step=s.step,
            tokens=s.tokens,
            rows=s.rows_served,
            loss=s.loss,
            bytes_p2p_sent=s.bytes_p2p_sent,
            bytes_p2p_received=s.bytes_p2p_received,
            falls=s.falls,
        )
        for s in rows[offset : offset + limit]
    ]


def _standings(rows: QuerySet[models.Standing], by: str) -> list[shapes.Standing]:
    found = list(rows)
    names = who(row.peer for row in found)
    return [
        shapes.Standing(
            rank=getattr(row, f"rank_{by}"),
            rank_before=getattr(row, f"before_{by}"),
            peer=row.peer,
            name=names.get(row.peer, Who()).name,
            team=names.get(row.peer, Who()).team,
            verified_share=share(row, by),
            **sums(row),
        )
        for row in found
    ]


def listed_teams(limit: int, offset: int = 0) -> list[dict[str, object]]:
    """Teams with their number of members, largest first."""
    rows = models.Team.objects.annotate(size=Count("members")).order_by("-size", "name")[offset : offset + limit]
    return [{"slug": t.slug, "name": t.name, "about": t.about, "size": t.size} for t in rows]


def members(team: models.Team) -> dict[str, Any]:
    """How many there are, and the names of those that want to be named."""
    rows = team.members.filter(user__is_listed=True).exclude(user__display_name="").order_by("joined_at")
    return {"count": team.members.count(), "names": list(rows.values_list("user__display_name", flat=True)[:ROWS_MAX])}


def standings_of_team(team: models.Team) -> list[dict[str, Any]]:
    """How it stands on every board of each window."""
    rows = models.TeamStanding.objects.filter(team=team).select_related("board__experiment")
    order = {"all": 0, "week": 1, "day": 2}
    found = sorted(rows, key=lambda r: (r.board.experiment_id or 0, order[r.board.window]))
    return [
        {"board": r.board, "peers": r.peers, "ranks": {k: getattr(r, f"rank_{k}") for k in models.KINDS}, **sums(r)}
        for r in found[: 3 * ROWS_MAX]
    ]
