"""Routes of the API: leaderboards, contributions, peers and teams."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Path, Query, Router, Schema
from ninja.errors import HttpError

from coordinator.api.common import Detail, Limit, Name, Offset, Peer, find, link, page
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import queries, shapes
from coordinator.leaderboard.models import Kind, Team, Window
from coordinator.telemetry.models import Session

router = Router()

Before = Annotated[int | None, Query(ge=1, le=2**62, description="the `id` of the last record of the page before")]
Prefix = Annotated[str, Query(pattern=r"^[a-z2-7]{4,52}$", description="the beginning of peers' ids")]
Slug = Annotated[str, Path(pattern=r"^[a-z0-9_-]{1,44}$", description="the team's short name")]


class TeamOut(Schema):
    """A team and its size."""

    slug: str
    name: str
    about: str
    size: int


class TeamPlace(shapes.Sums):
    """How a team stands on one board."""

    experiment: str | None
    window: str
    peers: int
    ranks: dict[str, int | None]


class TeamDetail(TeamOut):
    """A team, those of its members that want to be named, and how it stands."""

    names: list[str]
    standings: list[TeamPlace]


class By(StrEnum):
    """What a board is ordered by."""

    TOKENS = "tokens"
    ROWS = "rows"
    UPTIME = "uptime"


@router.get("/leaderboard", response=shapes.Board, tags=["leaderboard"])
def get_leaderboard(
    request: HttpRequest,
    response: HttpResponse,
    window: Window = Window.DAY,
    by: By = By.TOKENS,
    limit: Limit = 100,
    offset: Offset = 0,
) -> object:
    """All published experiments together."""
    return _board(request, response, None, window, by, limit, offset)


@router.get("/leaderboard/teams", response=list[shapes.TeamStanding], tags=["leaderboard"])
def get_leaderboard_teams(request: HttpRequest, window: Window = Window.DAY, by: By = By.TOKENS) -> object:
    """The 50 best teams, over all published experiments."""
    return queries.team_standings(queries.find_board(None, window.value), by.value)


@router.get("/leaderboard/peers", response=list[shapes.Standing], tags=["leaderboard"])
def get_leaderboard_peers(request: HttpRequest, peer: Prefix, window: Window = Window.DAY, by: By = By.TOKENS) -> object:
    """Where peers stand whose ids begin so, over all published experiments; at most 10."""
    return queries.standings_of(queries.find_board(None, window.value), by.value, [], peer)


@router.get("/experiments/{name}/leaderboard", response={200: shapes.Board, 404: Detail}, tags=["leaderboard"])
def get_experiment_leaderboard(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    window: Window = Window.DAY,
    by: By = By.TOKENS,
    limit: Limit = 100,
    offset: Offset = 0,
) -> object:
    """One experiment."""
    return _board(request, response, find(name), window, by, limit, offset)


@router.get("/experiments/{name}/leaderboard/teams", response={200: list[shapes.TeamStanding], 404: Detail}, tags=["leaderboard"])
def get_experiment_leaderboard_teams(request: HttpRequest, name: Name, window: Window = Window.DAY, by: By = By.TOKENS) -> object:
    """The 50 best teams in one experiment."""
    return queries.team_standings(queries.find_board(find(name), window.value), by.value)


@router.get("/experiments/{name}/leaderboard/peers", response={200: list[shapes.Standing], 404: Detail}, tags=["leaderboard"])
def get_experiment_leaderboard_peers(
    request: HttpRequest, name: Name, peer: Prefix, window: Window = Window.DAY, by: By = By.TOKENS
) -> object:
    """Where peers stand whose ids begin so, in one experiment; at most 10."""
    return queries.standings_of(queries.find_board(find(name), window.value), by.value, [], peer)


@router.get("/experiments/{name}/contributions", response={200: list[shapes.Contribution], 404: Detail}, tags=["leaderboard"])
def get_contributions(
    request: HttpRequest,
    response: HttpResponse,
    name: Name,
    kind: Kind | None = None,
    limit: Limit = 100,
    before: Before = None,
) -> object:
    """The records that the leaderboard is made from, newest first. Records of a minute are merged into hours, then days."""
    experiment = Experiment.objects.filter(pk=find(name).pk)
    found = queries.contributions(experiment, kind=kind.value if kind else None, before=before, limit=limit + 1)
    return _records(request, response, found, limit)


@router.get("/peers", response=list[str], tags=["peers"])
def find_peers(request: HttpRequest, response: HttpResponse, id: Prefix, limit: Limit = 100, offset: Offset = 0) -> object:
    """Ids of the peers that ever reported and whose id begins so."""
    rows = Session.objects.filter(peer__startswith=id, experiment__in=Experiment.objects.visible_to())
    found = list(rows.order_by("peer").values_list("peer", flat=True).distinct()[offset : offset + limit + 1])
    return page(request, response, found, limit, offset)


@router.get("/peers/{peer}", response={200: shapes.PeerDetail, 404: Detail}, tags=["peers"])
def get_peer(request: HttpRequest, peer: Peer) -> object:
    """One peer: when it was seen, what it did, hosts and is connected to."""
    found = queries.peer(peer, Experiment.objects.visible_to(), time.time())
    if found is None:
        raise HttpError(404, "No peer with this id has reported here.")
    return found


@router.get("/peers/{peer}/sessions", response=list[shapes.PeerSession], tags=["peers"])
def get_peer_sessions(request: HttpRequest, response: HttpResponse, peer: Peer, limit: Limit = 100, offset: Offset = 0) -> object:
    """The runs of its agent, newest first; none for a peer that nobody knows."""
    found = queries.sessions(peer, Experiment.objects.visible_to(), limit=limit + 1, offset=offset)
    return page(request, response, found, limit, offset)


@router.get("/peers/{peer}/contributions", response=list[shapes.Contribution], tags=["peers"])
def get_peer_contributions(
    request: HttpRequest,
    response: HttpResponse,
    peer: Peer,
    kind: Kind | None = None,
    limit: Limit = 100,
    before: Before = None,
) -> object:
    """What it did, newest first; none for a peer that nobody knows."""
    visible = Experiment.objects.visible_to()
    found = queries.contributions(visible, peer=peer, kind=kind.value if kind else None, before=before, limit=limit + 1)
    return _records(request, response, found, limit)


@router.get("/teams", response=list[TeamOut], tags=["leaderboard"])
def get_teams(request: HttpRequest, response: HttpResponse, limit: Limit = 100, offset: Offset = 0) -> object:
    """Teams, those with most members first."""
    return page(request, response, queries.listed_teams(limit + 1, offset), limit, offset)


@router.get("/teams/{slug}", response={200: TeamDetail, 404: Detail}, tags=["leaderboard"])
def get_team(request: HttpRequest, slug: Slug) -> object:
    """One team."""
    team = Team.objects.filter(slug=slug).first()
    if team is None:
        raise HttpError(404, "There is no such team.")
    members = queries.members(team)
    places = [
        TeamPlace(experiment=board.experiment.name if board.experiment else None, window=board.window, **row)
        for row in queries.standings_of_team(team)
        if (board := row.pop("board"))
    ]
    return TeamDetail(
        slug=team.slug, name=team.name, about=team.about, size=members["count"], names=members["names"], standings=places
    )


def _board(
    request: HttpRequest, response: HttpResponse, of: Experiment | None, window: Window, by: By, limit: int, offset: int
) -> shapes.Board:
    board = queries.board(of, window.value, by.value, limit=limit + 1, offset=offset)
    board.standings = list(page(request, response, board.standings, limit, offset))
    return board


def _records(
    request: HttpRequest, response: HttpResponse, found: list[shapes.Contribution], limit: int
) -> list[shapes.Contribution]:
    if len(found) > limit:
        link(request, response, before=found[limit - 1].id)
    return found[:limit]
