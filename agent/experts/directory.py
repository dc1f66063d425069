"""Which experts are alive, and where: a cached view of the leases in the DHT.

Refreshed in bulk on the event loop, read by trainer threads. A view is immutable and replaced whole, so reading needs no lock;
it carries the time until which it holds (the next lease to expire, the next suspicion to end) and is rebuilt after that.

An expert that did not answer is taken for dead for `suspect_s`, and twice as long each further time, up to `suspect_max_s`. A new
epoch or host clears it at once, and a renewal of the lease forgives a first failure.

Grids of all layers with up to `whole_max` experts together are known whole. Of larger ones, only what is asked for: a beam search
has the prefixes that it comes by read (`unknown`, `explore`), and `run` keeps those that were used lately fresh.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import HiveError, RecordError
from agent.experts.prefixes import PrefixBook
from agent.experts.records import Lease, StoredRecord, beats, read_lease
from agent.grid import ExpertId, Grid, prefix
from agent.identity import PeerId

log = logging.getLogger(__name__)


HINT_LEASES = 3
"""Prefix hints live for so many leases, and are published once per lease: they may be stale, leases may not."""
PREFIXES_AT_ONCE = 128
"""Each may hold as many records as a dimension of a grid has coordinates."""
FIRST_WAYS_MAX = 16
"""Prefixes per level that are followed down in a layer of which hardly anything is known."""


class Reader(Protocol):
    """The reading half of agent.net.overlay.Overlay."""

    async def get_many(self, names: Sequence[str], *, eager: bool = False) -> Mapping[str, Sequence[StoredRecord]]:
        """The live, verified records under each name; names that nobody answered for are missing. Raises HiveError."""
        ...


@dataclass(frozen=True, kw_only=True)
class DirectoryConfig:
    """Times in seconds."""

    lease_s: float = 12.0
    """No lease is believed for longer than this after it was read, whatever its record says."""
    suspect_s: float = 1.0
    suspect_max_s: float = 16.0
    names_max: int = 512
    """Leases asked for at once."""
    whole_max: int = 512
    """Experts, up to which all are known."""
    use_s: float = 30.0
    """How long after its last use a prefix of a larger grid is kept fresh."""

    def __post_init__(self) -> None:
        if not (self.lease_s > 0 and 0 < self.suspect_s <= self.suspect_max_s and self.names_max >= 1 and self.use_s > 0):
            raise ValueError(f"unusable directory settings: {self}")

    @property
    def refresh_s(self) -> float:
        return self.lease_s / 4


@dataclass(frozen=True, slots=True)
class Located:
    """Where an expert is. `sequence` is the record's: it grows with each renewal."""

    uid: ExpertId
    host: PeerId
    epoch: int
    version: int
    sequence: int


@dataclass(frozen=True, slots=True)
class SeenRecord:
    """A lease, the sequence number of its record, and until when it is believed on the monotonic clock."""

    lease: Lease
    sequence: int
    expires: float


def seen_leases(uid: ExpertId, records: Iterable[StoredRecord], *, now: float, unix: float, lease_s: float) -> list[SeenRecord]:
    """The believable leases among the records found under `uid`. Bad ones are logged and left out.

    `now` is monotonic and `unix` the same moment in Unix time, in which records expire.
    """
    found = []
    for record in records:
        try:
            lease = read_lease(record, uid)
        except RecordError as e:
            log.info("ignored a record of %s under %s: %s", record.owner.short, uid, e)
            continue
        found.append(SeenRecord(lease, record.sequence, now + min(record.expires_at - unix, lease_s)))
    return found


@dataclass(frozen=True, slots=True)
class _Suspicion:
    host: PeerId
    epoch: int
    sequence: int
    failures: int
    until: float


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    located: Mapping[ExpertId, Located]
    alive: frozenset[ExpertId]
    children: Mapping[str, tuple[int, ...]]
    until: float


class Directory:
    """Cached view of live experts. `alive`, `locate`, `children`, `mark_dead` and `mark_alive` are thread-safe."""

    def __init__(
        self,
        overlay: Reader,
        grids: Sequence[Grid],
        config: DirectoryConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self._overlay = overlay
        self._config = config or DirectoryConfig()
        whole = sum(map(len, grids)) <= self._config.whole_max
        self._grids = () if whole else tuple(grids)
        self._experts = [uid for grid in grids for uid in grid] if whole else []
        self._book = PrefixBook(() if whole else grids, fresh_s=self._config.lease_s / 3, use_s=self._config.use_s)
        self._clock = clock
        self._unix = unix
        self._lock = threading.Lock()
        self._seen: dict[ExpertId, SeenRecord] = {}
        self._suspicions: dict[ExpertId, _Suspicion] = {}
        self._view = _View({}, frozenset(), {}, math.inf)
        self._absorbed_at = -math.inf

    def alive(self) -> frozenset[ExpertId]:
        """Experts that somebody hosts and nobody here suspects. The same object as long as nothing changes."""
        return self._current().alive

    def locate(self, uid: ExpertId) -> Located | None:
        """Whom to call, or None if `uid` is not alive."""
        return self._current().located.get(uid)

    def children(self, prefix: str) -> tuple[int, ...]:
        """Coordinates that lead to live experts below `prefix` (`ffn0.` or `ffn0.3.`), ascending."""
        known = self._current().children.get(prefix, ())
        if self.is_whole:
            return known
        with self._lock:
            return tuple(sorted({*known, *self._book.hinted(prefix, self._clock())}))

    @property
    def is_whole(self) -> bool:
        """True if every live expert is known here; False if prefixes have to be explored."""
        return bool(self._experts)

    def unknown(self, prefixes: Iterable[str]) -> list[str]:
        """Those of `prefixes` that must be explored before `children` can be relied on. None if everything is known anyway."""
        if self.is_whole:
            return []
        with self._lock:
            return self._book.unknown(prefixes, self._clock())

    async def explore(self, prefixes: Sequence[str]) -> None:
        """Read those prefixes, all at once. Raises HiveError if none could be read."""
        if prefixes:
            self.absorb_prefixes(await self._overlay.get_many(prefixes, eager=True))

    def absorb_prefixes(self, found: Mapping[str, Sequence[StoredRecord]]) -> None:
        """Take in what was just read under prefixes."""
        now, unix = self._clock(), self._unix()
        with self._lock:
            leases = self._book.absorb(found, now=now, unix=unix, hint_s=HINT_LEASES * self._config.lease_s)
        self.absorb(leases)

    def mark_dead(self, uid: ExpertId, host: PeerId) -> None:
        """A call to `uid` at `host` failed. Ignored if the directory knows another host by now."""
        with self._lock:
            seen = self._seen.get(uid)
            if seen is None or seen.lease.host != host.raw:
                return
            before = self._suspicions.get(uid)
            failures = before.failures + 1 if before and (before.host, before.epoch) == (host, seen.lease.epoch) else 1
            hold = min(self._config.suspect_s * 2.0 ** min(failures - 1, 30), self._config.suspect_max_s)
            self._suspicions[uid] = _Suspicion(host, seen.lease.epoch, seen.sequence, failures, self._clock() + hold)
            self._rebuild()

    def mark_alive(self, uid: ExpertId, host: PeerId) -> None:
        """A call to `uid` at `host` succeeded: earlier failures are forgotten."""
        if uid not in self._suspicions:
            return
        with self._lock:
            before = self._suspicions.get(uid)
            if before is not None and before.host == host:
                del self._suspicions[uid]
                self._rebuild()

    async def refresh(self) -> None:
        """Read all leases, or the prefixes in use. What is known stays if it fails (HiveError)."""
        if not self.is_whole:
            names = list(dict.fromkeys([*self._book.in_use(self._clock()), *self._first_ways()]))
            for start in range(0, len(names), PREFIXES_AT_ONCE):
                await self.explore(names[start : start + PREFIXES_AT_ONCE])
        for start in range(0, len(self._experts), self._config.names_max):
            part = self._experts[start : start + self._config.names_max]
            found = await self._overlay.get_many([str(uid) for uid in part], eager=True)
            self.absorb({uid: found[str(uid)] for uid in part if str(uid) in found})

    def _first_ways(self) -> list[str]:
        """Prefixes to read in layers of which hardly any expert is known: down along what is hinted, a level at each refresh.

        Without them an agent that hosts nothing would wait for experts before it searches, and search before it knows any.
        """
        names, alive = [], self.alive()
        for grid in self._grids:
            if sum(uid in grid for uid in alive) >= FIRST_WAYS_MAX:
                continue
            level = [prefix(grid.layer)]
            for _ in grid.shape:
                names += level
                level = [f"{way}{c}." for way in level for c in self.children(way)][:FIRST_WAYS_MAX]
        return names

    def absorb(self, found: Mapping[ExpertId, Sequence[StoredRecord]]) -> None:
        """Take in records that were just read, per expert; for whoever has read them anyway.

        That none is found under a name does not end a lease that was believed: only its expiry does, or a better one.
        """
        now, unix, lease_s = self._clock(), self._unix(), self._config.lease_s
        with self._lock:
            for uid, records in found.items():
                best = self._seen.get(uid)
                if best is not None and best.expires <= now:
                    best = None
                for seen in seen_leases(uid, records, now=now, unix=unix, lease_s=lease_s):
                    is_newer = best is not None and seen.lease.host == best.lease.host and seen.sequence >= best.sequence
                    if seen.expires > now and (best is None or is_newer or beats(seen.lease, best.lease)):
                        best = seen
                if best is not None:
                    self._seen[uid] = best
            self._absorbed_at = now
            self._rebuild()

    async def run(self) -> None:
        """Keep the view fresh, until cancelled. Reads nothing while somebody else's reads are absorbed often enough."""
        config = self._config
        while True:
            if self._clock() - self._absorbed_at >= config.refresh_s:
                try:
                    await self.refresh()
                except HiveError as e:
                    log.info("the directory of experts could not be refreshed: %s", e)
            await asyncio.sleep(config.refresh_s if self._view.alive else config.refresh_s / 3)

    def _current(self) -> _View:
        view = self._view
        if self._clock() < view.until:
            return view
        with self._lock:
            self._rebuild()
            return self._view

    def _rebuild(self) -> None:
        now = self._clock()
        self._seen = {uid: seen for uid, seen in self._seen.items() if seen.expires > now}
        self._suspicions = {uid: s for uid, s in self._suspicions.items() if self._still_counts(uid, s, now)}
        located = {
            uid: Located(uid, PeerId(seen.lease.host), seen.lease.epoch, seen.lease.version, seen.sequence)
            for uid, seen in sorted(self._seen.items())
            if uid not in self._suspicions or self._suspicions[uid].until <= now
        }
        ends = [seen.expires for seen in self._seen.values()]
        ends += [s.until for s in self._suspicions.values() if s.until > now]
        alive = frozenset(located)
        if alive == self._view.alive:
            alive = self._view.alive
        children: dict[str, set[int]] = {}
        for uid in alive:
            for name, coordinate in uid.prefixes:
                children.setdefault(name, set()).add(coordinate)
        self._view = _View(located, alive, {n: tuple(sorted(c)) for n, c in children.items()}, min(ends, default=math.inf))

    def _still_counts(self, uid: ExpertId, suspicion: _Suspicion, now: float) -> bool:
        """Suspicions that ended are remembered with their count, until the lease moves or the expert answers."""
        seen = self._seen.get(uid)
        if seen is None or (seen.lease.host, seen.lease.epoch) != (suspicion.host.raw, suspicion.epoch):
            return False
        return suspicion.failures > 1 or seen.sequence == suspicion.sequence
