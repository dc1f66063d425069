"""What Hive needs from a network: encrypted pipes of messages, opened with one blob each way.

Two transports implement this: `webrtc.py` (aiortc) and `memory.py` (one process, deterministic). One contract suite
(tests/unit/net/test_transport_contract.py) runs on both.

Opening a link takes one exchange, with no order of arrival assumed beyond it:

    offerer                                   answerer
    offered = await transport.offer()
              offered.description  ------->   answered = await transport.answer(description)
                                   <-------             answered.description
    link = await offered.accept(...)          link = await answered.open(...)

The descriptions are not secret, but whoever can alter them can be the other end: `network.py` signs and seals them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Literal, Protocol

DESCRIPTION_BYTES_MAX = 2048
FINGERPRINT_BYTES = 32

LinkKind = Literal["direct", "relayed"]
OnMessage = Callable[["Lane", memoryview], None]
OnRoom = Callable[[], None]
OnClosed = Callable[[str], None]


class Lane(IntEnum):
    """Two independent channels, both reliable and ordered. CONTROL never waits behind BULK for long."""

    CONTROL = 0
    BULK = 1


class Link(Protocol):
    """An open, encrypted pipe of messages to one peer. All methods belong to the event loop that made it."""

    @property
    def kind(self) -> LinkKind:
        """`relayed` if a TURN server or a peer carries the packets, on either side."""
        ...

    @property
    def subnet(self) -> str:
        """The network of the peer's public address, for example `192.0.2.0/24`; empty if it has none, or it is not known."""
        ...

    @property
    def local_fingerprint(self) -> bytes:
        """SHA-256 of our certificate, 32 bytes: what the handshake binds the identity to."""
        ...

    @property
    def remote_fingerprint(self) -> bytes:
        """SHA-256 of the certificate that the other end really presented, 32 bytes."""
        ...

    @property
    def message_bytes_max(self) -> int:
        """The largest message that `send` takes, bytes."""
        ...

    @property
    def bytes_sent(self) -> int:
        """Message bytes accepted by `send` so far."""
        ...

    @property
    def bytes_received(self) -> int:
        """Message bytes delivered so far."""
        ...

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time in seconds, None while unknown."""
        ...

    @property
    def pipe_bytes(self) -> int:
        """How much the path may hold under way at present (bandwidth times delay, and some); 0 if unknown.

        Less than this in `buffered` leaves the path idle; control overtakes what is beyond it.
        """
        ...

    def start(self, on_message: OnMessage, on_room: OnRoom, on_closed: OnClosed) -> None:
        """Begin to deliver; call once. What arrived before is delivered first, in order.

        `on_message` gets each message once, and may keep the view. `on_room` follows whenever `buffered` fell.
        `on_closed` is called exactly once, last, and never from inside `start`, `send` or `close`.
        """
        ...

    def send(self, lane: Lane, data: bytes | bytearray | memoryview) -> None:
        """Take one message and return at once. The caller keeps an eye on `buffered`.

        Raises LinkClosed after the link closed, ValueError for an empty message or one over `message_bytes_max`.
        """
        ...

    def buffered(self) -> int:
        """Bytes accepted by `send` that the other end has not acknowledged."""
        ...

    def close(self, reason: str) -> None:
        """Close both directions; idempotent. What is queued on CONTROL still goes out, briefly; BULK is dropped."""
        ...


class OfferedLink(Protocol):
    """Our half of a link that we proposed."""

    @property
    def description(self) -> bytes:
        """What the other side needs to know, at most DESCRIPTION_BYTES_MAX."""
        ...

    async def accept(self, answer: bytes, timeout_s: float) -> Link:
        """Open the link with the other side's description.

        Raises ProtocolViolation if the answer is badly formed, NotReachable if no connection came about in time.
        Whatever happens, nothing is left to abandon.
        """
        ...

    def abandon(self) -> None:
        """Give the offer up and release its sockets; idempotent."""
        ...


class AnsweredLink(Protocol):
    """Our half of a link that the other side proposed."""

    @property
    def description(self) -> bytes:
        """What the other side needs to know, at most DESCRIPTION_BYTES_MAX."""
        ...

    async def open(self, timeout_s: float) -> Link:
        """Wait for the link to open. Raises NotReachable. Whatever happens, nothing is left to abandon."""
        ...

    def abandon(self) -> None:
        """Give the answer up and release its sockets; idempotent."""
        ...


class Transport(Protocol):
    """Makes links."""

    async def offer(self) -> OfferedLink:
        """Prepare our half of a new link. Raises LocalError if no socket can be had."""
        ...

    async def answer(self, offer: bytes) -> AnsweredLink:
        """Prepare the other half. Raises ProtocolViolation if the offer is badly formed."""
        ...

    async def close(self) -> None:
        """Close every link, abandon every offer, and wait until their sockets are released; idempotent."""
        ...
