"""Routes of the API: leaderboards, contributions, peers, teams, and the operator's overview."""

from __future__ import annotations

import time
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

from django.http import HttpRequest
from ninja import Path, Query, Router, Schema
from ninja.errors import HttpError

from coordinator.api.common import Detail, Name, find
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import queries, shapes
from coordinator.leaderboard.models import Kind, Window
from coordinator.monitoring import overview

router = Router()

Peer = Annotated[str, Path(pattern=r"^[a-z2-7]{52}$", description="the peer's id, its public key")]
Limit = Annotated[int, Query(ge=1, le=200)]
Offset = Annotated[int, Query(ge=0, le=10_000)]
Before = Annotated[int | None, Query(ge=1, le=2**62, description="the `id` of the last record of the page before")]


class TeamOut(Schema):
    """A team and its size."""

    slug: str
    name: str
    about: str
    size: int


class ProblemOut(Schema):
    severity: str
    where: str
    what: str
    fix: str


class OperatorOut(Schema):
    """What is wrong and what to do about it, worst first, and how the coordinator itself does."""

    problems: list[ProblemOut]
    task_lags_s: dict[str, float | None]
    boards_age_s: float | None
    queue: int | None
    buffered: int
    agents: int
    rendezvous: int
    viewers: int


class By(StrEnum):
    """What a board is ordered by."""

    TOKENS = "tokens"
    ROWS = "rows"
    UPTIME = "uptime"


@router.get("/leaderboard", response=shapes.Board, tags=["leaderboard"])
def get_leaderboard(
    request: HttpRequest, window: Window = Window.DAY, by: By = By.TOKENS, limit: Limit = 100, offset: Offset = 0
) -> object:
    """All published experiments together."""
    return queries.board(None, window.value, by.value, limit=limit, offset=offset)


@router.get("/experiments/{name}/leaderboard", response={200: shapes.Board, 404: Detail}, tags=["leaderboard"])
def get_experiment_leaderboard(
    request: HttpRequest, name: Name, window: Window = Window.DAY, by: By = By.TOKENS, limit: Limit = 100, offset: Offset = 0
) -> object:
    """One experiment."""
    return queries.board(find(name), window.value, by.value, limit=limit, offset=offset)


@router.get("/experiments/{name}/contributions", response={200: list[shapes.Contribution], 404: Detail}, tags=["leaderboard"])
def get_contributions(
    request: HttpRequest, name: Name, kind: Kind | None = None, limit: Limit = 100, before: Before = None
) -> object:
    """The records that the leaderboard is made from, newest first. Records of a minute are merged into hours, then days."""
    experiment = Experiment.objects.filter(pk=find(name).pk)
    return queries.contributions(experiment, kind=kind.value if kind else None, before=before, limit=limit)


@router.get("/peers/{peer}", response={200: shapes.Peer, 404: Detail}, tags=["peers"])
def get_peer(request: HttpRequest, peer: Peer) -> object:
    """One peer: when it was seen, what it did, hosts and is connected to."""
    found = queries.peer(peer, Experiment.objects.visible_to(), time.time())
    if found is None:
        raise HttpError(404, "No peer with this id has reported here.")
    return found


@router.get("/peers/{peer}/sessions", response=list[shapes.PeerSession], tags=["peers"])
def get_peer_sessions(request: HttpRequest, peer: Peer, limit: Limit = 100, offset: Offset = 0) -> object:
    """The runs of its agent, newest first; none for a peer that nobody knows."""
    return queries.sessions(peer, Experiment.objects.visible_to(), limit=limit, offset=offset)


@router.get("/peers/{peer}/contributions", response=list[shapes.Contribution], tags=["peers"])
def get_peer_contributions(
    request: HttpRequest, peer: Peer, kind: Kind | None = None, limit: Limit = 100, before: Before = None
) -> object:
    """What it did, newest first; none for a peer that nobody knows."""
    visible = Experiment.objects.visible_to()
    return queries.contributions(visible, peer=peer, kind=kind.value if kind else None, before=before, limit=limit)


@router.get("/teams", response=list[TeamOut], tags=["leaderboard"])
def get_teams(request: HttpRequest, limit: Limit = 100) -> object:
    """Teams, those with most members first."""
    return queries.listed_teams(limit)


@router.get("/operator", response={200: OperatorOut, 404: Detail}, tags=["operator"])
def get_operator(request: HttpRequest) -> object:
    """Problems and their fixes. For staff that is signed in; there is nothing here for others."""
    if not getattr(request.user, "is_staff", False):
        raise HttpError(404, "Not Found")
    found = overview.overview(time.time())
    state = found["machinery"]
    return OperatorOut(
        problems=[ProblemOut(**asdict(p)) for p in found["problems"]],
        task_lags_s=state.lags_s,
        boards_age_s=found["boards_age_s"],
        queue=state.queue,
        buffered=state.buffered,
        agents=state.agents,
        rendezvous=state.rendezvous,
        viewers=state.viewers,
    )
