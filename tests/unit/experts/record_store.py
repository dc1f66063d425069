"""An overlay's records in memory, on clocks that the test turns: the fake that implements what Directory and Custodian need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.errors import CallTimeout
from agent.identity import PeerId
from agent.net.overlay import Entry

UNIX = 1_800_000_000.0


@dataclass
class Clock:
    """Monotonic seconds; `unix` is the same moment for records."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def unix(self) -> float:
        return UNIX + self.now


@dataclass(frozen=True)
class Kept:
    subkey: str
    owner: PeerId
    sequence: int
    expires_at: float
    value: bytes


@dataclass
class RecordStore:
    """Shared by all peers of a test."""

    clock: Clock
    records: dict[str, dict[tuple[str, PeerId], Kept]] = field(default_factory=dict)
    sequence: int = 0
    reads: list[Sequence[str]] = field(default_factory=list)
    eager: list[bool] = field(default_factory=list)
    """Of each of the reads."""
    unread: set[str] = field(default_factory=set)
    """Names that nobody answers for."""
    hidden: set[str] = field(default_factory=set)
    """Names under which eager reads find nothing."""
    full: set[str] = field(default_factory=set)
    """Names under which nothing more is stored."""
    silent: bool = False
    on_put: Callable[[PeerId, Sequence[Entry]], None] = lambda owner, entries: None

    def get_many(self, names: Sequence[str], *, eager: bool = False) -> dict[str, list[Kept]]:
        self.reads.append(list(names))
        self.eager.append(eager)
        if self.silent:
            raise CallTimeout("nobody answered")
        now = self.clock.unix()
        return {
            name: [k for k in self.records.get(name, {}).values() if k.expires_at > now and not (eager and name in self.hidden)]
            for name in names
            if name not in self.unread
        }

    def put_many(self, owner: PeerId, entries: Sequence[Entry]) -> list[int]:
        self.on_put(owner, entries)
        if self.silent:
            raise CallTimeout("nobody answered")
        return [self._put(owner, e) for e in entries]

    def _put(self, owner: PeerId, entry: Entry) -> int:
        if entry.name in self.full:
            return 0
        self.sequence += 1
        kept = Kept(entry.subkey, owner, self.sequence, self.clock.unix() + entry.ttl_s, entry.value)
        self.records.setdefault(entry.name, {})[entry.subkey, owner] = kept
        return 3


@dataclass(frozen=True)
class OverlayOf:
    """One peer's end of the store."""

    store: RecordStore
    peer_id: PeerId

    async def get_many(self, names: Sequence[str], *, eager: bool = False) -> dict[str, list[Kept]]:
        return self.store.get_many(names, eager=eager)

    async def put_many(self, entries: Sequence[Entry]) -> list[int]:
        return self.store.put_many(self.peer_id, entries)
