"""Many real DHT nodes in one process: one heap of events, a virtual clock, randomness from one seed.

Links are reliable and ordered with a latency of their own, as data channels are, unless a test says otherwise (`drop`). A
Connect effect is performed as the overlay does it: an offer is routed through the overlay to the peer, and the link opens two
round trips after the answer.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from typing import Any

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.keys import KeySpace
from agent.dht.node import DhtNode
from agent.dht.records import Record
from agent.identity import PeerId

START = 1_800_000_000.0
EXPERIMENT = "sim"


def cheap_signature(record: Record) -> bytes:
    return hashlib.blake2b(record.signed_bytes(), key=record.owner.raw, digest_size=8).digest()


def cheap_verify(record: Record) -> bool:
    return record.signature == cheap_signature(record)


def make_record(
    key: bytes, owner: PeerId, value: bytes = b"v", *, subkey: str = "", sequence: int = 1, expires_at: float
) -> Record:
    record = Record(key, subkey, owner, sequence, expires_at, value)
    return Record(key, subkey, owner, sequence, expires_at, value, cheap_signature(record))


class SimPeer:
    __slots__ = ("alive", "links", "node", "peer", "settled_at", "wakes_at")

    def __init__(self, peer: PeerId, node: DhtNode) -> None:
        self.peer = peer
        self.node = node
        self.alive = True
        self.links: dict[PeerId, float] = {}  # -> when the last message sent on it arrives
        self.settled_at: float | None = None
        self.wakes_at = float("inf")


class Sim:
    """The world. `drop(source, target, message bytes)` True loses that message."""

    def __init__(self, seed: int = 0, *, config: DhtConfig | None = None, space: KeySpace | None = None) -> None:
        self.rng = random.Random(seed)
        self.config = config or DhtConfig()
        self.space = space or KeySpace()
        self.now = START
        self.peers: dict[PeerId, SimPeer] = {}
        self.drop: Callable[[PeerId, PeerId, bytes], bool] = lambda source, target, data: False
        self.latency: Callable[[], float] = lambda: 0.02 + 0.03 * self.rng.random()
        self.handler: Callable[[PeerId, PeerId, str, bytes], tuple[bool, bytes]] = lambda me, origin, kind, body: (True, body)
        self.delivered = 0
        self.bytes = 0
        self.dials = 0
        self.trace = hashlib.sha256()
        self._heap: list[tuple[float, float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}

    # -- building ----------------------------------------------------------------------------------------------------

    def add(self, peer: PeerId | None = None, *, via: PeerId | None = None) -> PeerId:
        """A new peer; with `via` it has one connection, to that peer."""
        peer = peer or PeerId(self.rng.randbytes(32))
        node = DhtNode(peer, self.config, verify=cheap_verify, rng=random.Random(self.rng.getrandbits(64)), space=self.space)
        node.begin(self.now)
        self.peers[peer] = SimPeer(peer, node)
        self._plan_wake(self.peers[peer])
        if via is not None:
            self.link(peer, via)
        return peer

    def grow(self, n: int, *, gap_s: float = 0.5) -> list[PeerId]:
        """`n` peers, each joining through a random earlier one."""
        found = list(self.peers)
        for _ in range(n):
            found.append(self.add(via=self.rng.choice(found) if found else None))
            self.run(gap_s)
        return found

    def link(self, a: PeerId, b: PeerId) -> None:
        first, second = self.peers[a], self.peers[b]
        if first.alive and second.alive and b not in first.links:
            first.links[b] = second.links[a] = self.now
            self._handle(first, events.PeerOpened(b))
            self._handle(second, events.PeerOpened(a))

    def cut(self, a: PeerId, b: PeerId) -> None:
        """Close a link; both sides hear of it."""
        for x, y in ((a, b), (b, a)):
            if self.peers[x].links.pop(y, None) is not None and self.peers[x].alive:
                self._handle(self.peers[x], events.PeerClosed(y))

    def kill(self, peer: PeerId, *, noticed_after_s: float = 0.0) -> None:
        """The peer stops at once; its links close at the other ends when they notice."""
        dead = self.peers[peer]
        dead.alive = False
        for other in list(dead.links):
            self.at(self.now + noticed_after_s, self.cut, other, peer)

    # -- time --------------------------------------------------------------------------------------------------------

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        self._numbers += 1
        heapq.heappush(self._heap, (when, self.rng.random(), self._numbers, act, arguments))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self._step()
        self.now = end

    def run_until(self, met: Callable[[], bool], *, within_s: float) -> float:
        """Run until `met()`; how long it took. AssertionError if it takes longer."""
        start = self.now
        while not met():
            assert self._heap and self._heap[0][0] <= start + within_s, f"not met within {within_s} s"
            self._step()
        return self.now - start

    def _step(self) -> None:
        self.now, _, _, act, arguments = heapq.heappop(self._heap)
        act(*arguments)

    # -- operations --------------------------------------------------------------------------------------------------

    def start(self, peer: PeerId, make: Callable[[int], events.Event], on_done: Callable[[Any], None]) -> None:
        self._numbers += 1
        op = self._numbers
        self._waiting[op] = on_done
        self._handle(self.peers[peer], make(op))

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
        """The truth: the live peers closest to a key."""
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
                    self._dial(peer, target)
                case events.Disconnect(target):
                    self.at(self.now, self.cut, peer.peer, target)
                case events.Deliver(delivery, origin, kind, body):
                    ok, answer = (True, b"answer") if kind == "dial" else self.handler(peer.peer, origin, kind, body)
                    self.at(self.now, self._later, peer, events.Reply(delivery, ok, answer))
                case events.Done(op, result):
                    self._waiting.pop(op)(result)
                case events.Settled():
                    peer.settled_at = self.now
        self._plan_wake(peer)

    def _later(self, peer: SimPeer, event: events.Event) -> None:
        if peer.alive:
            self._handle(peer, event)

    def _send(self, source: SimPeer, target: PeerId, data: bytes) -> None:
        if target not in source.links or self.drop(source.peer, target, data):
            return
        self.bytes += len(data)
        arrives = max(
            self.now + self.latency(), source.links[target] + 1e-6
        )  # 1e-9 would vanish beside a Unix time, and with it the order
        source.links[target] = arrives
        self.at(arrives, self._arrive, source.peer, target, data)

    def _arrive(self, source: PeerId, target: PeerId, data: bytes) -> None:
        receiver = self.peers[target]
        if receiver.alive and source in receiver.links:
            self.delivered += 1
            self.trace.update(data)
            self._handle(receiver, events.Received(source, data))

    def _dial(self, peer: SimPeer, target: PeerId) -> None:
        self.dials += 1

        def answered(result: Any) -> None:
            if isinstance(result, bytes) and peer.alive:
                self.at(self.now + 4 * self.latency(), self._opened, peer, target)
            elif peer.alive:
                self.at(self.now, self._later, peer, events.ConnectFailed(target))

        self.start(peer.peer, lambda op: events.Route(op, target, "dial", b"offer", 10.0), answered)

    def _opened(self, peer: SimPeer, target: PeerId) -> None:
        if not self.peers[target].alive:
            self._later(peer, events.ConnectFailed(target))
        elif peer.alive:
            self.link(peer.peer, target)
