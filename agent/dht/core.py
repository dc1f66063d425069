"""What the parts of one node share: its place, its table, its timers and the effects of the event at hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

from agent.dht.config import DhtConfig
from agent.dht.events import Effect, Send
from agent.dht.keys import Contact, KeySpace, bucket_of
from agent.dht.messages import Message, encode
from agent.dht.nothing import Nothing
from agent.dht.records import RecordStore
from agent.dht.routing_table import RoutingTable
from agent.dht.statements import Seal
from agent.identity import PeerId

Timer = list[Any]  # when, number, callback or None once it is over, argument: a list, because heaps compare lists fast


class Core:
    """Shared state. `now` is set by DhtNode whenever it is entered."""

    __slots__ = (
        "_cancelled",
        "_numbers",
        "_timers",
        "config",
        "effects",
        "me",
        "nothing",
        "now",
        "on_miss",
        "rng",
        "seal",
        "space",
        "store",
        "suspects",
        "table",
    )

    def __init__(self, me: Contact, space: KeySpace, store: RecordStore, config: DhtConfig, rng: Random, seal: Seal) -> None:
        self.me = me
        self.space = space
        self.store = store
        self.config = config
        self.rng = rng
        self.seal = seal
        self.table = RoutingTable(me, config)
        self.nothing = Nothing(config)
        store.on_kept = self.nothing.forget
        self.now = 0.0
        self.effects: list[Effect] = []
        self.suspects: dict[PeerId, float] = {}  # connected peers that are passed over -> until when; few
        self.on_miss: Callable[[PeerId], None] = lambda peer: None
        self._timers: list[Timer] = []
        self._cancelled = 0
        self._numbers = 0

    def number(self) -> int:
        """A number that this node has not used lately."""
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        return self._numbers

    def send(self, peer: PeerId, message: Message) -> None:
        self.effects.append(Send(peer, encode(message)))

    def at(self, when: float, callback: Callable[[Any], None], argument: Any = None) -> Timer:
        """Call back at `when`, unless cancelled before."""
        self._numbers = (self._numbers + 1) & 0xFFFFFFFF
        timer: Timer = [when, self._numbers, callback, argument]
        heapq.heappush(self._timers, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Never call back. Harmless for one that has called already."""
        if timer[2] is None:
            return
        timer[2] = timer[3] = None
        self._cancelled += 1
        if self._cancelled > 32 and 2 * self._cancelled > len(self._timers):
            self._timers = [t for t in self._timers if t[2] is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def run_due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            timer = heapq.heappop(self._timers)
            callback, argument = timer[2], timer[3]
            if callback is None:
                self._cancelled -= 1
                continue
            timer[2] = timer[3] = None
            callback(argument)

    def next_timer(self) -> float | None:
        timers = self._timers
        while timers and timers[0][2] is None:
            heapq.heappop(timers)
            self._cancelled -= 1
        return timers[0][0] if timers else None

    def is_suspect(self, peer: PeerId) -> bool:
        return bool(self.suspects) and self.suspects.get(peer, 0.0) > self.now

    def replica_count(self) -> int:
        """How many peers keep a record; fewer while the overlay is small."""
        small = len(self.table.connected) + 1 <= self.config.small_overlay
        return self.config.replicas_small if small else self.config.replicas

    def replica_set(self, key: int, further: int = 0) -> list[Contact]:
        """The peers closest to `key` as this node sees it, closest first, itself included, suspects left out; as many as keep a
        record, and so many `further`."""
        n = self.replica_count() + further
        # Suspects are few, so a few more than n are enough.
        found = [c for c in self.table.closest(key, n + 4) if not self.is_suspect(c.peer)][:n]
        found.append(self.me)
        found.sort(key=lambda c: c.key ^ key)
        return found[:n]

    def is_near(self, key: int) -> bool:
        """True if this node can speak for the surroundings of `key`: its siblings reach there, or so near that having no
        connection there means that nobody is (the next larger bucket would hold a dozen peers)."""
        return bucket_of(key, self.me.key) <= self.table.sibling_bucket() + 1

    def is_replica(self, key: int) -> bool:
        """True if this node is one of the peers closest to `key`, and near enough to know: a node further off may know only
        a few closer peers, and take itself for one of the closest."""
        return key ^ self.me.key <= self.table.reach() and self.me in self.replica_set(key)
