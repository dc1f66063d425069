"""What the site says about an experiment: the API's answers, the live stream and the pages all have these shapes.

Times are Unix seconds. None means unknown.
"""

from __future__ import annotations

from typing import Annotated

from ninja import Schema
from pydantic import Field


class Summary(Schema):
    """The figures at the head of an experiment's page."""

    status: str
    peers: int
    """Peers whose last report is at most 15 s old."""
    trainers: int
    tokens: int
    """Trained in all sessions, ever."""
    tokens_per_s: float
    """Sum over the peers that are here now."""
    loss: float | None
    """Mean training loss over the ten seconds before the newest one, nats per token."""
    loss_validation: float | None
    """Newest validation loss, nats per token."""
    experts_total: int
    experts_hosted: int
    bytes_p2p: int
    """Sent between peers in all sessions."""
    bytes_coordinator: int
    reported_at: float | None
    """When the newest report arrived; None if none ever did."""


class Peer(Schema):
    """A peer that is here now."""

    peer: str
    version: str
    stage: str
    why: str
    step: int
    tokens: int
    tokens_per_s: float
    loss: float | None
    experts: int
    direct: int
    relayed: int
    joined_at: float | None
    seen_at: float


class Expert(Schema):
    """One place of the grid. `peer` is None when nobody that we know of hosts it."""

    uid: str
    peer: str | None
    copies: int
    """Peers that are here and report to hold it. With one only, what it learned is lost if that one crashes."""
    epoch: int | None
    version: int | None
    rows: int | None
    """Served since its host's session began, forward and backward."""
    rows_per_s: float | None
    """Its load: rows served a second, over about the last ten."""
    seen_at: float | None
    """When a report last named it; None if none ever did."""


class Event(Schema):
    """Something that happened."""

    id: int
    at: float
    name: str
    peer: str | None
    detail: dict[str, str | int | float | bool | None]


class Connection(Schema):
    """A connection between two peers that are here now, reported by one or both."""

    a: str
    b: str
    kind: str
    rtt_ms: float | None


class Series(Schema):
    """Columns of equal length, oldest first: what the charts draw."""

    resolution: int
    """Seconds per point."""
    at: list[int]
    loss: list[float | None]
    loss_validation: list[float | None]
    tokens: list[int]
    """Trained within the point."""
    peers: list[int]
    complete_until: float
    """A point that ends later (`at + resolution`) is still growing: its second, minute or hour is not over, or not all reported.
    No later than the end of the last point."""
    outages: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    """When no coordinator was up: from, to."""


class Tick(Schema):
    """One message of the live stream, at most two a second."""

    type: str = "tick"
    at: float
    summary: Summary
    peers: list[Peer]
    """At most 200, those that have been here longest."""
    experts: list[Expert]
    events: list[Event]
    """The newest; the same event may come again, its id tells."""
    series: list[Series]
    """Per resolution, the points that changed since the tick before."""
