"""How a node fills its buckets, its neighbours played by the test; keys of 8 bits, our own is 0."""

from __future__ import annotations

import pytest

from agent.dht import events
from agent.dht.buckets import ASKS_MAX, NAMED_EACH
from agent.dht.config import SOUGHT_MAX, DhtConfig
from agent.dht.keys import bucket_of, stratum_of
from agent.dht.messages import Kind, NearPeers, Request, Seek, decode, encode
from agent.errors import ProtocolViolation
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

SIBLINGS = (1, 2, 3, 4)  # what they cover ends with bucket 2
FOUR_PARTS = DhtConfig(siblings=4, replicas=3, stratum_bits=2)
LACKING = {(bucket, stratum) for bucket in (3, 4, 5, 6, 7) for stratum in range(4)}


def place(key: int) -> tuple[int, int]:
    bucket = bucket_of(0, key)
    return bucket, stratum_of(key, bucket, 2)


def dialed(me: Played) -> list[int]:
    found = [e.peer for e in me.effects if isinstance(e, events.Connect)]
    me.effects = [e for e in me.effects if not isinstance(e, events.Connect)]
    return [k for k in range(256) if at(k).peer in found]


class Watched(Played):
    """Notes which keys the node searches for."""

    def __init__(self, *keys: int) -> None:
        self.searched: list[int] = []
        super().__init__(*keys, config=FOUR_PARTS)

    def _perform(self, effects: list[events.Effect]) -> None:
        sent = [decode(e.data) for e in effects if isinstance(e, events.Send)]
        self.searched += [m.items[0].key[0] for m in sent if isinstance(m, Request) and m.kind == Kind.FIND]
        super()._perform(effects)


def test_a_neighbour_is_asked_for_a_peer_in_each_part_that_lacks_one() -> None:
    me = Played(0, *SIBLINGS, 0b1000_0000, config=FOUR_PARTS)
    me.passes(1)
    [(asked, seek)] = me.take(Seek)
    wanted = [place(key[0]) for key in seek.keys]
    assert len(wanted) == len(set(wanted)) == SOUGHT_MAX
    assert set(wanted) <= LACKING - {place(0b1000_0000)}, "no part that the siblings or a connection cover"
    assert wanted == sorted(wanted, key=lambda p: -p[0]), "the widest first"
    assert asked in SIBLINGS, "somebody who has the same buckets"


def test_whoever_was_named_is_dialed_with_room_left_for_siblings() -> None:
    me = Played(0, *SIBLINGS, config=DhtConfig(siblings=4, replicas=3, dials_max=4))
    me.passes(1)
    [(asked, _)] = me.take(Seek)
    me.receive(asked, NearPeers([at(k).peer.raw for k in (0b1000_0001, 0b1000_0010, 0b1100_0000, 0b0100_0000)]))
    me.passes(0.7)
    first = dialed(me)
    assert len(first) == 2 and len({place(k) for k in first}) == 2
    me.passes(2)
    assert dialed(me) == [], "two more would leave no room"
    for key in first:
        me.handle(events.PeerOpened(at(key).peer))
    me.passes(0.7)
    assert len(dialed(me)) == 1, "one in each part is enough"


def test_what_no_neighbour_knows_is_searched_for_after_some_asking() -> None:
    me = Watched(0, *SIBLINGS)
    me.passes(0.65 * (ASKS_MAX + 1))
    assert len(me.take(Seek)) == ASKS_MAX
    me.passes(0.65 * len(LACKING))
    assert me.take(Seek) == []
    assert {place(key) for key in me.searched if key} == LACKING
    me.passes(7)
    assert me.take(Seek), "and again in the next round"


def test_a_lost_connection_is_replaced_by_way_of_a_neighbour() -> None:
    me = Played(0, *SIBLINGS, 0b1000_0000)
    me.passes(60)
    me.take(Seek)
    me.handle(events.PeerClosed(at(0b1000_0000).peer))
    me.passes(0.7)
    assert place(0b1000_0000) in {place(key[0]) for _, seek in me.take(Seek) for key in seek.keys}


def test_the_closest_to_each_key_are_named_and_never_the_one_who_asks() -> None:
    me = Played(0, *SIBLINGS, 0b1000_0000, 0b1000_0001, 0b1000_0010)
    me.receive(0b1000_0000, Seek([b"\x80", b"\x80\0", b"\x81"]))
    [(target, answer)] = me.take(NearPeers)
    assert target == 0b1000_0000
    assert answer.peers == [at(0b1000_0001).peer.raw], f"of the {NAMED_EACH} closest"


@pytest.mark.parametrize("count", [0, SOUGHT_MAX + 1])
def test_a_neighbour_seeks_a_bounded_number_of_keys(count: int) -> None:
    with pytest.raises(ProtocolViolation):
        decode(encode(Seek([b"\0"] * count)))
    assert decode(encode(Seek([b"\0"] * SOUGHT_MAX)))


def test_a_newcomer_dials_two_siblings_first_who_lead_to_the_others() -> None:
    me = Played(0, 0b1000_0000)
    me.receive(0b1000_0000, NearPeers([at(k).peer.raw for k in (1, 2, 3, 4)]))
    assert dialed(me) == [1, 2]
    me.handle(events.PeerOpened(at(1).peer))
    assert dialed(me) == [3, 4]


def test_a_newcomer_whose_first_siblings_cannot_be_reached_goes_on_with_the_others() -> None:
    me = Played(0, 0b1000_0000)
    me.receive(0b1000_0000, NearPeers([at(k).peer.raw for k in (1, 2, 3, 4)]))
    assert dialed(me) == [1, 2]
    me.handle(events.ConnectFailed(at(2).peer))
    assert dialed(me) == [3]
