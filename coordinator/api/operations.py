"""Routes of the API: the health of experiments, and the operator's overview."""

from __future__ import annotations

import time
from dataclasses import asdict

from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from coordinator.accounts.actions import find_token
from coordinator.accounts.models import READ
from coordinator.api.common import Detail, Name, find
from coordinator.experiments.models import Experiment
from coordinator.monitoring import overview
from coordinator.monitoring.models import BootstrapCheck, Census, Examination

router = Router()


class ProblemOut(Schema):
    """Something that is wrong, and what to do about it."""

    severity: str = Field(description="bad: something does not work; warning: it may soon not")
    where: str
    what: str
    fix: str


class CheckOut(Schema):
    """The last attempt to reach one address for first contact."""

    address: str
    outcome: str = Field(description="ok, failed, or skipped: the site does not connect to such addresses")
    detail: str
    latency_ms: float | None
    checked_at: float
    answered_at: float | None


class CensusOut(Schema):
    """What the site's own peer in the overlay counted, once a minute."""

    at: float
    error: str = Field(description="why nothing is known; empty if something is")
    observer: str = Field(description="the peer id of the site's observer")
    peers: int | None = Field(description="peers that answered")
    silent: int | None = Field(description="peers that others named and that did not answer")
    missing: int | None = Field(description="peers that report to the site and that the overlay does not reach")
    records: int | None
    replicas: float | None = Field(description="copies per record")
    parts: list[int] = Field(description="sizes of the groups of peers that no connection joins; one is well")
    complete: bool = Field(description="false: not everybody was asked, and the figures are lower bounds")
    seconds: float


class HealthOut(Schema):
    """The state of an experiment's overlay, experts and bootstrap peers, and what is wrong with them."""

    experiment: str
    at: float | None = Field(description="when it was last looked at; null if never")
    peers: int
    parts: list[int] = Field(description="sizes of the groups of peers that have no connection to each other; one is well")
    experts: int
    vacant_count: int = Field(description="experts without a host")
    single_count: int = Field(description="experts that one peer alone has")
    vacant: list[str] = Field(description="at most 100 of their names")
    heaviest_peer: str | None
    heaviest_experts: int = Field(description="what one crash takes down")
    direct: int
    relayed: int
    census: CensusOut | None = Field(description="null before the first")
    bootstrap: list[CheckOut]
    problems: list[ProblemOut]


class OperatorOut(Schema):
    """What is wrong and what to do about it, worst first, and how the coordinator itself does."""

    problems: list[ProblemOut]
    task_lags_s: dict[str, float | None]
    boards_age_s: float | None
    queue: int | None
    buffered: int
    buffered_max: int
    agents: int
    rendezvous: int
    viewers: int
    experiments: list[HealthOut]


@router.get("/experiments/{name}/health", response={200: HealthOut, 404: Detail}, tags=["observations"])
def get_health(request: HttpRequest, name: Name) -> object:
    """What the site found when it last looked after the experiment, every 15 seconds, and what may help."""
    found = overview.of_experiment(find(name), time.time())
    return _health(
        found["experiment"], found["examination"], found["census"], found["checks"], [asdict(p) for p in found["problems"]]
    )


@router.get("/operator", response={200: OperatorOut, 404: Detail}, tags=["operator"])
def get_operator(request: HttpRequest) -> object:
    """Problems and their fixes. For staff that is signed in, or its token with the scope `read`; others find nothing here."""
    if not _is_staff(request):
        raise HttpError(404, "Not Found")
    found = overview.overview(time.time())
    state = found["machinery"]
    return OperatorOut(
        problems=[ProblemOut(**asdict(p)) for p in found["problems"]],
        task_lags_s=state.lags_s,
        boards_age_s=found["boards_age_s"],
        queue=state.queue,
        buffered=state.buffered,
        buffered_max=state.buffered_max,
        agents=state.agents,
        rendezvous=state.rendezvous,
        viewers=state.viewers,
        experiments=[
            _health(row["experiment"], row["examination"], row["census"], row["checks"], [asdict(p) for p in row["problems"]])
            for row in found["experiments"]
        ],
    )


def _is_staff(request: HttpRequest) -> bool:
    if getattr(request.user, "is_staff", False):
        return True
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    token = find_token(text, READ) if scheme.lower() == "bearer" else None
    return token is not None and token.user.is_staff


def _health(
    experiment: Experiment,
    found: Examination | None,
    census: Census | None,
    checks: list[BootstrapCheck],
    problems: list[dict[str, str]],
) -> HealthOut:
    x = found or Examination()
    return HealthOut(
        experiment=experiment.name,
        at=x.at,
        peers=x.peers or 0,
        parts=x.parts,
        experts=x.experts,
        vacant_count=x.vacant_count,
        single_count=x.single_count,
        vacant=x.vacant,
        heaviest_peer=x.heaviest_peer or None,
        heaviest_experts=x.heaviest_experts,
        direct=x.direct,
        relayed=x.relayed,
        census=census and _census(census),
        bootstrap=[
            CheckOut(
                address=c.address,
                outcome=c.outcome,
                detail=c.detail,
                latency_ms=c.latency_ms,
                checked_at=c.checked_at,
                answered_at=c.answered_at,
            )
            for c in checks
        ],
        problems=[ProblemOut(**p) for p in problems],
    )


def _census(found: Census) -> CensusOut:
    known = not found.error
    return CensusOut(
        at=found.at,
        error=found.error,
        observer=found.observer,
        peers=found.peers if known else None,
        silent=found.silent if known else None,
        missing=found.missing if known else None,
        records=found.records if known else None,
        replicas=found.replicas if known else None,
        parts=found.parts,
        complete=found.complete,
        seconds=found.seconds,
    )
