"""Peers and calls: at most one hand-shaken connection to each peer, and requests over them.

A connection comes of an offer. We make one in `dial`, and every path on which offers reach us (bootstrap server,
rendezvous, routed over the overlay) ends in `answer`. `dialing.py` takes an offer as far as an open link, `connection.py`
has the link from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.admission import Certificate, Rule
from agent.errors import AdmissionRejected, CallTimeout, HiveError, NotReachable, RemoteError
from agent.identity import Identity, PeerId
from agent.net.connection import Handler, PeerConnection, PeerLink, Reply, Request
from agent.net.dialing import Introducer, NetworkConfig, Signaler, Surroundings
from agent.net.offers import Offer, OfferBook
from agent.net.transport import Link, Transport
from agent.wire.connection import Buffer
from agent.wire.handshake import NONCE_BYTES, Channel, Handshake, Terms

__all__ = ["Handler", "Network", "NetworkConfig", "NetworkStats", "PeerLink", "Reply", "Request", "Signaler", "Surroundings"]

logger = logging.getLogger(__name__)

_CONFIG = NetworkConfig()
_SURROUNDINGS = Surroundings()


@dataclass
class NetworkStats:
    """Totals since the start. Bytes are those of messages, without the overhead of DTLS and IP."""

    bytes_sent: int = 0
    bytes_received: int = 0
    calls: int = 0
    calls_failed: int = 0


class Network:
    """See the module. Everything belongs to one event loop."""

    def __init__(
        self,
        *,
        identity: Identity,
        experiment: str,
        transport: Transport,
        config: NetworkConfig = _CONFIG,
        surroundings: Surroundings = _SURROUNDINGS,
    ) -> None:
        self.peer_id = identity.peer_id
        self.dialer: Callable[[PeerId], Awaitable[None]] | None = None
        """How to connect to a peer that a call needs; raises RemoteError. The overlay sets it."""
        self._identity = identity
        self._terms = Terms(experiment=experiment, admission=config.admission)
        self._clock = surroundings.clock
        self._transport = transport
        self._config = config
        self._entropy = surroundings.entropy
        self._introducer = Introducer(OfferBook(identity, experiment), transport, config, surroundings, self)
        self._connections: dict[PeerId, PeerConnection] = {}
        self._leaving: set[PeerConnection] = set()
        self._handlers: dict[str, Handler] = {}
        self._notices: dict[str, Callable[[PeerId, bytes], None]] = {}
        self._listeners: list[tuple[Callable[[PeerId], None], Callable[[PeerId, str], None]]] = []
        self._reaching: dict[PeerId, asyncio.Task[None]] = {}  # dials_max
        self._unreachable: dict[PeerId, tuple[float, str]] = {}  # dials_max
        self._totals = NetworkStats()
        self._closed = False

    # Calls

    def register(self, method: str, handler: Handler) -> None:
        """Serve `method`. The handler raises CallRefused(code, message) to refuse; it is cancelled when nobody waits for it."""
        if method in self._handlers:
            raise ValueError(f"{method} has a handler already")
        self._handlers[method] = handler

    def on_notify(self, method: str, callback: Callable[[PeerId, bytes], None]) -> None:
        """Take one-way messages. A RemoteError that the callback raises closes the sender's connection."""
        if method in self._notices:
            raise ValueError(f"{method} has a callback already")
        self._notices[method] = callback

    async def call(
        self, peer: PeerId, method: str, header: bytes = b"", buffers: Sequence[Buffer] = (), *, timeout_s: float
    ) -> Reply:
        """Ask a peer, connecting to it first if need be. Cancelling the task cancels the call.

        The buffers are not copied: leave them unchanged until this returns. Raises CallTimeout, LinkClosed, NotReachable,
        CallRefused; ValueError and LocalError for what the caller did wrong.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        self._totals.calls += 1
        try:
            connection = self._connections.get(peer) or await self._reach(peer, timeout_s)
            remaining_s = deadline - asyncio.get_running_loop().time()
            if remaining_s <= 0:
                raise CallTimeout(f"connecting to {peer.short} took all of the call's {timeout_s:.3g} s")
            return await connection.call(method, header, buffers, timeout_s=remaining_s)
        except HiveError:
            self._totals.calls_failed += 1
            raise

    async def connect(self, peer: PeerId, *, timeout_s: float) -> None:
        """Be connected to `peer`, so that a first call need not spend its time on that. Raises NotReachable."""
        if peer not in self._connections:
            await self._reach(peer, timeout_s)

    def notify(self, peer: PeerId, method: str, header: bytes) -> bool:
        """Send a one-way message. False if there is no connection, or too much waits on it. ValueError if it is too long."""
        connection = self._connections.get(peer)
        return connection is not None and connection.notify(method, header)

    # Peers

    def peers(self) -> Mapping[PeerId, PeerLink]:
        """The open connections."""
        return {peer: connection.info for peer, connection in self._connections.items()}

    def subnet(self, peer: PeerId) -> str:
        """See `transport.Link`; empty for a peer that is not connected."""
        connection = self._connections.get(peer)
        return connection.link.subnet if connection is not None else ""

    def is_connected(self, peer: PeerId) -> bool:
        return peer in self._connections

    def add_listener(self, opened: Callable[[PeerId], None], closed: Callable[[PeerId, str], None]) -> None:
        """Hear of connections, always in turns: opened, closed, opened, … for one peer."""
        self._listeners.append((opened, closed))

    @property
    def stats(self) -> NetworkStats:
        """A snapshot."""
        links = [c.link for c in self._connections.values()]
        return NetworkStats(
            bytes_sent=self._totals.bytes_sent + sum(link.bytes_sent for link in links),
            bytes_received=self._totals.bytes_received + sum(link.bytes_received for link in links),
            calls=self._totals.calls,
            calls_failed=self._totals.calls_failed,
        )

    def disconnect(self, peer: PeerId, reason: str) -> None:
        """Close the connection to a peer, if there is one."""
        if (connection := self._connections.get(peer)) is not None:
            connection.close(reason)

    async def close(self) -> None:
        """Close every connection and the transport; idempotent."""
        self._closed = True
        reaching = list(self._reaching.values())
        for task in reaching:
            task.cancel()
        if reaching:
            await asyncio.wait(reaching)
        await self._introducer.close()
        for connection in list(self._connections.values()):
            connection.close("this agent is leaving")
        for connection in list(self._leaving):
            await connection.settled()
        await self._transport.close()

    async def dial(self, peer: PeerId, signaler: Signaler, *, timeout_s: float) -> None:
        """Connect to a peer, if we are not connected. Who dials it already is joined, whatever its signaler.

        Raises NotReachable, HandshakeRejected; LocalError if no socket can be had.
        """
        if peer == self.peer_id:
            raise ValueError("a peer does not dial itself")
        if peer not in self._connections:
            await self._introducer.dial(peer, signaler, timeout_s)

    async def answer(self, sealed_offer: bytes) -> bytes:
        """Take a sealed offer, from wherever it came, and return the sealed answer; the connection then opens by itself.

        Raises RemoteError with a sentence for the one who sent it: not for us, stale, replayed, another experiment, busy.
        """
        return await self._introducer.answer(sealed_offer)

    def present(self, admission: bytes) -> None:
        """Show this certificate in the handshakes to come; open connections stay as they are."""
        self._terms = replace(self._terms, admission=admission)

    def judge_by(self, rule: Rule) -> None:
        """Admit by this rule from now on, and part from those connected whom it does not admit."""
        self._config = replace(self._config, rule=rule)
        for peer, connection in list(self._connections.items()):
            try:
                self.admit(peer, connection.shown)
            except AdmissionRejected as e:
                self.disconnect(peer, str(e))

    # What Introducer and PeerConnection ask for

    def admit(self, peer: PeerId, admission: bytes) -> Certificate | None:
        """Judge what a peer showed, by the rule of the configuration. Raises AdmissionRejected."""
        rule = self._config.rule
        return None if rule is None else rule.judge(peer, admission, self._clock())

    def has_room(self, peer: PeerId) -> bool:
        return len(self._connections) < self._config.connections_max or peer in self._connections

    async def shake_hands(self, link: Link, offer: Offer, *, initiator: bool) -> None:
        """Make a connection of a link. Raises HandshakeRejected, LinkClosed."""
        handshake = Handshake(
            self._identity,
            self._terms,
            Channel(local_fingerprint=link.local_fingerprint, remote_fingerprint=link.remote_fingerprint, initiator=initiator),
            nonce=self._entropy(NONCE_BYTES),
            deadline=asyncio.get_running_loop().time() + self._config.handshake_timeout_s,
            expected=offer.peer,
        )
        connection = PeerConnection(link, offer, handshake, self, self._config.wire, self._config.bulk_room_bytes)
        await connection.open(initiator=initiator, timeout_s=self._config.handshake_timeout_s)

    def opened(self, connection: PeerConnection) -> None:
        """A handshake is done. Of two connections to one peer both sides keep that of the newer offer."""
        older = self._connections.get(connection.peer)
        if older is not None and older.offer.age_key > connection.offer.age_key:
            connection.close("a newer connection to this peer exists")
            return
        if older is not None:
            older.close("replaced by a newer connection to this peer")
        self._connections[connection.peer] = connection
        self._unreachable.pop(connection.peer, None)
        self._introducer.connected(connection.peer)
        for opened, _ in self._listeners:
            opened(connection.peer)

    def closed(self, connection: PeerConnection, reason: str) -> None:
        """A connection that had opened has ended."""
        self._totals.bytes_sent += connection.link.bytes_sent
        self._totals.bytes_received += connection.link.bytes_received
        self._leaving = {c for c in self._leaving if c.serving} | {connection}
        if self._connections.get(connection.peer) is connection:
            del self._connections[connection.peer]
            for _, closed in self._listeners:
                closed(connection.peer, reason)

    def handler(self, method: str) -> Handler | None:
        return self._handlers.get(method)

    def notified(self, peer: PeerId, method: str, header: bytes) -> None:
        if (callback := self._notices.get(method)) is None:
            return
        try:
            callback(peer, header)
        except RemoteError:  # the connection's to deal with
            raise
        except Exception:
            logger.exception("the callback of %s failed", method)

    # Reaching whom a call needs

    async def _reach(self, peer: PeerId, timeout_s: float) -> PeerConnection:
        if peer == self.peer_id:
            raise ValueError("a peer does not call itself")
        loop = asyncio.get_running_loop()
        failed_at, why = self._unreachable.get(peer, (0.0, ""))
        if why and loop.time() < failed_at + self._config.redial_pause_s:
            raise NotReachable(why)
        task = self._reaching.get(peer) or self._introducer.under_way(peer)
        if task is None:
            if self.dialer is None or self._closed:
                raise NotReachable(f"there is no connection to {peer.short}, and no way to make one")
            if len(self._reaching) >= self._config.dials_max:
                raise NotReachable("too many connections are being dialed")
            task = self._reaching[peer] = loop.create_task(self._run_dialer(peer, self.dialer))
            task.add_done_callback(lambda task: self._dialer_ran(peer, task))
        await asyncio.wait({task}, timeout=timeout_s)
        connection = self._connections.get(peer)
        if connection is None:
            if not task.done() or task.cancelled():
                raise NotReachable(f"no connection to {peer.short} came about within {timeout_s:.3g} s")
            task.result()
            raise NotReachable(f"no connection to {peer.short} came about")
        return connection

    async def _run_dialer(self, peer: PeerId, dialer: Callable[[PeerId], Awaitable[None]]) -> None:
        why = f"no connection to {peer.short} came about within {self._config.reach_timeout_s:.3g} s"
        try:
            async with asyncio.timeout(self._config.reach_timeout_s):
                await dialer(peer)
            return
        except TimeoutError:
            pass
        except RemoteError as e:
            why = str(e)
        if len(self._unreachable) >= self._config.dials_max:
            del self._unreachable[next(iter(self._unreachable))]
        self._unreachable[peer] = asyncio.get_running_loop().time(), why
        raise NotReachable(why)

    def _dialer_ran(self, peer: PeerId, task: asyncio.Task[None]) -> None:
        del self._reaching[peer]
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, HiveError):
            logger.error("the dialer failed for %s", peer.short, exc_info=error)
