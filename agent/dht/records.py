"""Signed, expiring records, and the store that keeps them.

A record is unique by (key, subkey, owner), so nobody can overwrite another's. The one with the highest sequence number
wins. Readers decide what several owners' records under one key mean (for example a lease by its epoch).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.dht.config import RecordLimits
from agent.errors import RecordError
from agent.identity import Identity, PeerId

SUBKEY_CHARS_MAX = 64
RECORD_OVERHEAD_BYTES = 220  # the most that a record takes on the wire besides its value and subkey
DIGEST_BYTES = 8


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What its owner said under (key, subkey), until `expires_at` (Unix seconds)."""

    key: Annotated[bytes, Meta(min_length=1, max_length=32)]
    subkey: Annotated[str, Meta(max_length=SUBKEY_CHARS_MAX)]
    owner: PeerId
    sequence: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    expires_at: float
    value: Annotated[bytes, Meta(max_length=8192)]
    signature: Annotated[bytes, Meta(max_length=64)] = b""

    def signed_bytes(self) -> bytes:
        """What the signature covers: every other field."""
        return msgspec.msgpack.encode((self.key, self.subkey, self.owner.raw, self.sequence, self.expires_at, self.value))

    @property
    def wire_bytes(self) -> int:
        """An upper bound of its size on the wire."""
        return RECORD_OVERHEAD_BYTES + len(self.value) + 4 * len(self.subkey)


Verify = Callable[[Record], bool]


def sign(identity: Identity, record: Record) -> Record:
    """The record, signed by its owner. Raises ValueError if `identity` is not the owner."""
    if record.owner != identity.peer_id:
        raise ValueError("a record is signed by its owner")
    return msgspec.structs.replace(record, signature=identity.sign("record", record.signed_bytes()))


class SignatureCheck:
    """The production `Verify`: Ed25519, remembering up to `remembered_max` records that passed.

    A check takes about 0.15 ms, and the same dictionary is read again and again, so remembering is what makes bulk reads cheap.
    """

    def __init__(self, remembered_max: int = 16_384) -> None:
        self._passed: dict[Record, None] = {}
        self._remembered_max = remembered_max

    def __call__(self, record: Record) -> bool:
        if record in self._passed:
            return True
        if not record.owner.verify("record", record.signed_bytes(), record.signature):
            return False
        if len(self._passed) >= self._remembered_max:
            del self._passed[next(iter(self._passed))]
        self._passed[record] = None
        return True


class _Slot:
    """A record and how long it must be remembered, so that an older one that expires later cannot come back."""

    __slots__ = ("held_until", "record")

    def __init__(self, record: Record, held_until: float) -> None:
        self.record = record
        self.held_until = held_until


class _Shelf:
    """All that is kept under one key."""

    __slots__ = ("digest", "slots")

    def __init__(self) -> None:
        self.slots: dict[tuple[str, PeerId], _Slot] = {}
        self.digest: bytes | None = None


class RecordStore:
    """The records that one node holds, within `limits`. Everything it gives out has been verified and is alive."""

    __slots__ = ("_bytes", "_count", "_due", "_limits", "_owners", "_shelves", "_verify", "key_bytes", "on_kept")

    def __init__(self, limits: RecordLimits, verify: Verify, *, key_bytes: int = 32) -> None:
        self._limits = limits
        self._verify = verify
        self.key_bytes = key_bytes
        self.on_kept: Callable[[bytes], None] = lambda key: None  # called with the key of each record that is new here
        self._shelves: dict[bytes, _Shelf] = {}
        self._owners: dict[PeerId, list[int]] = {}  # records, bytes
        self._due: list[tuple[float, bytes, str, PeerId]] = []
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many records are held."""
        return self._count

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def keys(self) -> Iterator[bytes]:
        return iter(self._shelves)

    def put(self, record: Record, now: float) -> bool:
        """Keep a record. True if it was new, False if it was held already.

        Raises RecordError if it is badly formed, too large, expired, badly signed, older than what is held, or over quota.
        """
        self.expire(now)  # what is over takes no room
        self._check_form(record, now)
        shelf = self._shelves.get(record.key)
        place = (record.subkey, record.owner)
        old = shelf.slots.get(place) if shelf else None
        if old is not None:
            if record == old.record:
                return False
            if record.sequence <= old.record.sequence:
                raise RecordError("a newer record is held")
        self._check_quota(record, shelf, old)
        if not self._verify(record):
            raise RecordError("the signature is not the owner's")
        if shelf is None:
            shelf = self._shelves[record.key] = _Shelf()
        if old is not None:
            self._account(old.record, -1)
        held_until = max(record.expires_at, old.held_until if old else 0.0)
        shelf.slots[place] = _Slot(record, held_until)
        shelf.digest = None
        self._account(record, +1)
        self._schedule(held_until, record)
        self.on_kept(record.key)
        return True

    def is_acceptable(self, record: Record, now: float) -> bool:
        """True if a reader may believe the record: well formed, alive, and signed by its owner."""
        try:
            self._check_form(record, now)
        except RecordError:
            return False
        return self._verify(record)

    def get(self, key: bytes, now: float) -> list[Record]:
        """The live records under `key`, in the order in which they came."""
        self.expire(now)
        shelf = self._shelves.get(key)
        return [slot.record for slot in shelf.slots.values() if slot.record.expires_at > now] if shelf else []

    def digest(self, key: bytes, now: float) -> bytes:
        """Eight bytes that differ when the records under `key` differ; equal for equal sets. Empty if there are none."""
        self.expire(now)
        shelf = self._shelves.get(key)
        if shelf is None:
            return b""
        if shelf.digest is None:
            hasher = hashlib.blake2b(digest_size=DIGEST_BYTES)
            for (subkey, owner), slot in sorted(shelf.slots.items()):
                hasher.update(owner.raw + slot.record.sequence.to_bytes(8, "big") + subkey.encode() + b"\0")
            shelf.digest = hasher.digest()
        return shelf.digest

    def expire(self, now: float) -> None:
        """Forget what is past its time."""
        while self._due and self._due[0][0] <= now:
            _, key, subkey, owner = heapq.heappop(self._due)
            shelf = self._shelves.get(key)
            slot = shelf.slots.get((subkey, owner)) if shelf else None
            if shelf is None or slot is None or slot.held_until > now:
                continue  # renewed since
            del shelf.slots[subkey, owner]
            shelf.digest = None
            self._account(slot.record, -1)
            if not shelf.slots:
                del self._shelves[key]

    def next_expiry(self) -> float | None:
        return self._due[0][0] if self._due else None

    def _check_form(self, record: Record, now: float) -> None:
        limits = self._limits
        if len(record.key) != self.key_bytes:
            raise RecordError(f"a key has {self.key_bytes} bytes")
        if len(record.value) > limits.value_bytes_max:
            raise RecordError(f"a value has at most {limits.value_bytes_max} bytes, not {len(record.value)}")
        if len(record.subkey) > SUBKEY_CHARS_MAX:
            raise RecordError(f"a subkey has at most {SUBKEY_CHARS_MAX} characters")
        if not record.expires_at > now:  # written so that NaN fails too
            raise RecordError("it has expired")
        if not record.expires_at <= now + limits.ttl_max_s + limits.clock_skew_s:
            raise RecordError(f"it expires more than {limits.ttl_max_s:.0f} s ahead")

    def _check_quota(self, record: Record, shelf: _Shelf | None, old: _Slot | None) -> None:
        limits = self._limits
        more = 0 if old else 1
        more_bytes = record.wire_bytes - (old.record.wire_bytes if old else 0)
        records, held_bytes = self._owners.get(record.owner, (0, 0))
        if records + more > limits.per_owner_max or held_bytes + more_bytes > limits.per_owner_bytes_max:
            raise RecordError("the owner's quota is used up")
        if self._count + more > limits.records_max or self._bytes + more_bytes > limits.bytes_max:
            raise RecordError("this node is full")
        if shelf is not None and old is None:
            if len(shelf.slots) >= limits.per_key_max:
                raise RecordError("the key's quota is used up")
            if sum(1 for subkey, _ in shelf.slots if subkey == record.subkey) >= limits.owners_per_subkey_max:
                raise RecordError("the subkey has enough owners")

    def _account(self, record: Record, sign: int) -> None:
        size = sign * record.wire_bytes
        self._count += sign
        self._bytes += size
        owned = self._owners.setdefault(record.owner, [0, 0])
        owned[0] += sign
        owned[1] += size
        if not owned[0]:
            del self._owners[record.owner]

    def _schedule(self, when: float, record: Record) -> None:
        """Renewals leave stale entries behind; rebuild before they outnumber the records."""
        heapq.heappush(self._due, (when, record.key, record.subkey, record.owner))
        if len(self._due) > 2 * self._count + 64:
            self._due = [
                (slot.held_until, key, subkey, owner)
                for key, shelf in self._shelves.items()
                for (subkey, owner), slot in shelf.slots.items()
            ]
            heapq.heapify(self._due)
