"""A hostile neighbour that floods a node with valid records: it fills its own quota, and nothing of others'."""

from __future__ import annotations

from agent.dht.config import DhtConfig, RecordLimits
from agent.dht.messages import Attest, Claim, Store, Stored
from tests.sim.engine import make_record
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

LIMITS = RecordLimits(per_owner_max=10, per_key_max=20, owners_per_subkey_max=2, records_max=60)
CONFIG = DhtConfig(siblings=4, replicas=3, limits=LIMITS)


def flood(me: Played, owners: range, keys: range, subkeys: int = 1) -> int:
    """How many are kept of one record for each owner, key and subkey."""
    kept = 0
    for owner in owners:
        for key in keys:
            batch = [
                make_record(bytes([key]), at(owner).peer, b"x", subkey=str(n), expires_at=me.now + 600) for n in range(subkeys)
            ]
            me.receive(1, Store(1, batch, b"t" * 8))
            [(_, stored)] = me.take(Stored)
            kept += len(batch) - len(stored.refused)
            assert (stored.signature != b"") == (len(stored.refused) < len(batch)), "it signs for nothing that it does not keep"
    return kept


def test_one_owner_takes_no_more_than_its_share_and_others_still_find_room() -> None:
    me = Played(0, 1, config=CONFIG)
    assert flood(me, range(5, 6), range(100)) == 10
    assert flood(me, range(6, 7), range(5)) == 5


def test_one_key_takes_no_more_than_its_share() -> None:
    me = Played(0, 1, config=CONFIG)
    assert flood(me, range(5, 15), range(1), subkeys=5) == 10, "two owners for each of five subkeys"
    assert flood(me, range(20, 21), range(1, 3)) == 2


def test_many_owners_fill_a_node_and_no_more() -> None:
    me = Played(0, 1, config=CONFIG)
    assert flood(me, range(5, 100), range(0, 250, 5)) == 60
    assert len(me.node.core.store) == 60


def test_claims_of_made_up_records_cost_a_bounded_answer() -> None:
    me = Played(0, 1, config=CONFIG)
    flood(me, range(5, 7), range(5))
    me.receive(1, Attest(3, b"t" * 8, [Claim(0, b"\0", bytes(range(200)) * 8)]))
    [message] = [m for _, m in me.take()]
    assert len(message.lacks) == 16
