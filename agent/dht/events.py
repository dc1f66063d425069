"""What goes into a DhtNode and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.dht.records import Record
from agent.errors import HiveError
from agent.identity import PeerId


class PeerOpened(msgspec.Struct, frozen=True):
    """A connection to `peer` is open. `subnet` names the network of its address, if that is public and known."""

    peer: PeerId
    subnet: str = ""


class PeerClosed(msgspec.Struct, frozen=True):
    peer: PeerId


class Received(msgspec.Struct, frozen=True):
    """A DHT message from a connected peer."""

    peer: PeerId
    data: bytes | memoryview


class ConnectFailed(msgspec.Struct, frozen=True):
    """What a Connect effect asked for did not come about."""

    peer: PeerId


class Heard(msgspec.Struct, frozen=True):
    """Peers that may be alive, for example from a cache."""

    peers: Sequence[PeerId]


class Entrances(msgspec.Struct, frozen=True):
    """Peers that the host can connect to without the overlay, by an address of their own; instead of those told before."""

    peers: Sequence[PeerId]


class Get(msgspec.Struct, frozen=True):
    """Read any number of keys. Done: dict of key -> list[Record]; a key that nobody answered for is missing.

    `eager`: end with the first answer for each key, from any replica; it may lack what another holds. For readers who prefer
    to be early.
    """

    op: int
    keys: Sequence[bytes]
    eager: bool = False


class Put(msgspec.Struct, frozen=True):
    """Keep signed records. Done: list of how many holders signed that they keep each; 0 for less than half of them."""

    op: int
    records: Sequence[Record]


class Find(msgspec.Struct, frozen=True):
    """Who is close to `key`? Done: list[PeerId], closest first."""

    op: int
    key: bytes


class Route(msgspec.Struct, frozen=True):
    """Bring `body` to exactly `peer`. Done: the handler's answer, bytes; or NotReachable, CallRefused, CallTimeout."""

    op: int
    peer: PeerId
    kind: str
    body: bytes
    timeout_s: float


class Reply(msgspec.Struct, frozen=True):
    """What the handler of a Deliver says. `ok` False: it refused."""

    delivery: int
    ok: bool
    body: bytes = b""


class Send(msgspec.Struct, frozen=True):
    """Give `data` to a connected peer."""

    peer: PeerId
    data: bytes


class Connect(msgspec.Struct, frozen=True):
    """A connection to `peer` is wanted; PeerOpened or ConnectFailed is expected."""

    peer: PeerId


class Contact(msgspec.Struct, frozen=True):
    """A connection to one of the Entrances is wanted, by its own address and not through the overlay, which does not find it."""

    peer: PeerId


class Disconnect(msgspec.Struct, frozen=True):
    peer: PeerId
    reason: str


class Deliver(msgspec.Struct, frozen=True):
    """A routed message for this peer; a Reply with its `delivery` number is expected. `origin` is what the message claims:
    whoever needs to be sure of it signs what is inside."""

    delivery: int
    origin: PeerId
    kind: str
    body: bytes


class Done(msgspec.Struct, frozen=True):
    """An operation ended; `result` as its event says, or a HiveError."""

    op: int
    result: dict[bytes, list[Record]] | list[int] | list[PeerId] | bytes | HiveError


class Settled(msgspec.Struct, frozen=True):
    """The node has found its place: its siblings have been asked and are connected, or cannot be. Once."""


Event = PeerOpened | PeerClosed | Received | ConnectFailed | Heard | Entrances | Get | Put | Find | Route | Reply
Effect = Send | Connect | Contact | Disconnect | Deliver | Done | Settled
