"""Peers and calls: signed hand-shaken connections to other peers, one per peer, and requests over them.

(API first: bodies follow.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.identity import Identity, PeerId
from agent.net.transport import Transport

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a handler gets. `deadline` is on the loop's clock."""

    peer: PeerId
    method: str
    header: bytes
    buffers: Sequence[Buffer]
    deadline: float


@dataclass(frozen=True)
class Reply:
    """What a handler gives, and a caller gets."""

    header: bytes = b""
    buffers: Sequence[Buffer] = ()


@dataclass(frozen=True, kw_only=True)
class PeerLink:
    """An open connection, for display and choice. `opened_at` is on the loop's clock."""

    kind: Literal["direct", "relayed"]
    rtt_s: float | None
    opened_at: float
    initiator: bool


Handler = Callable[[Request], Awaitable[Reply]]


class Signaler(Protocol):
    """Carries one sealed offer to a peer and brings its sealed answer."""

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        """Raises NotReachable."""
        ...


class Network:
    def __init__(self, *, identity: Identity, experiment: str, transport: Transport) -> None:
        self.peer_id = identity.peer_id
        self.dialer: Callable[[PeerId], Awaitable[None]] | None = None
        raise NotImplementedError

    def register(self, method: str, handler: Handler) -> None: ...
    def on_notify(self, method: str, callback: Callable[[PeerId, bytes], None]) -> None: ...
    async def call(
        self, peer: PeerId, method: str, header: bytes = b"", buffers: Sequence[Buffer] = (), *, timeout_s: float
    ) -> Reply: ...
    def notify(self, peer: PeerId, method: str, header: bytes) -> bool: ...
    def peers(self) -> Mapping[PeerId, PeerLink]: ...
    def add_listener(self, opened: Callable[[PeerId], None], closed: Callable[[PeerId, str], None]) -> None: ...
    async def dial(self, peer: PeerId, signaler: Signaler, *, timeout_s: float) -> None: ...
    async def answer(self, sealed_offer: bytes) -> bytes: ...
    def disconnect(self, peer: PeerId, reason: str) -> None: ...
    async def close(self) -> None: ...
