"""What the overlay does not defend against, shown: docs/security.md says so in words."""

from __future__ import annotations

import pytest

from agent.dht.config import RecordLimits
from agent.dht.records import Record, RecordStore, SignatureCheck, sign
from agent.errors import RecordError
from agent.experts.records import Lease, settle
from agent.identity import Identity

NOW = 1_800_000_000.0
HONEST, *STRANGERS = (Identity.from_seed(bytes([i]) * 32) for i in range(1, 10))


def record(owner: Identity, *, ttl_s: float = 100.0) -> Record:
    return sign(owner, Record(bytes(32), "", owner.peer_id, 1, NOW + ttl_s, b"lease"))


def test_eight_strangers_keep_an_honest_owner_out() -> None:
    """Until their records expire."""
    store = RecordStore(RecordLimits(), SignatureCheck())
    for stranger in STRANGERS:
        assert store.put(record(stranger), NOW)
    with pytest.raises(RecordError, match="owners"):
        store.put(record(HONEST), NOW)
    assert store.put(record(HONEST, ttl_s=300.0), NOW + 101.0)


def test_whoever_writes_the_higher_epoch_takes_the_expert() -> None:
    """By design: a lease is won by its epoch, and nothing says who may choose which."""
    mine = Lease("ffn0.0.0", HONEST.peer_id.raw, 1_800_000_000, 500)
    theirs = Lease("ffn0.0.0", STRANGERS[0].peer_id.raw, 2**53, 0)
    assert settle([mine, theirs]) == theirs
