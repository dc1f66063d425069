"""What the site says about contributions: the API's answers, and what its pages show. Times are Unix seconds; None is unknown."""

from __future__ import annotations

from ninja import Schema
from pydantic import Field


class Sums(Schema):
    """Sums over a window. All of it is self-reported, but what is verified."""

    tokens: int = Field(description="tokens in batches that this peer trained on, from its reports")
    rows: int = Field(description="rows that went forward or backward through experts that it hosts, from its reports")
    uptime_s: int = Field(description="seconds present: ten for each slot of ten seconds in which it reported")
    verified_tokens: int = Field(description="of these, signed for by somebody else")
    verified_rows: int = Field(description="of these, signed for by the peers that were served")
    withheld: int = Field(description="tokens and rows that it claimed beyond what is plausible; recorded, and not counted")


class Standing(Sums):
    """One peer on a board."""

    rank: int | None = Field(description="1 for the most; equals share a rank; null if it has none of that kind")
    rank_before: int | None = Field(description="the rank that the same window gave a day earlier; null if it was not there")
    peer: str
    name: str | None = Field(description="display name, for accounts that want to be named")
    team: str | None = Field(description="slug of its team, for accounts that want to be named")
    verified_share: float | None = Field(description="verified part of the number that the board is ordered by, 0 to 1")


class TeamStanding(Sums):
    """One team on a board: all machines of its members."""

    rank: int | None
    slug: str
    name: str
    peers: int


class BoardTotals(Sums):
    """Of all peers on it."""

    verified_share: float | None = Field(description="verified part of the number that the board is ordered by, 0 to 1")


class Board(Schema):
    """A leaderboard. It is computed in the background, so it is up to half a minute old, and longer windows some minutes."""

    experiment: str | None = Field(description="null: all published experiments together")
    window: str = Field(description="day: the running hour and the 23 before it; week: 168 hours; all: since the beginning")
    by: str = Field(description="what it is ordered by: tokens, rows or uptime")
    computed_at: float | None = Field(description="null: not computed yet")
    count: int = Field(description="peers that have a rank")
    totals: BoardTotals
    standings: list[Standing]


class Contribution(Schema):
    """One record of who did what for whom, and how we know."""

    id: int
    experiment: str
    peer: str = Field(description="who did it")
    served: str | None = Field(description="for whom; null where it is not known, as in a peer's own reports")
    kind: str = Field(description="tokens, rows or uptime")
    amount: int = Field(description="what counts")
    claimed: int = Field(description="what was said; more than `amount` if it was beyond what is plausible")
    source: str = Field(description="report: the peer's own word; receipt: signed by the peer that was served")
    verified: bool
    started_at: int
    ended_at: int


class PeerSession(Schema):
    """One run of an agent."""

    experiment: str
    session: str
    version: str
    started_at: float
    joined_at: float | None
    seen_at: float
    ended_at: float | None = Field(description="null while it lives")
    stage: str
    why: str
    step: int
    tokens: int
    rows: int
    loss: float | None
    bytes_p2p_sent: int
    bytes_p2p_received: int
    falls: int = Field(description="reports in which a counter was lower than before")


class PeerConnection(Schema):
    experiment: str
    peer: str
    kind: str
    rtt_ms: float | None


class PeerExpert(Schema):
    experiment: str
    uid: str
    epoch: int
    version: int
    rows: int
    seen_at: float


class PeerTotals(Sums):
    """What it did in one experiment, ever."""

    experiment: str


class PeerDetail(Schema):
    """Everything that is known about one peer."""

    peer: str
    name: str | None
    team: str | None
    here: bool = Field(description="its last report is at most 15 s old")
    first_seen_at: float
    seen_at: float
    sessions: int
    versions: list[str] = Field(description="of its agent, newest first, at most 10")
    totals: list[PeerTotals]
    experts: list[PeerExpert] = Field(description="that it hosts now")
    connections: list[PeerConnection] = Field(description="that it has now")
    falls: int = Field(description="reports in which a counter was lower than before: a broken or a lying agent")
