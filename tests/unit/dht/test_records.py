from __future__ import annotations

import dataclasses

import msgspec
import pytest

from agent.dht.config import RecordLimits
from agent.dht.records import Record, RecordStore, SignatureCheck, sign
from agent.errors import RecordError
from agent.identity import Identity, PeerId
from tests.sim.engine import cheap_verify, make_record

NOW = 1_800_000_000.0
KEY, OTHER = b"k" * 32, b"o" * 32
ALICE, BOB, CHARLIE = (PeerId(bytes([i]) * 32) for i in range(3))
LIMITS = RecordLimits(
    value_bytes_max=8, ttl_max_s=100, clock_skew_s=10, per_key_max=4, owners_per_subkey_max=2, per_owner_max=5, records_max=6
)


@pytest.fixture
def store() -> RecordStore:
    return RecordStore(LIMITS, cheap_verify)


def record(owner: PeerId = ALICE, **changes: object) -> Record:
    fields: dict[str, object] = {"key": KEY, "value": b"v", "expires_at": NOW + 10} | changes
    return make_record(owner=owner, **fields)  # type: ignore[arg-type]


def test_what_was_put_is_got(store: RecordStore) -> None:
    assert store.put(record(), NOW)
    assert store.get(KEY, NOW) == [record()]
    assert store.get(OTHER, NOW) == []
    assert not store.put(record(), NOW)
    assert len(store) == 1


def test_the_newest_sequence_wins_in_either_order(store: RecordStore) -> None:
    store.put(record(sequence=1), NOW)
    store.put(record(sequence=2, value=b"new"), NOW)
    with pytest.raises(RecordError, match="newer"):
        store.put(record(sequence=1), NOW)
    with pytest.raises(RecordError, match="newer"):
        store.put(record(sequence=2, value=b"forked"), NOW)
    assert [r.value for r in store.get(KEY, NOW)] == [b"new"]
    assert len(store) == 1


def test_nobody_overwrites_anothers(store: RecordStore) -> None:
    store.put(record(ALICE), NOW)
    store.put(record(BOB, sequence=9), NOW)
    assert {r.owner for r in store.get(KEY, NOW)} == {ALICE, BOB}


def test_an_expired_record_is_neither_taken_nor_given(store: RecordStore) -> None:
    store.put(record(expires_at=NOW + 1), NOW)
    assert store.get(KEY, NOW + 0.99)
    assert not store.get(KEY, NOW + 1)
    assert len(store) == 0
    assert list(store.keys()) == []
    assert store.held_bytes == 0
    with pytest.raises(RecordError, match="expired"):
        store.put(record(expires_at=NOW), NOW)


def test_an_older_record_that_expires_later_does_not_come_back(store: RecordStore) -> None:
    store.put(record(sequence=1, expires_at=NOW + 50), NOW)
    store.put(record(sequence=2, expires_at=NOW + 5), NOW)
    assert store.get(KEY, NOW + 6) == []
    with pytest.raises(RecordError, match="newer"):
        store.put(record(sequence=1, expires_at=NOW + 50), NOW + 6)
    store.expire(NOW + 50)
    assert len(store) == 0


def test_a_renewal_outlives_the_first_expiry(store: RecordStore) -> None:
    store.put(record(sequence=1, expires_at=NOW + 5), NOW)
    store.put(record(sequence=2, expires_at=NOW + 50), NOW)
    assert store.get(KEY, NOW + 6)


def test_renewals_do_not_pile_up(store: RecordStore) -> None:
    for sequence in range(1000):
        store.put(record(sequence=sequence, expires_at=NOW + 10 + sequence / 100), NOW)
    assert len(store._due) <= 2 * 1 + 64


def test_a_bad_signature_is_refused(store: RecordStore) -> None:
    with pytest.raises(RecordError, match="signature"):
        store.put(msgspec.structs.replace(record(), value=b"forged"), NOW)
    assert not store.is_acceptable(msgspec.structs.replace(record(), value=b"forged"), NOW)
    assert store.is_acceptable(record(), NOW)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"value": b"v" * 9}, "at most 8 bytes"),
        ({"subkey": "s" * 65}, "64 characters"),
        ({"expires_at": NOW + 110.1}, "ahead"),
        ({"expires_at": float("nan")}, "expired"),
        ({"expires_at": float("inf")}, "ahead"),
        ({"key": b"k" * 31}, "32 bytes"),
    ],
)
def test_bad_form_is_refused(store: RecordStore, changes: dict[str, object], match: str) -> None:
    with pytest.raises(RecordError, match=match):
        store.put(record(**changes), NOW)


def test_the_limits_themselves_are_allowed(store: RecordStore) -> None:
    assert store.put(record(value=b"v" * 8, subkey="s" * 64, expires_at=NOW + 110), NOW)


def test_a_subkey_takes_so_many_owners(store: RecordStore) -> None:
    store.put(record(ALICE), NOW)
    store.put(record(BOB), NOW)
    with pytest.raises(RecordError, match="enough owners"):
        store.put(record(CHARLIE), NOW)
    store.put(record(CHARLIE, subkey="another"), NOW)
    store.put(record(ALICE, sequence=2), NOW)


def test_a_key_takes_so_many_records(store: RecordStore) -> None:
    for i in range(4):
        store.put(record(subkey=str(i)), NOW)
    with pytest.raises(RecordError, match="key's quota"):
        store.put(record(subkey="4"), NOW)


def test_an_owner_stores_so_many_records_until_they_expire(store: RecordStore) -> None:
    for i in range(5):
        store.put(record(key=bytes([i]) * 32), NOW)
    with pytest.raises(RecordError, match="owner's quota"):
        store.put(record(), NOW)
    store.put(record(BOB), NOW)
    store.expire(NOW + 10)
    store.put(record(expires_at=NOW + 30), NOW + 10)


def test_an_owner_stores_so_many_bytes() -> None:
    store = RecordStore(dataclasses.replace(LIMITS, per_owner_bytes_max=2 * record().wire_bytes), cheap_verify)
    store.put(record(subkey=""), NOW)
    store.put(record(key=OTHER), NOW)
    with pytest.raises(RecordError, match="owner's quota"):
        store.put(record(key=b"x" * 32), NOW)
    store.put(record(BOB), NOW)


def test_a_node_stores_so_many_records(store: RecordStore) -> None:
    for i in range(6):
        store.put(record(PeerId(bytes([i + 10]) * 32), key=bytes([i]) * 32), NOW)
    with pytest.raises(RecordError, match="full"):
        store.put(record(), NOW)


def test_a_node_stores_so_many_bytes() -> None:
    store = RecordStore(dataclasses.replace(LIMITS, bytes_max=record().wire_bytes), cheap_verify)
    store.put(record(), NOW)
    with pytest.raises(RecordError, match="full"):
        store.put(record(BOB), NOW)


def test_digests_compare_sets_not_orders(store: RecordStore) -> None:
    other = RecordStore(LIMITS, cheap_verify)
    assert store.digest(KEY, NOW) == b""
    for r in (record(ALICE), record(BOB)):
        store.put(r, NOW)
    for r in (record(BOB), record(ALICE)):
        other.put(r, NOW)
    assert store.digest(KEY, NOW) == other.digest(KEY, NOW) != b""
    other.put(record(ALICE, sequence=2), NOW)
    assert store.digest(KEY, NOW) != other.digest(KEY, NOW)


def test_a_real_signature_is_checked_once_and_covers_every_field() -> None:
    identity = Identity.from_seed(b"a" * 32)
    unsigned = Record(KEY, "s", identity.peer_id, 3, NOW + 5, b"v")
    signed = sign(identity, unsigned)
    check = SignatureCheck(remembered_max=2)
    assert check(signed) and check(signed)
    changes = {"key": OTHER, "subkey": "t", "owner": ALICE, "sequence": 4, "expires_at": NOW + 6, "value": b"w", "signature": b""}
    for field, value in changes.items():
        assert not check(msgspec.structs.replace(signed, **{field: value})), field
    for i in range(3):
        assert check(sign(identity, msgspec.structs.replace(unsigned, sequence=i)))
    assert len(check._passed) == 2
    with pytest.raises(ValueError):
        sign(identity, msgspec.structs.replace(unsigned, owner=ALICE))


def test_a_record_survives_the_wire() -> None:
    encoded = msgspec.msgpack.encode(record(subkey="é" * 64))
    decoded = msgspec.msgpack.decode(encoded, type=Record)
    assert decoded == record(subkey="é" * 64)
    assert len(encoded) <= decoded.wire_bytes


@pytest.mark.parametrize("field", [f for f in RecordLimits.__dataclass_fields__ if f != "clock_skew_s"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        RecordLimits(**{field: 0})  # type: ignore[arg-type]
