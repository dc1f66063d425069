"""A world whose links are the real protocol: on both ends of each a handshake with Ed25519 keys and a connection of agent/wire.

The DHT's messages are notifications on it, as in agent/net/overlay.py, beside the calls of whoever uses the world. Nothing but
the connections' own pings finds out that a link is half open or stands still.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from agent.dht import events
from agent.dht.node import DhtNode
from agent.errors import HiveError, ProtocolViolation
from agent.identity import Identity, PeerId
from agent.wire.config import WireConfig
from agent.wire.connection import Event, Lane, Notified
from tests.sim.engine.chance import fork
from tests.sim.engine.pipes import Pipe
from tests.sim.engine.wires import Identification, WireEnd
from tests.sim.engine.world import EXPERIMENT, SimPeer, World

METHOD = "dht"
ROOM_BYTES = 1 << 20  # NetworkConfig.bulk_room_bytes
HASHED_BYTES = 64  # of each frame, beside its length


class WiredPeer(SimPeer):
    """A peer with its key, and the ends of its links: `ends` are open, `opening` shake hands."""

    __slots__ = ("ends", "fingerprint", "identity", "opening")

    def __init__(self, identity: Identity, node: DhtNode, born_at: float) -> None:
        super().__init__(identity.peer_id, node, born_at)
        self.identity = identity
        self.fingerprint = hashlib.sha256(f"{identity.peer_id} {born_at}".encode()).digest()  # one certificate a process
        self.ends: dict[PeerId, WireEnd] = {}
        self.opening: list[WireEnd] = []


class WiredWorld(World):
    """See the module. `on_events` gets what the connections tell their hosts, besides the DHT's messages."""

    def __init__(self, seed: int = 0, *, wire: WireConfig | None = None, room_bytes: int = ROOM_BYTES, **settings: Any) -> None:
        super().__init__(seed, **settings)
        self.wire = wire or WireConfig()
        self.room_bytes = room_bytes
        self.on_events: list[Callable[[WireEnd, Event], None]] = []
        self.on_opened: list[Callable[[WireEnd], None]] = []
        self.violations: list[str] = []  # of the protocol, or of a promise; nobody lies here, and there must be none
        self.handshakes = 0
        self.frames = [0, 0]
        self.buffered_most = 0
        self.closed_for: dict[str, int] = {}
        self._identities: dict[PeerId, Identity] = {}
        self._nonces = fork(seed, "nonces")
        self._links = 0

    # -- lives -------------------------------------------------------------------------------------------------------

    def _new_id(self, rng: random.Random) -> PeerId:
        identity = Identity.from_seed(rng.randbytes(32))
        self._identities[identity.peer_id] = identity
        return identity.peer_id

    def _new_peer(self, peer: PeerId, node: DhtNode) -> SimPeer:
        return WiredPeer(self._identities[peer], node, self.now)

    def wired(self, peer: PeerId) -> WiredPeer:
        found = self.peers[peer]
        assert isinstance(found, WiredPeer)
        return found

    def kill(self, peer: PeerId, *, noticed_after_s: float | None = 0.0) -> None:
        """`noticed_after_s` 0: it closes its links first. Otherwise it says nothing, and the others' pings find out."""
        dead = self.wired(peer)
        ends = [*dead.ends.values(), *dead.opening]
        if noticed_after_s == 0.0:
            for end in ends:
                end.close("this agent is leaving")
        dead.alive = False
        if noticed_after_s != 0.0:
            for end in ends:
                end.vanish()

    # -- links -------------------------------------------------------------------------------------------------------

    def link(self, a: PeerId, b: PeerId) -> None:
        self._link(a, b, lambda: None)

    def _link(self, a: PeerId, b: PeerId, failed: Callable[[], None]) -> None:
        """An offer of `a` has come as far as an open link: now both shake hands over it."""
        first, second = self.wired(a), self.wired(b)
        if not (first.alive and second.alive) or b in first.ends:
            return
        self._links += 1
        age = (self.now, self._links)
        one, two = WireEnd(self, first, b, age, initiator=True), WireEnd(self, second, a, age, initiator=False)
        one.far, two.far = two, one
        one.failed = failed
        for end in (one, two):
            end.out = Pipe(self, self.links, self._parted(a, b), self._carry(end.far), end.pump)
            end.me.opening.append(end)
        for end in (one, two):
            prints = (end.me.fingerprint, end.far.me.fingerprint)
            nonce = self._nonces.randbytes(32)
            said = Identification(
                identity=end.me.identity, nonce=nonce, local_fingerprint=prints[0], remote_fingerprint=prints[1]
            )
            end.start(said, EXPERIMENT)

    def _parted(self, a: PeerId, b: PeerId) -> Callable[[], bool]:
        return lambda: self.links.side is not None and self.links.side(a) != self.links.side(b)

    def _carry(self, end: WireEnd) -> Callable[[Lane, bytes, Callable[[], None]], None]:
        """Bring messages to an end, whose peer may be slow."""

        def take(lane: Lane, data: bytes, taken: Callable[[], None]) -> None:
            if not end.me.alive:
                return
            end.take(lane, data)
            taken()

        def carry(lane: Lane, data: bytes, taken: Callable[[], None]) -> None:
            me = end.me
            if me.slow_s or me.busy_until > self.now:
                me.busy_until = max(self.now, me.busy_until) + max(me.slow_s, 1e-6)
                self.at(me.busy_until, take, lane, data, taken)
            else:
                take(lane, data, taken)

        return carry

    def cut(self, a: PeerId, b: PeerId) -> None:
        """`a` closes the link; `b` hears of it, if anything gets through."""
        if (end := self.wired(a).ends.get(b)) is not None:
            end.close("cut")

    def half_open(self, a: PeerId, b: PeerId) -> None:
        if (end := self.wired(b).ends.get(a)) is not None:
            end.vanish()

    def stall(self, a: PeerId, b: PeerId, seconds: float) -> None:
        if (end := self.wired(a).ends.get(b)) is not None:
            for pipe in (end.out, end.far.out):
                pipe.stalled_until = max(pipe.stalled_until, self.now + seconds)

    def partition(self, side: Callable[[PeerId], int]) -> None:
        """Nothing gets across until `heal`; pings find that out if it lasts."""
        self.links.side = side

    # -- what the ends tell ------------------------------------------------------------------------------------------

    def end_opened(self, end: WireEnd) -> None:
        """Of two links between the same peers both sides keep that of the newer offer, as agent/net/network.py does."""
        self.handshakes += 1
        me = end.me
        me.opening.remove(end)
        older = me.ends.get(end.other)
        if older is not None and older.age > end.age:
            end.close("a newer connection to this peer exists")
            return
        if older is not None:
            older.close("replaced by a newer connection to this peer")
        me.ends[end.other] = end
        me.links[end.other] = self.now
        self._handle(me, events.PeerOpened(end.other))
        for watch in self.on_opened:
            watch(end)

    def end_closed(self, end: WireEnd, error: HiveError) -> None:
        me = end.me
        if end in me.opening:
            me.opening.remove(end)
            if me.alive:
                end.failed()
        self.buffered_most = max(self.buffered_most, end.out.buffered_most)
        if isinstance(error, ProtocolViolation):
            self.violations.append(f"{me.peer.short} closed its connection with {end.other.short}: {error}")
        if me.alive:
            reason = f"{type(error).__name__}: {error}"
            self.closed_for[reason] = self.closed_for.get(reason, 0) + 1
        if me.ends.get(end.other) is end:
            del me.ends[end.other]
            self._close_end(me, end.other)

    def end_should_know(self, end: WireEnd, notice_s: float) -> None:
        """By now its pings must have told an end that its other end is gone."""
        if end.me.busy_until > self.now - notice_s:  # it is slow, and has heard late what was said before
            self.at(end.me.busy_until + notice_s, self.end_should_know, end, notice_s)
        elif end.closed is None and end.me.alive and end.opened:
            self.violations.append(f"{end.me.peer.short} did not notice within {notice_s} s that {end.other.short} is gone")

    def end_told(self, end: WireEnd, happened: Sequence[Event]) -> None:
        for event in happened:
            if isinstance(event, Notified) and event.method == METHOD:
                if self.wired(end.me.peer).ends.get(end.other) is end:
                    self._take(end.me, end.other, event.header)
                continue
            for watch in self.on_events:
                watch(end, event)

    def frame_came(self, end: WireEnd, lane: Lane, data: bytes) -> None:
        self.frames[lane] += 1
        head = end.me.peer.raw[:8] + end.other.raw[:8] + bytes([lane]) + len(data).to_bytes(4, "big")
        self.trace.update(head + data[:HASHED_BYTES])

    def _send(self, source: SimPeer, target: PeerId, data: bytes) -> None:
        end = self.wired(source.peer).ends.get(target)
        if end is None or end.me is not source:
            return
        sent = end.notify(METHOD, data)
        for watch in self.on_sent:
            watch(source.peer, target, data, not sent)
        self.bytes += len(data)
