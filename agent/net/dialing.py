"""From an offer to an open link, in both directions, and what happens when two peers offer to each other at once.

The offer of the lower PeerId wins: its receiver answers it at once; its sender holds the other offer until its own has
worked, and answers it only if not. So one connection comes about, by whichever path works, and both `dial`s succeed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.admission import Rule
from agent.errors import ConfigError, HiveError, LocalError, NotReachable, RemoteError
from agent.identity import PeerId
from agent.net.offers import EXCHANGE_BYTES, Offer, OfferBook
from agent.net.transport import AnsweredLink, Link, Transport
from agent.wire.connection import WireConfig

logger = logging.getLogger(__name__)


class Signaler(Protocol):
    """Carries one sealed offer to a peer and brings back its sealed answer."""

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        """Raises NotReachable. The caller bounds the time by cancelling."""
        ...


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Limits and times (seconds) of a Network."""

    wire: WireConfig = field(default_factory=WireConfig)
    admission: bytes = b""
    """The coordinator's certificate for us, shown to every peer. `Network.present` replaces it."""
    rule: Rule | None = None
    """Who may take part; None lets in everybody."""
    bulk_room_bytes: int = 1 << 20
    """How much may be in a link before bulk holds back; more where the path itself holds more."""
    open_timeout_s: float = 20.0
    """From a description to an open link, when we are the one who answers."""
    handshake_timeout_s: float = 10.0
    reach_timeout_s: float = 30.0
    """How long `Network.dialer` may take for one peer, however short the call that needs it."""
    redial_pause_s: float = 1.0
    """After `Network.dialer` failed for a peer, calls to it fail at once for so long."""
    answers_max: int = 32
    """Offers of others that are being answered or opened at one time."""
    answer_grace_s: float = 5.0
    """At that limit, one that has not opened for so long gives way: honest ones take a second or two."""
    dials_max: int = 64
    """Peers that we are dialing at one time."""
    connections_max: int = 512
    """Beyond so many connections, offers of others are refused."""

    def __post_init__(self) -> None:
        times = (self.open_timeout_s, self.handshake_timeout_s, self.reach_timeout_s)
        if min(times) <= 0 or min(self.redial_pause_s, self.answer_grace_s) < 0:
            raise ConfigError("the network's times must be positive")
        if min(self.answers_max, self.dials_max, self.connections_max, self.bulk_room_bytes) < 1:
            raise ConfigError("the network's limits must be positive")


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the process supplies; tests replace both."""

    clock: Callable[[], float] = time.time
    """Unix time, for offers."""
    entropy: Callable[[int], bytes] = os.urandom
    """So many unpredictable bytes."""


class Meeting(Protocol):
    """What becomes of a link: the network."""

    def is_connected(self, peer: PeerId) -> bool: ...

    def has_room(self, peer: PeerId) -> bool: ...

    async def shake_hands(self, link: Link, offer: Offer, *, initiator: bool) -> None:
        """Raises HandshakeRejected, LinkClosed."""
        ...


class Introducer:
    """Makes and answers offers until a link is open and handed to `meeting`."""

    def __init__(
        self, offers: OfferBook, transport: Transport, config: NetworkConfig, surroundings: Surroundings, meeting: Meeting
    ) -> None:
        self._offers = offers
        self._transport = transport
        self._config = config
        self._clock = surroundings.clock
        self._entropy = surroundings.entropy
        self._meeting = meeting
        self._dials: dict[PeerId, asyncio.Task[None]] = {}  # dials_max
        self._waiting: dict[PeerId, int] = {}  # one per dial
        self._attempts: dict[PeerId, asyncio.Task[None]] = {}  # one per dial
        self._news: dict[PeerId, asyncio.Future[None]] = {}  # one per dial
        self._inbound: dict[PeerId, asyncio.Task[None]] = {}  # answers_max
        self._answering: dict[PeerId, int] = {}  # answers_max
        self._opening_since: dict[asyncio.Task[None], float] = {}  # of _inbound, the oldest first
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        tasks = [*self._dials.values(), *self._attempts.values(), *self._inbound.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def under_way(self, peer: PeerId) -> asyncio.Task[None] | None:
        """What is already bringing a connection to `peer` about."""
        return self._dials.get(peer) or self._inbound.get(peer)

    def connected(self, peer: PeerId) -> None:
        """Tell that a connection to `peer` has opened."""
        if (news := self._news.get(peer)) is not None and not news.done():
            news.set_result(None)

    # Our offer

    async def dial(self, peer: PeerId, signaler: Signaler, timeout_s: float) -> None:
        """Raises NotReachable, HandshakeRejected, LocalError."""
        task = self._dials.get(peer)
        if task is None:
            if self._closed or len(self._dials) >= self._config.dials_max:
                raise NotReachable("this agent is closing" if self._closed else "too many connections are being dialed")
            task = self._start(self._dials, peer, self._dial(peer, signaler, timeout_s))
        self._waiting[peer] = self._waiting.get(peer, 0) + 1
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            self._waiting[peer] -= 1
            if not self._waiting[peer]:  # nobody wants it any more
                del self._waiting[peer]
                task.cancel()
        if not task.done() or task.cancelled():
            raise _too_late(peer, timeout_s)
        task.result()

    async def _dial(self, peer: PeerId, signaler: Signaler, timeout_s: float) -> None:
        attempt: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(timeout_s):
                if (inbound := self._inbound.get(peer)) is not None:
                    await asyncio.wait({inbound})
                if self._meeting.is_connected(peer):
                    return
                attempt = self._start(self._attempts, peer, self._attempt(peer, signaler, timeout_s))
                while not self._meeting.is_connected(peer):
                    if attempt.done() and peer not in self._answering:
                        attempt.result()
                        raise NotReachable(f"the connection to {peer.short} closed as soon as it was open")
                    news = self._news[peer] = asyncio.get_running_loop().create_future()
                    waiting = {news} if attempt.done() else {news, attempt}
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise _too_late(peer, timeout_s) from None
        finally:
            self._news.pop(peer, None)
            if attempt is not None and not attempt.done():
                attempt.cancel()
                await asyncio.wait({attempt})

    async def _attempt(self, peer: PeerId, signaler: Signaler, timeout_s: float) -> None:
        """One offer, from its making to an open connection. Raises NotReachable, HandshakeRejected."""
        offered = await self._transport.offer()
        try:
            try:
                offer, sealed = self._offers.make_offer(
                    peer, offered.description, exchange=self._entropy(EXCHANGE_BYTES), now=self._clock()
                )
            except ValueError as e:
                raise NotReachable(f"{peer.short} is not an id that can be reached: {e}") from None
            answer = await signaler.exchange(peer, sealed)
            try:
                description = self._offers.open_answer(answer, offer, now=self._clock())
            except RemoteError as e:
                raise NotReachable(f"{peer.short} could not be reached: {e}") from None
            if not description:  # the peer's own offer has connected us, or does so now
                return
            link = await offered.accept(description, timeout_s)
        finally:
            offered.abandon()
        await self._meeting.shake_hands(link, offer, initiator=True)

    # Their offer

    async def answer(self, sealed_offer: bytes) -> bytes:
        """See Network.answer."""
        offer = self._offers.open_offer(sealed_offer, now=self._clock())
        peer = offer.peer
        if self._closed or not self._has_turn():
            raise RemoteError("this peer is setting up too many connections at the moment; try again")
        if not self._meeting.has_room(peer):
            raise RemoteError("this peer has as many connections as it takes")
        self._answering[peer] = self._answering.get(peer, 0) + 1
        handed_over = False
        try:
            ours = self._attempts.get(peer)
            if ours is not None and self._offers.peer_id < peer:
                await asyncio.wait({ours}, timeout=self._config.open_timeout_s)
                if self._meeting.is_connected(peer):
                    return self._offers.make_answer(offer, b"", now=self._clock())
            try:
                answered = await self._transport.answer(offer.description)
            except LocalError as e:
                raise RemoteError(f"this peer cannot take connections at the moment: {e}") from None
            if (older := self._inbound.get(peer)) is not None:
                older.cancel()
                await asyncio.wait({older})
            opening = self._start(self._inbound, peer, self._open(offer, answered))
            self._opening_since[opening] = asyncio.get_running_loop().time()
            opening.add_done_callback(lambda _: answered.abandon())
            handed_over = True
            return self._offers.make_answer(offer, answered.description, now=self._clock())
        finally:
            if not handed_over:
                self._answered(peer)

    def _has_turn(self) -> bool:
        """Whether one more offer can be answered; the opening that is longest under way may have to make room."""
        if sum(self._answering.values()) < self._config.answers_max:
            return True
        oldest, since = next(iter(self._opening_since.items()), (None, 0.0))
        if oldest is None or asyncio.get_running_loop().time() - since < self._config.answer_grace_s:
            return False
        del self._opening_since[oldest]
        oldest.cancel()
        return True

    async def _open(self, offer: Offer, answered: AnsweredLink) -> None:
        try:
            link = await answered.open(self._config.open_timeout_s)
            await self._meeting.shake_hands(link, offer, initiator=False)
        except RemoteError as e:
            logger.info("the offer of %s came to nothing: %s: %s", offer.peer.short, type(e).__name__, e)

    def _answered(self, peer: PeerId) -> None:
        self._answering[peer] -= 1
        if not self._answering[peer]:
            del self._answering[peer]
        if (news := self._news.get(peer)) is not None and not news.done():
            news.set_result(None)

    def _start(
        self, table: dict[PeerId, asyncio.Task[None]], peer: PeerId, work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        table[peer] = task

        def ended(task: asyncio.Task[None]) -> None:
            if table.get(peer) is task:
                del table[peer]
            if table is self._inbound:
                self._opening_since.pop(task, None)
                self._answered(peer)
            if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, HiveError):
                logger.error("connecting to %s failed", peer.short, exc_info=error)

        task.add_done_callback(ended)
        return task


def _too_late(peer: PeerId, timeout_s: float) -> NotReachable:
    return NotReachable(f"no connection to {peer.short} came about within {timeout_s:.3g} s")
