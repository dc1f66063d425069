"""What Hive keeps in the DHT about experts and their hosts.

| name        | subkey | value      | meaning                                                    |
|-------------|--------|------------|------------------------------------------------------------|
| `ffn0.`     | `3`    | PrefixHint | some expert below `ffn0.3.` is hosted: this one            |
| `ffn0.3.`   | `1`    | Lease      | the same as under `ffn0.3.1`, for beam searches            |
| `ffn0.3.1`  |        | Lease      | its owner hosts this expert until the record expires       |
| `hosts`     | PeerId | HostRecord | its owner can host so many experts                         |

Nobody can overwrite another peer's record, so one name can carry several leases: `settle` says whose counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta

from agent.errors import RecordError
from agent.grid import ExpertId
from agent.identity import PEER_ID_BYTES, PeerId

HOSTS = "hosts"
VALUE_BYTES_MAX = 256
EPOCH_MAX = 2**53

RawPeer = Annotated[bytes, Meta(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]
UidText = Annotated[str, Meta(max_length=40)]
Epoch = Annotated[int, Meta(ge=1, le=EPOCH_MAX)]
Count = Annotated[int, Meta(ge=0, le=2**62)]


class StoredRecord(Protocol):
    """The part of a DHT record that readers here need; agent.dht's Record has it, verified and unexpired."""

    @property
    def subkey(self) -> str: ...
    @property
    def owner(self) -> PeerId: ...
    @property
    def sequence(self) -> int: ...
    @property
    def expires_at(self) -> float: ...
    @property
    def value(self) -> bytes: ...


class _Value(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Lease(_Value, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`host` (always the record's owner) hosts `uid`. A higher `epoch` beats a lower one."""

    uid: UidText
    host: RawPeer
    epoch: Epoch
    version: Count
    """Optimizer steps at the last renewal."""


class PrefixHint(_Value, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An expert that is hosted below a prefix."""

    uid: UidText


class HostRecord(_Value, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An agent in the host role."""

    capacity: Annotated[int, Meta(ge=0, le=65_536)]
    """Experts that it can hold, those that it holds included."""
    settled: bool
    """It has been here for longer than the grace in which newcomers leave room for each other."""


V = TypeVar("V", bound=_Value)


def encode(value: _Value) -> bytes:
    """The msgpack form of a value."""
    return msgspec.msgpack.encode(value)


def decode(value: bytes, kind: type[V]) -> V:
    """Read and validate a value. Raises RecordError."""
    if len(value) > VALUE_BYTES_MAX:
        raise RecordError(f"a {kind.__name__} of {len(value)} bytes is too large")
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise RecordError(f"a badly formed {kind.__name__}: {e}") from None


def read_lease(record: StoredRecord, uid: ExpertId) -> Lease:
    """The lease in a record that was found under `uid`. Raises RecordError if it is another's, or another expert's."""
    lease = decode(record.value, Lease)
    if lease.host != record.owner.raw:
        raise RecordError(f"{record.owner.short} published a lease in the name of another peer")
    if lease.uid != str(uid):
        raise RecordError(f"a lease of {lease.uid} is stored under {uid}")
    return lease


@lru_cache(maxsize=1 << 16)
def affinity(host: bytes, uid: str) -> bytes:
    """SHA-256 of (host, uid): the lowest comes first, in claiming (rendezvous hashing) and in settling equal epochs."""
    return hashlib.sha256(host + uid.encode()).digest()


def beats(a: Lease, b: Lease) -> bool:
    """True if lease `a` counts and `b`, of the same expert and another host, does not."""
    if a.epoch != b.epoch:
        return a.epoch > b.epoch
    return affinity(a.host, a.uid) < affinity(b.host, b.uid)


def settle(leases: Sequence[Lease]) -> Lease | None:
    """The lease that counts among live ones of one expert: the highest epoch, then the lowest affinity hash."""
    best: Lease | None = None
    for lease in leases:
        if best is None or beats(lease, best):
            best = lease
    return best
