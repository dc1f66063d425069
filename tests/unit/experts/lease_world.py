"""Several lease keepers on one simulated record store with delays, losses, freezes and crashes, on a virtual clock."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.experts.lease_events import Drop, Effect, Event, Host, Leave, Put, Scan, Scanned, SeenLease, Stored
from agent.experts.leases import LeaseConfig, LeaseKeeper
from agent.experts.records import HostRecord, Lease
from agent.grid import ExpertId, Grid
from agent.identity import PeerId

UNIX = 1_800_000_000


@dataclass
class Faults:
    """Seconds, and probabilities per message or per expert read."""

    delay_max: float = 0.1
    lost: float = 0.0
    unread: float = 0.0
    empty: float = 0.0
    """An expert's leases are there, and the read finds none."""


@dataclass
class Site:
    """One host. `serving`: expert → epoch, as its effects say."""

    peer: PeerId
    keeper: LeaseKeeper
    serving: dict[ExpertId, int] = field(default_factory=dict)
    frozen_until: float = 0.0
    timer: float | None = None
    drops: list[tuple[float, Drop]] = field(default_factory=list)
    alive: bool = True


class World:
    def __init__(self, grid: Grid, *, seed: int = 0, config: LeaseConfig | None = None) -> None:
        self.grid = grid
        self.config = config or LeaseConfig()
        self.faults = Faults()
        self.now = 0.0
        self.sites: list[Site] = []
        self.leases: dict[ExpertId, dict[PeerId, SeenLease]] = {}
        self.hosts: dict[PeerId, tuple[HostRecord, float]] = {}
        self.overlaps: dict[tuple[ExpertId, PeerId, PeerId], float] = {}
        self.longest_overlap = 0.0
        self._random = random.Random(seed)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    # What a test does

    def start(self, capacity: int = 100, *, peer: PeerId | None = None) -> Site:
        peer = peer or PeerId(self._random.randbytes(32))
        site = Site(peer, LeaseKeeper(peer, list(self.grid), capacity, self.config))
        self.sites.append(site)
        self._perform(site, site.keeper.tick(self.now))
        return site

    def crash(self, site: Site) -> None:
        site.alive = False
        site.serving.clear()

    def leave(self, site: Site) -> None:
        self._feed(site, Leave())

    def freeze(self, site: Site, seconds: float) -> None:
        """It computes nothing for a while, like a process that is stopped; what arrives meanwhile is handled afterwards."""
        site.frozen_until = max(site.frozen_until, self.now + seconds)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self._heap)
            action()
            self._watch()
        self.now = end
        self._watch()

    def holders(self, uid: ExpertId) -> list[Site]:
        return [s for s in self.sites if s.alive and uid in s.serving]

    def loads(self) -> list[int]:
        return [len(s.serving) for s in self.sites]

    def hosted(self) -> int:
        return sum(1 for uid in self.grid if self.holders(uid))

    def is_settled(self) -> bool:
        """Every expert has one holder, which has its lease confirmed in the store."""
        return all(len(self.holders(uid)) == 1 for uid in self.grid) and all(
            s.keeper.held() == s.serving for s in self.sites if s.alive
        )

    # What the effects do

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def _delay(self) -> float:
        return self._random.uniform(0.001, self.faults.delay_max)

    def _is_lost(self) -> bool:
        return self._random.random() < self.faults.lost

    def _feed(self, site: Site, event: Event) -> None:
        if not site.alive:
            return
        if site.frozen_until > self.now:
            self._at(site.frozen_until, lambda: self._feed(site, event))
        else:
            self._perform(site, site.keeper.handle(event, self.now))

    def _perform(self, site: Site, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Host(uid, epoch):
                    assert uid not in site.serving
                    site.serving[uid] = epoch
                case Drop(uid, _):
                    del site.serving[uid]
                    site.drops.append((self.now, effect))
                case Put():
                    self._put(site, effect)
                case Scan(scan, uids):
                    self._scan(site, scan, uids)
        assert site.keeper.held() == site.serving
        self._set_timer(site)

    def _put(self, site: Site, put: Put) -> None:
        def arrive() -> None:
            for uid, epoch in put.leases:
                shelf = self.leases.setdefault(uid, {})
                if site.peer not in shelf or shelf[site.peer].lease.epoch <= epoch:
                    shelf[site.peer] = SeenLease(Lease(str(uid), site.peer.raw, epoch, 0), self.now + put.ttl_s)
            self.hosts[site.peer] = HostRecord(site.keeper.capacity, put.settled), self.now + put.ttl_s

        there = self.now + self._delay()
        if self._is_lost():
            self._at(there + 1.0, lambda: self._feed(site, Stored(put.put, frozenset())))
            return
        self._at(there, arrive)
        stored = frozenset() if self._is_lost() else frozenset(uid for uid, _ in put.leases)
        self._at(there + self._delay(), lambda: self._feed(site, Stored(put.put, stored)))

    def _scan(self, site: Site, scan: int, uids: tuple[ExpertId, ...]) -> None:
        def read() -> None:
            live: Mapping[ExpertId, list[SeenLease]] = {
                uid: self._live(uid) for uid in uids if self._random.random() >= self.faults.unread
            }
            hosts = {peer: seen for peer, seen in self.hosts.items() if seen[1] > self.now}
            event = Scanned(scan, live, hosts, int(UNIX + self.now))
            self._at(self.now + self._delay(), lambda: self._feed(site, event))

        if self._is_lost():
            nothing = Scanned(scan, {}, None, int(UNIX + self.now))
            self._at(self.now + 1.0, lambda: self._feed(site, nothing))
        else:
            self._at(self.now + self._delay(), read)

    def _live(self, uid: ExpertId) -> list[SeenLease]:
        if self._random.random() < self.faults.empty:
            return []
        return [s for s in self.leases.get(uid, {}).values() if s.expires > self.now]

    def _set_timer(self, site: Site) -> None:
        due = site.keeper.next_deadline()
        if due is None or (site.timer is not None and site.timer <= due and site.timer > self.now):
            return
        when = site.timer = max(due, self.now)

        def ring() -> None:
            if site.timer != when or not site.alive:
                return
            if site.frozen_until > self.now:
                site.timer = site.frozen_until
                self._at(site.frozen_until, lambda: self._ring(site))
            else:
                self._ring(site)

        self._at(when, ring)

    def _ring(self, site: Site) -> None:
        if not site.alive:
            return
        if site.frozen_until > self.now:
            self._at(site.frozen_until, lambda: self._ring(site))
            return
        site.timer = None
        self._perform(site, site.keeper.tick(self.now))

    def _watch(self) -> None:
        """How long have two that are awake served one expert under one epoch?"""
        awake = [s for s in self.sites if s.alive and s.frozen_until <= self.now]
        seen = set()
        for a, b in itertools.combinations(awake, 2):
            for uid in a.serving.keys() & b.serving.keys():
                if a.serving[uid] == b.serving[uid]:
                    key = uid, a.peer, b.peer
                    seen.add(key)
                    started = self.overlaps.setdefault(key, self.now)
                    self.longest_overlap = max(self.longest_overlap, self.now - started)
        for key in self.overlaps.keys() - seen:
            del self.overlaps[key]
