"""What goes into a LeaseKeeper and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.experts.records import HostRecord, Lease
from agent.grid import ExpertId
from agent.identity import PeerId


@dataclass(frozen=True, slots=True)
class SeenLease:
    """A lease as read; `expires` on the keeper's clock."""

    lease: Lease
    expires: float


@dataclass(frozen=True, slots=True)
class Scanned:
    """A read is done. `leases` has an entry, maybe empty, for each expert that could be read; `hosts` None: could not be read."""

    scan: int
    leases: Mapping[ExpertId, Sequence[SeenLease]]
    hosts: Mapping[PeerId, tuple[HostRecord, float]] | None
    epoch_floor: int
    """Unix seconds at the read."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A put is done; `leases` are those that at least one replica has."""

    put: int
    leases: frozenset[ExpertId]


@dataclass(frozen=True, slots=True)
class Leave:
    """This host goes: give up everything."""


Event = Scanned | Stored | Leave


@dataclass(frozen=True, slots=True)
class Scan:
    """Read these leases and the host records; then Scanned with this number, whatever came of it."""

    scan: int
    uids: tuple[ExpertId, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """Publish these leases (expert, epoch) and the own host record; then Stored with this number, whatever came of it."""

    put: int
    leases: tuple[tuple[ExpertId, int], ...]
    settled: bool
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Host:
    """Have the expert ready before the Put that follows."""

    uid: ExpertId
    epoch: int


Reason = Literal["lost", "lapsed", "unstored", "left"]


@dataclass(frozen=True, slots=True)
class Drop:
    """Stop serving the expert at once. If it `lapsed`, nobody else was seen to have it, and what it learned is worth keeping."""

    uid: ExpertId
    reason: Reason


Effect = Scan | Put | Host | Drop
