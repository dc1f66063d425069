"""Links inside one process, for tests and simulations: same contract as WebRTC, no sockets, the same every time.

A `MemoryFabric` is the whole network. Each peer gets a `MemoryTransport` from it. Delivery goes through the event loop
in the order of sending, so one seed gives one course of events; with `delay_s` it takes that long on the loop's clock.
A test can cut a link with notice or without, hold its traffic, or make peers unreachable.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import LinkClosed, NotReachable, ProtocolViolation
from agent.net.transport import Lane, LinkKind, OnClosed, OnMessage, OnRoom

HELD_BYTES_MAX = 4 << 20
"""What may arrive before `start`; more closes the link."""

_MAGIC = b"hive-memory/"


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """How links of one fabric behave."""

    message_bytes_max: int = 64 * 1024
    """Largest message, bytes."""
    delay_s: float = 0.0
    """One-way delay, seconds on the loop's clock; 0 delivers in the loop's next round."""
    kind: LinkKind = "direct"

    def __post_init__(self) -> None:
        if self.message_bytes_max < 1 or self.delay_s < 0:
            raise ValueError("message_bytes_max must be positive and delay_s not negative")


class MemoryLink:
    """One end of a link. See `transport.Link`."""

    def __init__(self, fabric: MemoryFabric, local: bytes, remote: bytes) -> None:
        self.kind: LinkKind = fabric.config.kind
        self.subnet = ""
        self.local_fingerprint = local
        self.remote_fingerprint = remote
        self.message_bytes_max = fabric.config.message_bytes_max
        self.bytes_sent = 0
        self.bytes_received = 0
        self.held = False
        """While true, what this end sends stays in its buffer."""
        self.silent = False
        """While true, what this end sends is lost without a word."""
        self._delay_s = fabric.config.delay_s
        self._loop = asyncio.get_running_loop()
        self._other: MemoryLink | None = None
        self._queue: deque[tuple[Lane, bytes]] = deque()
        self._travelling: deque[tuple[Lane, bytes] | str] = deque()
        self._buffered = 0
        self._early: deque[tuple[Lane, bytes]] = deque()
        self._early_bytes = 0
        self._callbacks: tuple[OnMessage, OnRoom, OnClosed] | None = None
        self._closed: str | None = None
        self._told = False

    @property
    def rtt_s(self) -> float | None:
        return 2 * self._delay_s

    @property
    def pipe_bytes(self) -> int:
        return 0

    @property
    def closed(self) -> bool:
        return self._closed is not None

    def start(self, on_message: OnMessage, on_room: OnRoom, on_closed: OnClosed) -> None:
        if self._callbacks is not None:
            raise ValueError("start is called once")
        self._callbacks = on_message, on_room, on_closed
        self._loop.call_soon(self._deliver_early)

    def send(self, lane: Lane, data: bytes | bytearray | memoryview) -> None:
        if self._closed is not None:
            raise LinkClosed(self._closed)
        message = bytes(data)
        if not 0 < len(message) <= self.message_bytes_max:
            raise ValueError(f"a message has 1 to {self.message_bytes_max} bytes, not {len(message)}")
        self.bytes_sent += len(message)
        self._buffered += len(message)
        self._queue.append((lane, message))
        if not self.held:
            self._flush()

    def buffered(self) -> int:
        return self._buffered

    def close(self, reason: str) -> None:
        if self._closed is not None:
            return
        self._queue.clear()
        self._early.clear()
        self._travelling.append(f"the other end closed the connection: {reason}")
        self._later(self._arrive)
        self._ended(reason)

    def cut(self) -> None:
        """Lose everything in both directions from now on, as a pulled cable does. Nobody is told."""
        self.silent = True
        if self._other is not None:
            self._other.silent = True

    def hold(self) -> None:
        """Keep what this end sends in its buffer until `release`."""
        self.held = True

    def release(self) -> None:
        self.held = False
        self._flush()

    def _flush(self) -> None:
        while self._queue:
            self._travelling.append(self._queue.popleft())
            self._later(self._arrive)

    def _later(self, callback: Callable[[], None]) -> None:
        if self._delay_s:
            self._loop.call_later(self._delay_s, callback)
        else:
            self._loop.call_soon(callback)

    def _arrive(self) -> None:
        item = self._travelling.popleft()
        if self.silent or self._other is None:
            return
        if isinstance(item, str):
            self._other._ended(item)
            return
        lane, message = item
        self._buffered -= len(message)
        self._other._receive(lane, message)
        if self._callbacks is not None and self._closed is None:
            self._callbacks[1]()

    def _receive(self, lane: Lane, message: bytes) -> None:
        if self._closed is not None:
            return
        if self._callbacks is None or self._early:
            self._early.append((lane, message))
            self._early_bytes += len(message)
            if self._early_bytes > HELD_BYTES_MAX:
                self.close("the other end sent too much before this end was ready")
            return
        self.bytes_received += len(message)
        self._callbacks[0](lane, memoryview(message))

    def _deliver_early(self) -> None:
        if self._callbacks is None:
            return
        while self._early:
            lane, message = self._early.popleft()
            self.bytes_received += len(message)
            self._callbacks[0](lane, memoryview(message))
        self._tell_closed()

    def _ended(self, reason: str) -> None:
        if self._closed is None:
            self._closed = reason
            self._queue.clear()
            self._loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        """`on_closed`, once, after everything that arrived before the end."""
        if self._closed is not None and self._callbacks is not None and not self._early and not self._told:
            self._told = True
            self._callbacks[2](self._closed)


@dataclass(eq=False)
class _Half:
    """One side of a link that is being opened."""

    transport: MemoryTransport
    description: bytes
    link: asyncio.Future[MemoryLink]
    peer: _Half | None = None

    async def accept(self, answer: bytes, timeout_s: float) -> MemoryLink:
        fabric = self.transport.fabric
        other = fabric.halves.get(answer)
        try:
            if other is None and not answer.startswith(_MAGIC):
                raise ProtocolViolation("this is not the description of a link in memory")
            if other is None or other.peer is not self or fabric.unreachable(self.transport, other.transport):
                raise NotReachable("the other end of this link is gone")
            return fabric.connect(self, other)
        finally:
            self.abandon()

    async def open(self, timeout_s: float) -> MemoryLink:
        try:
            await asyncio.wait({self.link}, timeout=timeout_s)
            if not self.link.done() or self.link.cancelled():
                raise NotReachable(f"the link did not open within {timeout_s:g} s, or was given up")
            return self.link.result()
        finally:
            self.abandon()

    def abandon(self) -> None:
        self.transport.fabric.halves.pop(self.description, None)
        self.transport.halves.discard(self)
        self.link.cancel()


class MemoryTransport:
    """One peer's way into a fabric. See `transport.Transport`."""

    def __init__(self, fabric: MemoryFabric, name: str) -> None:
        self.fabric = fabric
        self.name = name
        self.fingerprint = hashlib.sha256(name.encode()).digest()
        self.halves: set[_Half] = set()
        self.links: set[MemoryLink] = set()
        self.offers = 0
        """How many offers and answers were prepared here, for tests that count."""

    async def offer(self) -> _Half:
        return self._half()

    async def answer(self, offer: bytes) -> _Half:
        if not offer.startswith(_MAGIC):
            raise ProtocolViolation("this is not the description of a link in memory")
        half = self._half()
        half.peer = self.fabric.halves.get(offer)
        return half

    async def close(self) -> None:
        for half in list(self.halves):
            half.abandon()
        for link in list(self.links):
            link.close("the transport was closed")
        self.links.clear()

    def _half(self) -> _Half:
        self.offers += 1
        self.links = {link for link in self.links if not link.closed}
        half = _Half(self, self.fabric.name_half(self.name), asyncio.get_running_loop().create_future())
        self.halves.add(half)
        self.fabric.halves[half.description] = half
        return half


class MemoryFabric:
    """The network that its transports share."""

    def __init__(self, config: MemoryConfig = MemoryConfig(), *, rng: random.Random | None = None) -> None:
        self.config = config
        self.halves: dict[bytes, _Half] = {}
        self.blocked: set[frozenset[str]] = set()
        """Pairs of transport names between which no new link opens."""
        self.links: list[tuple[MemoryLink, MemoryLink]] = []
        """Every link ever opened, the offerer's end first."""
        self._rng = rng or random.Random(0)
        self._count = 0

    def transport(self, name: str) -> MemoryTransport:
        """A way in for the peer called `name`; the name stands for its certificate."""
        return MemoryTransport(self, name)

    def block(self, a: str, b: str) -> None:
        """Let no new link open between two transports, as two symmetric NATs would."""
        self.blocked.add(frozenset((a, b)))

    def unreachable(self, a: MemoryTransport, b: MemoryTransport) -> bool:
        return frozenset((a.name, b.name)) in self.blocked

    def name_half(self, name: str) -> bytes:
        self._count += 1
        return _MAGIC + f"{name}/{self._count}/{self._rng.getrandbits(64):016x}".encode()

    def connect(self, offerer: _Half, answerer: _Half) -> MemoryLink:
        a = MemoryLink(self, offerer.transport.fingerprint, answerer.transport.fingerprint)
        b = MemoryLink(self, answerer.transport.fingerprint, offerer.transport.fingerprint)
        a._other, b._other = b, a
        offerer.transport.links.add(a)
        answerer.transport.links.add(b)
        self.links.append((a, b))
        answerer.link.set_result(b)
        return a
