"""One link to one peer, and what runs on it: first the handshake, then `wire.Connection`, driven on the event loop.

This is the host of two sans-IO machines. What a peer does wrong ends here: its connection closes with the error's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from agent.admission import Certificate
from agent.errors import CallRefused, HandshakeRejected, HiveError, LinkClosed, ProtocolViolation, RemoteError
from agent.identity import PeerId
from agent.net.alarm import Alarm
from agent.net.offers import Offer
from agent.net.transport import Lane, Link, LinkKind
from agent.wire.connection import Buffer, Cancelled, Connection, Event, Failed, Notified, Requested, Responded, WireConfig
from agent.wire.handshake import Handshake

logger = logging.getLogger(__name__)

PIPES_AHEAD, BULK_ROOM_BYTES_MAX = 2, 32 << 20
"""On long fast paths so many times what is under way may be in the link, and no more bytes than this."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a handler gets. `deadline` is on the loop's clock; after it nobody waits for the reply."""

    peer: PeerId
    method: str
    header: bytes
    buffers: Sequence[memoryview]
    deadline: float


@dataclass(frozen=True)
class Reply:
    """What a handler gives, and a caller gets. Buffers are not copied: leave them unchanged once they are given away."""

    header: bytes = b""
    buffers: Sequence[Buffer] = ()


@dataclass(frozen=True, kw_only=True)
class PeerLink:
    """An open connection, for display and for choosing. `opened_at` is on the loop's clock."""

    kind: LinkKind
    rtt_s: float | None
    opened_at: float
    initiator: bool
    """Whether the connection came of our offer."""
    certificate: Certificate | None = None
    """What the coordinator says of the peer; None for an anonymous one."""


Handler = Callable[[Request], Awaitable[Reply]]


class ConnectionHost(Protocol):
    """Who owns connections: the network."""

    def admit(self, peer: PeerId, admission: bytes) -> Certificate | None:
        """Raises AdmissionRejected for a peer that may not take part."""
        ...

    def opened(self, connection: PeerConnection) -> None: ...

    def closed(self, connection: PeerConnection, reason: str) -> None: ...

    def handler(self, method: str) -> Handler | None: ...

    def notified(self, peer: PeerId, method: str, header: bytes) -> None: ...


class PeerConnection:
    """A link whose other end proves to be `offer.peer`; afterwards calls both ways.

    `bulk_room_bytes` is how much may be in the link before bulk holds back; more where the path itself holds more.
    """

    def __init__(
        self, link: Link, offer: Offer, handshake: Handshake, host: ConnectionHost, config: WireConfig, bulk_room_bytes: int
    ) -> None:
        self.peer = offer.peer
        self.offer = offer
        self.link = link
        self._handshake = handshake
        self._host = host
        self._config = replace(config, link_message_bytes_max=min(config.link_message_bytes_max, link.message_bytes_max))
        self._bulk_room_bytes = bulk_room_bytes
        self._loop = asyncio.get_running_loop()
        self._wire: Connection | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._opened_at = 0.0
        self._initiator = False
        self._certificate: Certificate | None = None
        self._calls: dict[int, asyncio.Future[Reply]] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}  # WireConfig.inbound_calls_max
        self._alarm = Alarm(self._tick)
        self._closed: HiveError | None = None

    async def open(self, *, initiator: bool, timeout_s: float) -> None:
        """Shake hands. Raises HandshakeRejected or LinkClosed, and then the link is closed."""
        self._initiator = initiator
        self.link.start(self._on_message, self._pump, self._on_closed)
        try:
            self.link.send(Lane.CONTROL, self._handshake.start())
            async with asyncio.timeout(timeout_s):
                await self._ready
        except TimeoutError:
            self.fail(HandshakeRejected("the peer did not finish the handshake in time"))
            raise HandshakeRejected("the peer did not finish the handshake in time") from None
        except (asyncio.CancelledError, HiveError):
            self.close("the handshake did not finish")
            raise

    @property
    def info(self) -> PeerLink:
        rtt_s = self._wire.rtt_s if self._wire is not None else None
        return PeerLink(
            kind=self.link.kind,
            rtt_s=rtt_s or self.link.rtt_s,
            opened_at=self._opened_at,
            initiator=self._initiator,
            certificate=self._certificate,
        )

    async def call(self, method: str, header: bytes, buffers: Sequence[Buffer], *, timeout_s: float) -> Reply:
        """Ask the peer. Raises CallTimeout, LinkClosed, CallRefused; ValueError and LocalError as `wire` says."""
        if self._wire is None or self._closed is not None:
            raise LinkClosed(str(self._closed or "the connection is not open"))
        number = self._wire.request(method, header, buffers, now=self._loop.time(), timeout_s=timeout_s)
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._calls[number] = future
        self._pump()
        try:
            return await future
        except asyncio.CancelledError:
            self._wire.cancel(number, now=self._loop.time())
            self._pump()
            raise
        finally:
            self._calls.pop(number, None)

    def notify(self, method: str, header: bytes) -> bool:
        """Send a one-way message; False if it was dropped. Raises ValueError if it is too long."""
        if self._wire is None or self._closed is not None:
            return False
        sent = self._wire.notify(method, header, now=self._loop.time())
        self._pump()
        return sent

    def close(self, reason: str) -> None:
        """End the connection from our side; idempotent."""
        self._end(LinkClosed(reason))
        self.link.close(reason)

    def fail(self, error: RemoteError) -> None:
        """End it because of what the peer did."""
        logger.info("connection with %s closed: %s: %s", self.peer.short, type(error).__name__, error)
        self._end(error)
        self.link.close(f"{type(error).__name__}: {error}")

    @property
    def serving(self) -> bool:
        """Whether handlers of the peer's requests are running."""
        return bool(self._serving)

    async def settled(self) -> None:
        """Wait until the handlers of a closed connection have ended."""
        while self._serving:
            await asyncio.wait(self._serving.values())

    @property
    def shown(self) -> bytes:
        """The certificate that the peer showed in its handshake; empty if none."""
        return self._handshake.admission

    # Link to machines

    def _on_message(self, lane: Lane, data: memoryview) -> None:
        if self._closed is not None:
            return
        try:
            if self._wire is None:
                self._shake(lane, data)
            else:
                self._perform(self._wire.receive(lane.value, data, self._loop.time()))
        except RemoteError as e:
            self.fail(e)
            return
        self._pump()

    def _shake(self, lane: Lane, data: memoryview) -> None:
        if lane is not Lane.CONTROL:
            raise HandshakeRejected("the peer sent data before its handshake was done")
        for message in self._handshake.receive(data):
            self.link.send(Lane.CONTROL, message)
        if self._handshake.peer is not None:
            self._certificate = self._host.admit(self._handshake.peer, self._handshake.admission)
            self._wire = Connection(self._config, initiator=self._initiator)
            self._opened_at = self._loop.time()
            if not self._ready.done():
                self._ready.set_result(None)
            self._host.opened(self)

    def _on_closed(self, reason: str) -> None:
        self._end(LinkClosed(reason))

    def _pump(self) -> None:
        """Send what there is room for, and set the timer."""
        if self._wire is None or self._closed is not None:
            return
        link, now = self.link, self._loop.time()
        try:
            room = max(self._bulk_room_bytes, min(PIPES_AHEAD * link.pipe_bytes, BULK_ROOM_BYTES_MAX))
            for lane, data in self._wire.transmit(now, room - link.buffered()):
                link.send(Lane(lane), data)
        except LinkClosed:  # on_closed follows
            return
        deadline = self._wire.next_deadline()
        if deadline is not None:
            self._alarm.set(deadline)

    def _tick(self) -> None:
        if self._wire is None or self._closed is not None:
            return
        try:
            self._perform(self._wire.tick(self._loop.time()))
        except RemoteError as e:
            self.fail(e)
            return
        self._pump()

    def _end(self, error: HiveError) -> None:
        if self._closed is not None:
            return
        self._closed = error
        self._alarm.cancel()
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # open() gets it, if it still waits
        if self._wire is not None:
            self._perform(self._wire.close(error))
            self._host.closed(self, str(error))

    # Machines to callers and handlers

    def _perform(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Responded(call, header, buffers):
                    future = self._calls.pop(call, None)
                    if future is not None and not future.done():
                        future.set_result(Reply(header, buffers))
                case Failed(call, error):
                    future = self._calls.pop(call, None)
                    if future is not None and not future.done():
                        future.set_exception(error)
                case Requested():
                    self._begin(event)
                case Cancelled(call):
                    if (task := self._serving.get(call)) is not None:
                        task.cancel()
                case Notified(method, header):
                    self._host.notified(self.peer, method, header)

    def _begin(self, event: Requested) -> None:
        handler = self._host.handler(event.method)
        if handler is None:
            assert self._wire is not None
            self._wire.refuse(event.call, "unknown-method", event.method, now=self._loop.time())
            return
        task = self._loop.create_task(self._serve(event, handler))
        self._serving[event.call] = task
        task.add_done_callback(lambda _: self._serving.pop(event.call, None))

    async def _serve(self, event: Requested, handler: Handler) -> None:
        """The root of one request's task."""
        assert self._wire is not None
        request = Request(
            peer=self.peer, method=event.method, header=event.header, buffers=event.buffers, deadline=event.deadline
        )
        code, message = "", ""
        try:
            reply = await handler(request)
            self._wire.respond(event.call, reply.header, reply.buffers, now=self._loop.time())
        except CallRefused as e:
            code, message = e.code, e.message
        except ProtocolViolation as e:
            self.fail(e)
        except HiveError as e:
            code, message = "failed", f"{type(e).__name__}: {e}"
        except Exception:
            logger.exception("the handler of %s failed", event.method)
            code = "internal-error"
        if code:
            self._wire.refuse(event.call, code, message[:300], now=self._loop.time())
        self._pump()
