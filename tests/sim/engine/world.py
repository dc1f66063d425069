"""Many real DHT nodes in one process: their links, their lives, and the effects of their machines.

A Connect effect is performed as the overlay does it: an offer is routed through the overlay to the peer, and the link opens some
round trips after the answer. First contact comes from outside: a bootstrap peer's own address.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.keys import KeySpace
from agent.dht.messages import Message, encode
from agent.dht.node import DhtNode
from agent.dht.records import Record
from agent.identity import PeerId
from tests.sim.engine.chance import fork
from tests.sim.engine.lies import Liar
from tests.sim.engine.links import Links
from tests.sim.engine.records import CheapSeal, cheap_verify, make_record
from tests.sim.engine.schedule import Schedule

EXPERIMENT = "sim"
DIAL = "dial"  # the kind of a routed offer
ENTRANCES_KNOWN = 8  # bootstrap addresses that a peer has cached
LINK_GAP_S = 1e-6  # between two messages on a link: 1e-9 would vanish beside a Unix time, and with it their order
REJOIN_S = (1.0, 8.0)  # after how long a peer without any link goes to a bootstrap peer again
KINDS = tuple("- Request Ack Answer Store Stored Offer Want Ping Pong Near NearPeers Bridge Seek Attest Attested".split())


class SimPeer:
    """One peer. `slow_s` is how long it works on each message that it gets."""

    __slots__ = ("alive", "born_at", "busy_until", "liar", "links", "node", "peer", "settled_at", "slow_s", "wakes_at")

    def __init__(self, peer: PeerId, node: DhtNode, born_at: float) -> None:
        self.peer = peer
        self.node = node
        self.alive = True
        self.links: dict[PeerId, float] = {}  # -> when the last message sent on it arrives
        self.born_at = born_at
        self.settled_at: float | None = None
        self.wakes_at = float("inf")
        self.slow_s = 0.0
        self.liar: Liar | None = None
        self.busy_until = 0.0


class World(Schedule):
    """The world. `links` is the weather; `on_sent` and its like see everything, for measurements."""

    def __init__(self, seed: int = 0, *, config: DhtConfig | None = None, space: KeySpace | None = None) -> None:
        super().__init__(seed)
        self.seed = seed
        self.rng = fork(seed, "scenario")
        self.links = Links(fork(seed, "links"))
        self.config = config or DhtConfig()
        self.space = space or KeySpace()
        self.peers: dict[PeerId, SimPeer] = {}
        self.entrances: list[PeerId] = []  # peers with a bootstrap address; empty: every peer
        self.handler: Callable[[PeerId, PeerId, str, bytes], tuple[bool, bytes]] = lambda me, origin, kind, body: (True, body)
        # Whoever measures appends to these. Sent: the last argument says that it is lost. Start: with an operation's effects.
        self.on_sent: list[Callable[[PeerId, PeerId, bytes, bool], None]] = []
        self.on_delivered: list[Callable[[PeerId, PeerId, bytes], None]] = []
        self.on_start: list[Callable[[SimPeer, int, events.Event, Sequence[events.Effect]], None]] = []
        self.on_end: list[Callable[[int, Any], None]] = []
        self.delivered = 0
        self.kinds = [0] * len(KINDS)  # delivered, by the messages' tags
        self.bytes = 0
        self.dials = 0
        self.trace = hashlib.blake2b(digest_size=16)
        self._births = fork(seed, "peers")
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._ops = 0

    # -- lives -------------------------------------------------------------------------------------------------------

    def add(self, peer: PeerId | None = None, *, via: PeerId | None = None) -> PeerId:
        """A new peer; with `via` it has one connection, to that peer."""
        peer = peer or self._new_id(self._births)
        rng = random.Random(self._births.getrandbits(64))
        node = DhtNode(peer, self.config, verify=cheap_verify, seal=CheapSeal(peer), rng=rng, space=self.space)
        node.begin(self.now)
        self.peers[peer] = self._new_peer(peer, node)
        self._plan_wake(self.peers[peer])
        if self.entrances:
            known = self.rng.sample(self.entrances, min(ENTRANCES_KNOWN, len(self.entrances)))
            self._handle(self.peers[peer], events.Entrances(known))
        if via is not None:
            self.link(peer, via)
        return peer

    def _new_id(self, rng: random.Random) -> PeerId:
        return PeerId(rng.randbytes(32))

    def _new_peer(self, peer: PeerId, node: DhtNode) -> SimPeer:
        return SimPeer(peer, node, self.now)

    def grow(self, n: int, *, gap_s: float = 0.5) -> list[PeerId]:
        """`n` peers, each joining through a random earlier one."""
        found = list(self.peers)
        for _ in range(n):
            found.append(self.add(via=self.rng.choice(found) if found else None))
            self.run(gap_s)
        return found

    def kill(self, peer: PeerId, *, noticed_after_s: float | None = 0.0) -> None:
        """The peer stops at once; its links close at the other ends when they notice (None: as `links` says)."""
        dead = self.peers[peer]
        dead.alive = False
        for other in list(dead.links):
            delay_s = self.links.notice() if noticed_after_s is None else noticed_after_s
            self.at(self.now + delay_s, self._cut_dead, other, peer, dead)

    def restart(self, peer: PeerId, *, disk: bool) -> PeerId:
        """Start a killed peer again through a bootstrap peer: with its disk as itself, without it as somebody new."""
        return self.join(peer if disk else None)

    def join(self, peer: PeerId | None = None) -> PeerId:
        """A peer comes through a bootstrap peer's address, and tries another one if that fails."""
        peer = self.add(peer)
        self._rejoin(self.peers[peer])
        return peer

    def _rejoin(self, peer: SimPeer) -> None:
        """What the agent does while it has no connection at all (net/membership.py)."""
        if not peer.alive or peer.links:
            return
        entrance = self._entrance(peer.peer)
        if entrance is not None:
            self.contact(peer.peer, entrance)
            low, high = REJOIN_S
            self.at(self.now + low + (high - low) * self.rng.random(), self._rejoin, peer)

    def _entrance(self, peer: PeerId) -> PeerId | None:
        among = self.entrances or list(self.peers)
        for _ in range(8):
            found = self.rng.choice(among)
            if found != peer:
                return found
        return None

    # -- links -------------------------------------------------------------------------------------------------------

    def contact(self, peer: PeerId, entrance: PeerId) -> None:
        """Connect to a bootstrap peer by its own address, with no overlay in between."""
        delay_s = 2 * self.links.latency() + self.links.setup()
        self.at(self.now + delay_s, self._opened, self.peers[peer], entrance, self._fails(self.peers[peer], entrance))

    def link(self, a: PeerId, b: PeerId) -> None:
        first, second = self.peers[a], self.peers[b]
        if not (first.alive and second.alive):
            return
        if (b in first.links) != (a in second.links):
            self.cut(a, b)  # what one end still takes for open
        if b not in first.links:
            first.links[b] = second.links[a] = self.now
            self._handle(first, events.PeerOpened(b))
            self._handle(second, events.PeerOpened(a))

    def cut(self, a: PeerId, b: PeerId) -> None:
        """Close a link; both sides hear of it."""
        for x, y in ((a, b), (b, a)):
            self._close_end(self.peers[x], y)

    def half_open(self, a: PeerId, b: PeerId) -> None:
        """`b` closes the link, and `a` does not hear of it until it notices."""
        self._close_end(self.peers[b], a)
        self.at(self.now + self.links.notice(), self._close_alone, self.peers[a], b)

    def stall(self, a: PeerId, b: PeerId, seconds: float) -> None:
        """Nothing arrives on the link for a while; then everything does."""
        for x, y in ((a, b), (b, a)):
            if y in self.peers[x].links:
                self.peers[x].links[y] = max(self.peers[x].links[y], self.now + seconds)

    def partition(self, side: Callable[[PeerId], int]) -> None:
        """Peers of different sides do not reach each other, until `heal`. Links between them close when that is noticed."""
        self.links.side = side
        for peer in self.peers.values():
            for other in peer.links:
                if peer.peer < other and side(peer.peer) != side(other):
                    self.at(self.now + self.links.notice(), self._lapse, peer.peer, other)

    def heal(self) -> None:
        """End the partition."""
        self.links.side = None

    def _lapse(self, a: PeerId, b: PeerId) -> None:
        if self.links.side is not None and self.links.side(a) != self.links.side(b):
            self.cut(a, b)

    def _cut_dead(self, a: PeerId, b: PeerId, dead: SimPeer) -> None:
        if self.peers[b] is dead:
            self.cut(a, b)
        else:  # it has been started again, and may have connected anew
            self._close_alone(self.peers[a], b)

    def _close_alone(self, peer: SimPeer, other: PeerId) -> None:
        """An end whose other end is gone has noticed."""
        if peer.peer not in self.peers[other].links:
            self._close_end(peer, other)

    def _close_end(self, peer: SimPeer, other: PeerId) -> None:
        if peer.links.pop(other, None) is not None and peer.alive:
            self._handle(peer, events.PeerClosed(other))
            if not peer.links:
                low, high = REJOIN_S
                self.at(self.now + low + (high - low) * self.rng.random(), self._rejoin, peer)

    # -- operations --------------------------------------------------------------------------------------------------

    def start(self, peer: PeerId, make: Callable[[int], events.Event], on_done: Callable[[Any], None]) -> int:
        """Start an operation; its number, by which `--story` finds it. `on_done` gets what the Done effect carries."""
        self._ops += 1
        op = self._ops
        self._waiting[op] = on_done
        event = make(op)
        effects = self.peers[peer].node.handle(event, self.now)
        for watch in self.on_start:
            watch(self.peers[peer], op, event, effects)
        self._perform(self.peers[peer], effects)
        return op

    def ask(self, peer: PeerId, make: Callable[[int], events.Event], *, within_s: float = 60.0) -> Any:
        """Run one operation to its end."""
        results: list[Any] = []
        self.start(peer, make, results.append)
        self.run_until(lambda: bool(results), within_s=within_s)
        return results[0]

    def key(self, name: str) -> bytes:
        return self.space.named(EXPERIMENT, name)

    def put(
        self, peer: PeerId, name: str, value: bytes = b"v", *, ttl_s: float = 600.0, sequence: int = 1, subkey: str = ""
    ) -> int:
        record = make_record(self.key(name), peer, value, subkey=subkey, sequence=sequence, expires_at=self.now + ttl_s)
        return self.ask(peer, lambda op: events.Put(op, [record]))[0]

    def get(self, peer: PeerId, name: str) -> list[Record] | None:
        """None if nobody answered."""
        key = self.key(name)
        return self.ask(peer, lambda op: events.Get(op, [key])).get(key)

    def route(self, peer: PeerId, target: PeerId, body: bytes = b"", *, timeout_s: float = 10.0) -> Any:
        return self.ask(peer, lambda op: events.Route(op, target, "test", body, timeout_s))

    # -- facts -------------------------------------------------------------------------------------------------------

    def alive(self) -> list[PeerId]:
        return [p for p, sim_peer in self.peers.items() if sim_peer.alive]

    def closest(self, key: int, n: int) -> list[PeerId]:
        """The truth: the live peers closest to a key. Looks at all; survey.Ring answers many such questions faster."""
        return sorted(self.alive(), key=lambda p: self.space.contact(p).key ^ key)[:n]

    def siblings_complete(self, n: int) -> bool:
        """True if every live peer is connected to the `n` live peers closest to it."""
        for peer in self.alive():
            nearest = [p for p in self.closest(self.space.contact(peer).key, n + 1) if p != peer]
            if any(p not in self.peers[peer].links for p in nearest[:n]):
                return False
        return True

    # -- performing --------------------------------------------------------------------------------------------------

    def _handle(self, peer: SimPeer, event: events.Event) -> None:
        self._perform(peer, peer.node.handle(event, self.now))

    def _wake(self, peer: SimPeer, when: float) -> None:
        if peer.alive and peer.wakes_at == when:
            peer.wakes_at = float("inf")
            deadline = peer.node.next_deadline()
            if deadline is not None and deadline > self.now:  # cancelled since
                self._plan_wake(peer)
            else:
                self._perform(peer, peer.node.tick(self.now))

    def _plan_wake(self, peer: SimPeer) -> None:
        deadline = peer.node.next_deadline()
        if deadline is not None and deadline < peer.wakes_at:
            peer.wakes_at = deadline
            self.at(deadline, self._wake, peer, deadline)

    def _perform(self, peer: SimPeer, effects: list[events.Effect]) -> None:
        for effect in effects:
            match effect:
                case events.Send(target, data):
                    self._send(peer, target, data)
                case events.Connect(target):
                    self.reach(peer, target, self._fails(peer, target))
                case events.Contact(target):
                    self.contact(peer.peer, target)
                case events.Disconnect(target):
                    self.at(self.now, self.cut, peer.peer, target)
                case events.Deliver(delivery, origin, kind, body):
                    ok, answer = (True, b"answer") if kind == DIAL else self.handler(peer.peer, origin, kind, body)
                    self.at(self.now, self._later, peer, events.Reply(delivery, ok, answer))
                case events.Done(op, result):
                    for watch in self.on_end:
                        watch(op, result)
                    self._waiting.pop(op)(result)
                case events.Settled():
                    peer.settled_at = self.now
        self._plan_wake(peer)

    def _later(self, peer: SimPeer, event: events.Event) -> None:
        if peer.alive:
            self._handle(peer, event)

    def _send(self, source: SimPeer, target: PeerId, data: bytes) -> None:
        links = self.links
        if target not in source.links:
            return
        lost = links.loses(source.peer, target, data)
        for watch in self.on_sent:
            watch(source.peer, target, data, lost)
        if lost:
            return
        self.bytes += len(data)
        gap_s = len(data) / links.bytes_per_s if links.bytes_per_s else LINK_GAP_S
        arrives = max(self.now + links.latency(), source.links[target] + gap_s)
        source.links[target] = arrives
        self.at(arrives, self._arrive, source.peer, target, data)

    def utter(self, source: SimPeer, target: PeerId, message: Message) -> None:
        """A liar says something that its node would not."""
        self._send(source, target, encode(message))

    def _arrive(self, source: PeerId, target: PeerId, data: bytes) -> None:
        receiver = self.peers[target]
        if not receiver.alive or source not in receiver.links:
            return
        if receiver.slow_s:
            receiver.busy_until = max(self.now, receiver.busy_until) + receiver.slow_s
            self.at(receiver.busy_until, self._take, receiver, source, data)
        else:
            self._take(receiver, source, data)

    def _take(self, receiver: SimPeer, source: PeerId, data: bytes) -> None:
        if not receiver.alive or source not in receiver.links:
            return
        self.delivered += 1
        self.kinds[data[1]] += 1
        if receiver.liar is not None and receiver.liar.takes(self, receiver, source, data):
            return
        self.trace.update(receiver.peer.raw[:8] + source.raw[:8] + data)
        for watch in self.on_delivered:
            watch(source, receiver.peer, data)
        self._perform(receiver, receiver.node.handle(events.Received(source, data), self.now))

    def reach(self, peer: SimPeer, target: PeerId, failed: Callable[[], None]) -> None:
        """Try to connect as the overlay does: an offer is routed to the target. `failed` is called unless a link opens."""
        self.dials += 1

        def answered(result: Any) -> None:
            if not peer.alive:
                return
            if not isinstance(result, bytes):
                self.at(self.now, failed)
            elif self.links.connects(peer.peer, target):
                self.at(self.now + self.links.setup(), self._opened, peer, target, failed)
            else:
                self.at(self.now + self.links.setup_timeout_s, failed)

        self.start(peer.peer, lambda op: events.Route(op, target, DIAL, b"offer", 10.0), answered)

    def _fails(self, peer: SimPeer, target: PeerId) -> Callable[[], None]:
        return lambda: self._later(peer, events.ConnectFailed(target))

    def _opened(self, peer: SimPeer, target: PeerId, failed: Callable[[], None]) -> None:
        other = self.peers.get(target)
        if not peer.alive or self.peers[peer.peer] is not peer:
            return
        if other is None or not other.alive or not self.links.connects(peer.peer, target):
            failed()
        else:
            self._link(peer.peer, target, failed)

    def _link(self, a: PeerId, b: PeerId, failed: Callable[[], None]) -> None:
        """The path between two peers is open; where links have a handshake, it may yet fail."""
        self.link(a, b)

    def tell_entrances(self, count: int) -> None:
        """From now on `count` random peers have an address of their own, and every peer knows some of these."""
        self.entrances = self.rng.sample(self.alive(), count)
        for peer in self.alive():
            known = self.rng.sample(self.entrances, min(ENTRANCES_KNOWN, count))
            self._handle(self.peers[peer], events.Entrances(known))
