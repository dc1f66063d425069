"""Drives a LeaseKeeper over the overlay: reads leases, publishes them, and has the ExpertServer host and drop accordingly.

An expert whose lease lapsed, so that it had to be dropped though nobody else was seen to have it, is kept in memory: if this host
claims it again before anybody else did, nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import HiveError, LocalError, RecordError
from agent.experts import records
from agent.experts.directory import HINT_LEASES, Directory, seen_leases
from agent.experts.lease_events import Drop, Effect, Event, Host, Leave, Put, Reason, Scan, Scanned, SeenLease, Stored
from agent.experts.leases import LeaseConfig, LeaseKeeper
from agent.experts.records import HOSTS, HostRecord, Lease, PrefixHint, StoredRecord
from agent.experts.server import HostedInfo
from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.manifest import Manifest
from agent.net.overlay import Entry

log = logging.getLogger(__name__)

HOST_READ_S = 0.02
"""The host records of an overlay of so many hosts are read at intervals of this times their number, up to a renewal's."""


class RecordOverlay(Protocol):
    """The part of agent.net.overlay.Overlay that is needed here."""

    @property
    def peer_id(self) -> PeerId: ...
    async def get_many(self, names: Sequence[str], *, eager: bool = False) -> Mapping[str, Sequence[StoredRecord]]: ...
    async def put_many(self, entries: Sequence[Entry]) -> list[int]: ...


class Hosting(Protocol):
    """The part of ExpertServer that is needed here."""

    async def host(self, uid: ExpertId, state: ExpertState | None = None) -> None: ...
    async def drop(self, uid: ExpertId) -> ExpertState | None: ...
    def hosted(self) -> Mapping[ExpertId, HostedInfo]: ...


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """`monotonic` for everything here; `unix` for the expiry of records."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time


class Custodian:
    """`run` until this agent leaves, then `release`. Belongs to one event loop."""

    def __init__(
        self,
        overlay: RecordOverlay,
        server: Hosting,
        manifest: Manifest,
        *,
        capacity: int,
        directory: Directory | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        """`capacity`: experts that this machine can hold. `directory`, if given, is told what is read here."""
        self._overlay = overlay
        self._server = server
        self._directory = directory
        self._clocks = clocks or Clocks()
        self._config = LeaseConfig(lease_s=manifest.rules.lease_s)
        experts = [uid for grid in manifest.model.grids() for uid in grid]
        room = max(0, min(capacity, manifest.rules.experts_per_agent_max))
        self._keeper = LeaseKeeper(overlay.peer_id, experts, room, self._config)
        self._retained: dict[ExpertId, ExpertState] = {}
        self._hints: dict[ExpertId, float] = {}
        self._locks: dict[ExpertId, asyncio.Lock] = {}
        self._hosts_due = float("-inf")
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self.on_claimed: Callable[[ExpertId, int], None] = lambda uid, epoch: None
        """Called with expert and epoch when this host begins to hold it."""
        self.on_lost: Callable[[ExpertId, Reason], None] = lambda uid, reason: None
        """Called with expert and reason (`lost`, `lapsed`, `unstored`, `left`) when it no longer does."""

    def held(self) -> Mapping[ExpertId, int]:
        """Experts that this host holds a lease on, with its epoch."""
        return self._keeper.held()

    def vacant(self) -> int:
        """Experts that nobody hosts, as last read."""
        return self._keeper.vacant()

    async def run(self) -> None:
        """Claim, renew and settle, until cancelled. Returns at once if there is room for no expert."""
        if self._keeper.capacity == 0:
            return
        async with asyncio.TaskGroup() as self._group:
            self._perform(self._keeper.tick(self._clocks.monotonic()))
            while True:
                await self._wait()
                self._perform(self._keeper.tick(self._clocks.monotonic()))

    async def release(self) -> None:
        """Give up all leases, so that others can claim at once, and drop all experts. After `run` has ended."""
        async with asyncio.TaskGroup() as self._group:
            self._feed(Leave())
        self._retained.clear()

    async def _wait(self) -> None:
        """Until the keeper wants to be called, or has been fed."""
        self._changed.clear()
        due = self._keeper.next_deadline()
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - self._clocks.monotonic())):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _feed(self, event: Event) -> None:
        self._perform(self._keeper.handle(event, self._clocks.monotonic()))
        self._changed.set()

    def _perform(self, effects: Sequence[Effect]) -> None:
        hosting: list[asyncio.Task[ExpertId | None]] = []
        for effect in effects:
            match effect:
                case Host(uid, epoch):
                    hosting.append(self._start(self._host(uid, epoch)))
                case Drop(uid, reason):
                    self._start(self._drop(uid, reason))
                case Put():
                    self._start(self._put(effect, hosting))
                case Scan():
                    self._start(self._scan(effect))
        wanted = self._keeper.lapsed() | self._keeper.held().keys()
        self._retained = {uid: state for uid, state in self._retained.items() if uid in wanted}

    def _start(self, work: Coroutine[object, object, ExpertId | None]) -> asyncio.Task[ExpertId | None]:
        assert self._group is not None
        return self._group.create_task(work)

    async def _host(self, uid: ExpertId, epoch: int) -> ExpertId | None:
        """Have it served; None if this machine cannot, or need not any more."""
        async with self._locks.setdefault(uid, asyncio.Lock()):
            if self._keeper.held().get(uid) != epoch:
                return None
            try:
                await self._server.host(uid, self._retained.pop(uid, None))
            except (LocalError, MemoryError) as e:
                log.warning("cannot host %s: %s", uid, e)
                return None
        log.info("hosting %s, epoch %d", uid, epoch)
        self.on_claimed(uid, epoch)
        return uid

    async def _drop(self, uid: ExpertId, reason: Reason) -> None:
        async with self._locks.setdefault(uid, asyncio.Lock()):
            state = await self._server.drop(uid)
            if state is None:
                return
            if reason == "lapsed" and (uid in self._keeper.lapsed() or uid in self._keeper.held()):
                self._retained[uid] = state
        log.info("%s is dropped: %s", uid, reason)
        self.on_lost(uid, reason)

    async def _scan(self, scan: Scan) -> None:
        found = await self._read(scan.uids, with_hosts=self._clocks.monotonic() >= self._hosts_due)
        now, unix = self._clocks.monotonic(), self._clocks.unix()
        read = {uid: found[str(uid)] for uid in scan.uids if str(uid) in found}
        leases = {
            uid: [SeenLease(s.lease, s.expires) for s in seen_leases(uid, r, now=now, unix=unix, lease_s=self._config.lease_s)]
            for uid, r in read.items()
        }
        hosts = self._read_hosts(found[HOSTS], now, unix) if HOSTS in found else None
        if hosts is not None:
            self._hosts_due = now + min(self._config.renew_s, HOST_READ_S * len(hosts))
        if self._directory is not None and read:
            self._directory.absorb(read)
        self._feed(Scanned(scan.scan, leases, hosts, int(unix)))

    async def _read(self, uids: Sequence[ExpertId], *, with_hosts: bool) -> dict[str, Sequence[StoredRecord]]:
        """Read leases. What this host acts on is read carefully: leases that others may hold on its experts, and that there is
        none; of the other experts the first answer will do, which may be a lease's time old."""
        held = self._keeper.held()
        others = [str(uid) for uid in uids if uid not in held]
        found = await self._get([*others, HOSTS] if with_hosts else others, eager=True)
        doubtful = [str(uid) for uid in uids if not found.get(str(uid))]
        for name in doubtful:
            found.pop(name, None)
        return found | await self._get(doubtful, eager=False)

    async def _get(self, names: Sequence[str], *, eager: bool) -> dict[str, Sequence[StoredRecord]]:
        try:
            return dict(await self._overlay.get_many(names, eager=eager)) if names else {}
        except HiveError as e:
            log.info("leases could not be read: %s", e)
            return {}

    def _read_hosts(self, found: Sequence[StoredRecord], now: float, unix: float) -> dict[PeerId, tuple[HostRecord, float]]:
        hosts = {}
        for record in found:
            if record.subkey != str(record.owner):
                continue
            try:
                host = records.decode(record.value, HostRecord)
            except RecordError as e:
                log.info("ignored a record of %s under %s: %s", record.owner.short, HOSTS, e)
                continue
            hosts[record.owner] = host, now + min(record.expires_at - unix, self._config.lease_s)
        return hosts

    async def _put(self, put: Put, hosting: Sequence[asyncio.Task[ExpertId | None]]) -> None:
        """Publish. New experts are served before their leases can be read, so nobody calls in vain."""
        unable = set()
        if hosting:
            ready = set(await asyncio.gather(*hosting))
            unable = {uid for uid, epoch in put.leases if uid not in ready and uid not in self._server.hosted()}
        me = self._overlay.peer_id
        hosted = self._server.hosted()
        leases = [(uid, epoch) for uid, epoch in put.leases if uid not in unable]
        values = {
            uid: records.encode(Lease(str(uid), me.raw, epoch, hosted[uid].version if uid in hosted else 0))
            for uid, epoch in leases
        }
        entries = [Entry(name=str(uid), value=value, ttl_s=put.ttl_s) for uid, value in values.items()]
        host = HostRecord(self._keeper.capacity, put.settled)
        entries.append(Entry(name=HOSTS, subkey=str(me), value=records.encode(host), ttl_s=put.ttl_s))
        for uid, value in values.items():  # after the leases proper, by which it is judged what was stored
            name, coordinate = uid.prefixes[-1]
            entries.append(Entry(name=name, subkey=str(coordinate), value=value, ttl_s=put.ttl_s))
        entries += self._due_hints([uid for uid, _ in leases])
        try:
            counts = await self._overlay.put_many(entries)
        except HiveError as e:
            log.info("leases could not be published: %s", e)
            counts = [0] * len(entries)
        stored = frozenset(uid for (uid, _), count in zip(leases, counts, strict=False) if count > 0)
        self._feed(Stored(put.put, stored))

    def _due_hints(self, uids: Sequence[ExpertId]) -> list[Entry]:
        """Prefix hints for experts that had none for a lease's time."""
        now, lease_s = self._clocks.monotonic(), self._config.lease_s
        held = self._keeper.held()
        self._hints = {uid: at for uid, at in self._hints.items() if uid in held}
        due = [uid for uid in uids if uid in held and now - self._hints.get(uid, float("-inf")) >= lease_s]
        self._hints.update(dict.fromkeys(due, now))
        hints = {place: uid for uid in due for place in uid.prefixes[:-1]}
        return [
            Entry(name=name, subkey=str(coordinate), value=records.encode(PrefixHint(str(uid))), ttl_s=HINT_LEASES * lease_s)
            for (name, coordinate), uid in hints.items()
        ]
