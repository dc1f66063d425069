from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest

from agent.errors import RecordError
from agent.experts import records
from agent.experts.records import EPOCH_MAX, HostRecord, Lease, PrefixHint, affinity, beats, read_lease, settle
from agent.grid import ExpertId
from agent.identity import PeerId

UID = ExpertId("ffn0", (3, 1))
A, B = PeerId(b"a" * 32), PeerId(b"b" * 32)


@dataclass(frozen=True)
class Stored:
    owner: PeerId
    value: bytes
    subkey: str = ""
    sequence: int = 1
    expires_at: float = 0.0


def lease(host: PeerId, epoch: int = 1, uid: ExpertId = UID) -> Lease:
    return Lease(str(uid), host.raw, epoch, 0)


def test_values_survive_and_stay_small() -> None:
    longest = ExpertId("abcdefghijklmno999", (255, 255, 255, 255))
    for value in (Lease(str(longest), b"\xff" * 32, EPOCH_MAX, 2**62), PrefixHint(str(longest)), HostRecord(65_536, True)):
        encoded = records.encode(value)
        assert len(encoded) <= records.VALUE_BYTES_MAX
        assert records.decode(encoded, type(value)) == value


def test_a_lease_is_its_owners_and_its_experts() -> None:
    stored = Stored(A, records.encode(lease(A, 3)))
    assert read_lease(stored, UID).epoch == 3
    with pytest.raises(RecordError, match="another peer"):
        read_lease(Stored(B, stored.value), UID)
    with pytest.raises(RecordError, match="stored under"):
        read_lease(stored, ExpertId("ffn0", (0, 0)))


@pytest.mark.parametrize(
    "fields",
    [
        ["ffn0.3.1", b"a" * 31, 1, 0],
        ["ffn0.3.1", b"a" * 32, 0, 0],
        ["ffn0.3.1", b"a" * 32, EPOCH_MAX + 1, 0],
        ["ffn0.3.1", b"a" * 32, 1, -1],
        ["x" * 41, b"a" * 32, 1, 0],
        [],
        None,
    ],
)
def test_badly_formed_leases(fields: object) -> None:
    with pytest.raises(RecordError):
        read_lease(Stored(A, msgspec.msgpack.encode(fields)), UID)


def test_a_value_past_the_limit_is_not_even_decoded() -> None:
    with pytest.raises(RecordError, match="too large"):
        records.decode(b"\x91" + b"\0" * records.VALUE_BYTES_MAX, PrefixHint)


def test_the_highest_epoch_counts_then_the_lower_hash() -> None:
    low, high = sorted((A, B), key=lambda p: affinity(p.raw, str(UID)))
    assert settle([]) is None
    assert settle([lease(low, 1), lease(high, 2)]) == lease(high, 2)
    assert settle([lease(high, 2), lease(low, 2)]) == settle([lease(low, 2), lease(high, 2)]) == lease(low, 2)
    assert beats(lease(low, 2), lease(high, 2))
    assert not beats(lease(high, 2), lease(low, 2))
