"""What an agent tells about itself: to its local record, and to the coordinator over the telemetry WebSocket.

Shared by coordinator and agent, so this module imports neither torch nor Django. Everything is JSON.

Telemetry WebSocket, `/ws/telemetry/<experiment>/`, header `Authorization: Hive <hello>` where `<hello>` is the base64url
JSON of `Hello`. The agent sends `Batch`; the coordinator answers `Ack` after it has stored it. Items are numbered
1, 2, 3, … per peer and session, and unacknowledged ones are sent again after a reconnect: (peer, session, sequence) is
unique, so an item counts once. Counters are cumulative within a session, so a lost item loses no total.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

HELLO_PURPOSE = "telemetry-hello"
BATCH_ITEMS_MAX = 100
ITEM_BYTES_MAX = 32 * 1024
MESSAGE_BYTES_MAX = 64 * 1024

PeerText = Annotated[str, Meta(pattern=r"^[a-z2-7]{52}$")]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Session = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Connection(_Part, frozen=True, kw_only=True):
    """One open connection to a peer."""

    peer: PeerText
    kind: Literal["direct", "relayed"]
    rtt_ms: float | None = None


class HostedExpert(_Part, frozen=True, kw_only=True):
    """One expert that this agent hosts under a lease."""

    uid: Annotated[str, Meta(max_length=40)]
    epoch: Count
    version: Count
    """Optimizer steps taken since it was made."""
    rows: Count
    """Rows served since this session began, forward and backward."""


class Report(_Part, frozen=True, kw_only=True, tag="report", tag_field="kind"):
    """The state of one agent at one time. Sent every second or so; counters are cumulative in the session."""

    sequence: Annotated[int, Meta(ge=1)]
    at: float
    """Unix time, seconds."""
    stage: Literal["starting", "joining", "waiting", "training", "hosting", "paused", "draining", "stopped"]
    why: Annotated[str, Meta(max_length=200)] = ""
    """Why nothing is happening, when nothing is."""
    step: Count = 0
    tokens: Count = 0
    loss: float | None = None
    """Mean training loss (nats per token) over the batches since the last report; None if there were none."""
    loss_batches: Count = 0
    loss_validation: float | None = None
    """The latest validation loss, nats per token."""
    tokens_per_s: float = 0.0
    calls: Count = 0
    calls_failed: Count = 0
    backtracks: Count = 0
    rows_served: Count = 0
    bytes_p2p_sent: Count = 0
    bytes_p2p_received: Count = 0
    bytes_coordinator: Count = 0
    """Both directions, manifest, rendezvous and telemetry."""
    experts_total: Count = 0
    experts_alive: Count = 0
    """Of the whole grid, as this agent sees it in the DHT."""
    connections: Annotated[tuple[Connection, ...], Meta(max_length=64)] = ()
    experts: Annotated[tuple[HostedExpert, ...], Meta(max_length=128)] = ()


class Event(_Part, frozen=True, kw_only=True, tag="event", tag_field="kind"):
    """Something that happened once: `joined`, `left`, `expert-claimed`, `expert-lost`, `averaged`, `error`, …"""

    sequence: Annotated[int, Meta(ge=1)]
    at: float
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z-]{1,40}$")]
    detail: Annotated[dict[Annotated[str, Meta(max_length=40)], str | int | float | bool | None], Meta(max_length=12)] = {}


Item = Report | Event


class Batch(_Part, frozen=True, kw_only=True, tag="batch", tag_field="type"):
    """Agent to coordinator."""

    items: Annotated[tuple[Item, ...], Meta(max_length=BATCH_ITEMS_MAX)]


class Ack(_Part, frozen=True, kw_only=True, tag="ack", tag_field="type"):
    """Coordinator to agent: every item up to and including `sequence` is stored."""

    sequence: Count


class Hello(_Part, frozen=True, kw_only=True):
    """Who speaks, signed so that nobody reports in another's name. `at` is within five minutes of the coordinator's clock."""

    peer: PeerText
    experiment: Annotated[str, Meta(max_length=63)]
    session: Session
    """Sixteen hex digits, new each time that the agent process starts."""
    at: int
    version: Annotated[str, Meta(max_length=40)]
    signature: Annotated[bytes, Meta(max_length=64)] = b""
    admission: Annotated[bytes, Meta(max_length=2048)] = b""
    """The certificate of admission, where the experiment asks for one. Names this peer itself, so the signature leaves it out."""

    def signed_bytes(self) -> bytes:
        """What the signature (purpose HELLO_PURPOSE) covers."""
        return f"{self.peer}\n{self.experiment}\n{self.session}\n{self.at}\n{self.version}".encode()


def encode(message: Any) -> bytes:
    """JSON of any struct of this module."""
    return msgspec.json.encode(message)
