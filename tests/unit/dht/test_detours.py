"""A request whose way ends far from its key takes another one, a bounded number of times."""

from __future__ import annotations

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import Answer, Item, Kind, Request, Result, Status, encode
from tests.sim.engine import make_record
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

FAR = 0b1111_0000
TWO = DhtConfig(
    siblings=2,
    replicas=2,
    replicas_small=2,
    links_max=8,
    read_paths=1,
    write_paths=1,
    read_confirmations=1,
    write_confirmations=1,
)


def relayed(me: Played) -> Request:
    """The request of a neighbour that `me` passes on."""
    token, origin = b"12345678", at(0b0100_0000).peer.raw
    me.receive(1, Request(7, token, Kind.GET, 0, 20, 5000, origin, [Item(0, bytes([FAR]))]))
    [(_, passed_on)] = me.take(Request)
    return passed_on


def test_another_way_is_tried_and_then_the_answer_goes_back_marked() -> None:
    me = Played(0, 1, 2, 0b1110_0000, 0b1100_0000, config=TWO)
    first = relayed(me)
    me.receive(0b1110_0000, Answer(first.hop, [Result(0, Status.LOST_WAY, encode([]))]))
    [(neighbour, second)] = me.take(Request)
    assert neighbour == 0b1100_0000
    me.receive(neighbour, Answer(second.hop, [Result(0, Status.LOST_WAY, encode([]))]))
    [(neighbour, answer)] = me.take(Answer)
    assert neighbour == 1 and [r.status for r in answer.results] == [Status.DEAD_END]


def test_what_others_have_tried_already_is_not_tried_again() -> None:
    me = Played(0, 1, 2, 0b1110_0000, 0b1100_0000, config=TWO)
    first = relayed(me)
    me.receive(0b1110_0000, Answer(first.hop, [Result(0, Status.DEAD_END, encode([]))]))
    assert not me.take(Request)


def test_a_node_that_knows_nobody_closer_says_whether_it_is_near() -> None:
    me = Played(0, 1, 2, 3, config=TWO)
    me.receive(1, Request(9, b"12345678", Kind.GET, 0, 20, 5000, at(64).peer.raw, [Item(0, bytes([FAR])), Item(1, b"\x04")]))
    statuses = {r.index: r.status for _, answer in me.take(Answer) for r in answer.results}
    assert statuses == {0: Status.LOST_WAY, 1: Status.OK}


def test_a_forged_record_ends_the_path_that_brought_it() -> None:
    me = Played(0, FAR, 0b1000_0001)
    me.handle(events.Get(1, [bytes([FAR])], eager=True))
    [(neighbour, first)] = me.take(Request)
    forged = make_record(bytes([FAR]), at(5).peer, b"v", expires_at=me.now + 60)
    forged = type(forged)(*(getattr(forged, name) for name in forged.__struct_fields__[:-1]), b"not it")
    me.receive(neighbour, Answer(first.hop, [Result(0, Status.OK, encode([forged]))]))
    me.passes(0.1)
    assert me.take(Request), "another path is tried at once"
