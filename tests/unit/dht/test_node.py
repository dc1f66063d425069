"""The node's own operations, deliveries, stores and repairs, its neighbours played by the test; keys of 8 bits."""

from __future__ import annotations

import msgspec
import pytest

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import (
    Ack,
    Answer,
    Digest,
    Entry,
    Kind,
    Letter,
    Near,
    NearPeers,
    Offer,
    Ping,
    Pong,
    Request,
    Result,
    Statement,
    Status,
    Store,
    Stored,
    Want,
    decode,
    decode_records,
    decode_statement,
    encode,
)
from agent.dht.records import Record
from agent.dht.statements import receipt
from agent.errors import CallTimeout, NotReachable, ProtocolViolation
from tests.sim.engine import START, CheapSeal, make_record
from tests.unit.dht.peers import SPACE, at
from tests.unit.dht.world import Played, request

FAR = 0b1000_0000


def record(key: int = FAR, owner: int = 5, **changes: object) -> Record:
    return make_record(bytes([key]), at(owner).peer, **{"expires_at": START + 500, **changes})  # type: ignore[arg-type]


def asked(me: Played, kind: Kind) -> list[tuple[int, Request]]:
    return [(target, m) for target, m in me.take(Request) if m.kind == kind]


def answer_get(me: Played, source: int, passed: Request, *records: Record) -> None:
    me.receive(source, Answer(passed.hop, [Result(0, Status.OK, encode(list(records)))]))


@pytest.mark.parametrize(
    "bad",
    [
        msgspec.structs.replace(record(), value=b"forged"),
        record(key=FAR + 1),
        record(expires_at=START - 1),
        record(expires_at=START + 1e9),
        record(value=b"x" * 2049),
    ],
    ids=["forged", "of another key", "expired", "too far ahead", "too large"],
)
def test_bad_records_in_answers_are_never_accepted(bad: Record) -> None:
    me = Played(0, FAR, 1)
    me.handle(events.Get(1, [bytes([FAR])], eager=True))
    [(a, first)] = asked(me, Kind.GET)
    answer_get(me, a, first, bad, record(owner=6))
    me.passes(0.4)
    [result] = me.done()
    assert [r.owner for r in result[bytes([FAR])]] == [at(6).peer]


def test_a_malformed_answer_counts_as_none() -> None:
    me = Played(0, FAR, 1)
    me.handle(events.Get(1, [bytes([FAR])], eager=True))
    [(a, first)] = asked(me, Kind.GET)
    me.receive(a, Answer(first.hop, [Result(0, Status.OK, b"\xff\xff")]))
    me.passes(9)
    [result] = me.done()
    assert result == {}


def test_without_an_answer_further_paths_are_tried_and_then_the_key_is_missing() -> None:
    me = Played(0, FAR, 0b1000_0001, 0b1100_0000, 1)
    me.handle(events.Get(1, [bytes([FAR])], eager=True))
    tried = []
    while not (result := me.done()):
        for target, passed in asked(me, Kind.GET):
            tried.append(target)
            me.receive(target, Ack(passed.hop))
        me.passes(0.5)
        for target in (FAR, 0b1000_0001, 0b1100_0000, 1):
            me.receive(target, Pong(0))
    assert tried[:2] == [FAR, 0b1000_0001]
    assert result == [{}], "not an empty list, which would say that there are none"
    assert me.now - START <= 9


def test_a_write_counts_who_stored_it() -> None:
    me = Played(0, FAR, 1)
    me.handle(events.Put(1, [record()]))
    [(target, passed)] = asked(me, Kind.PUT)
    assert decode_records(passed.items[0].body) == [record()]
    kept = [statement(key, receipt(CheapSeal(at(key).peer), passed.token, [record()])) for key in (FAR, 1)]
    forged = statement(3, receipt(CheapSeal(at(1).peer), passed.token, [record()]))
    me.receive(target, Answer(passed.hop, [*kept, forged, Result(0, Status.OK, b"")]))
    me.passes(9)
    assert me.done() == [[2]]


def statement(key: int, signature: bytes) -> Result:
    return Result(0, Status.STATEMENT, encode(Statement(at(key).peer.raw, [Entry(0)], signature)), True)


def keepers(answer: Answer) -> list[int]:
    """Who signs that it keeps item 0."""
    said = [decode_statement(r.payload) for r in answer.results if r.status == Status.STATEMENT]
    return [SPACE.contact(s.holder).key for s in said if s.entries == [Entry(0)]]


def test_the_root_stores_at_the_replicas_and_says_who_stored() -> None:
    me = Played(0, 1, 2, 4, FAR)
    me.receive(FAR, request(Kind.PUT, 0, body=encode([record(key=0)])))
    sent = me.take()
    stores = {target: m for target, m in sent if isinstance(m, Store)}
    assert set(stores) == {1, 2}, "three replicas in a small overlay, this one among them"
    me.passes(0.3)
    assert [target for target, _ in me.take(Ack)] == [FAR]
    me.receive(1, Stored(stores[1].call, [], b"signed"))
    me.receive(4, Stored(stores[2].call))
    assert me.take(Answer) == []
    me.receive(2, Stored(stores[2].call, [0]))
    [(_, answer)] = me.take(Answer)
    assert keepers(answer) == [0, 1]
    assert decode_statement(answer.results[1].payload).signature == b"signed"


def test_a_holder_signs_what_it_keeps_of_a_write() -> None:
    me = Played(0, 1)
    me.receive(1, Store(5, [record(key=0), record(key=1)], b"t" * 8))
    [(_, stored)] = me.take(Stored)
    assert stored.signature == receipt(CheapSeal(at(0).peer), b"t" * 8, [record(key=0), record(key=1)])
    me.receive(1, Store(6, [record(key=0, sequence=0), record(key=2)], b"t" * 8))
    [(_, stored)] = me.take(Stored)
    assert stored.refused == [0] and stored.signature == receipt(CheapSeal(at(0).peer), b"t" * 8, [record(key=2)])
    me.receive(1, Store(7, [record(key=3)]))
    assert me.take(Stored) == [(1, Stored(7))], "a repair needs no signature"


def test_a_replica_that_does_not_answer_is_not_counted() -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(FAR, request(Kind.PUT, 0, body=encode([record(key=0)])))
    stores = dict(me.take(Store))
    me.receive(1, Stored(stores[1].call))
    me.passes(1.3)
    sent = me.take()
    [answer] = [m for _, m in sent if isinstance(m, Answer)]
    assert keepers(answer) == [0, 1]
    assert 2 in [target for target, m in sent if isinstance(m, Ping)]


@pytest.mark.parametrize("body", [b"", b"\xff", encode([]), encode([record(key=1)]), encode([record(key=0), record(key=0)])])
def test_a_write_that_makes_no_sense_is_stored_nowhere(body: bytes) -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(FAR, request(Kind.PUT, 0, body=body))
    sent = me.take()
    [answer] = [m for _, m in sent if isinstance(m, Answer)]
    assert keepers(answer) == []
    assert not [m for _, m in sent if isinstance(m, Store)]
    assert len(me.node.core.store) == 0


def test_a_message_for_us_is_delivered_once_and_answered_on_every_path() -> None:
    me = Played(0, 1, 2)
    body = at(0).peer.raw + encode(Letter("greet", b"hi"))
    me.receive(1, request(Kind.SEND, 0, hop=3, body=body))
    me.receive(2, request(Kind.SEND, 0, hop=4, body=body, path=1))
    [delivery] = [e for e in me.effects if isinstance(e, events.Deliver)]
    assert (delivery.kind, delivery.body, delivery.origin) == ("greet", b"hi", at(0b0101_0101).peer)
    me.handle(events.Reply(delivery.delivery, True, b"yes"))
    result = Result(0, Status.OK, b"yes")
    assert me.take(Answer) == [(1, Answer(3, [result])), (2, Answer(4, [result]))]
    me.receive(1, request(Kind.SEND, 0, hop=5, body=body, path=2))
    assert me.take(Answer) == [(1, Answer(5, [result]))], "a late copy gets the same answer"
    me.passes(61)
    assert not me.node._deliveries and not me.node._by_place


def test_a_message_for_someone_who_is_not_here_is_refused() -> None:
    me = Played(0, 1)
    me.receive(1, request(Kind.SEND, 2, body=at(2).peer.raw + encode(Letter("greet", b"hi"))))
    [(_, answer)] = me.take(Answer)
    assert answer.results[0].status == Status.NO_PEER


def test_deliveries_are_bounded() -> None:
    me = Played(0, 1, config=DhtConfig(siblings=4, replicas=3, deliveries_max=3))
    for i in range(4):
        wanted = request(Kind.SEND, 0, hop=i, body=at(0).peer.raw + encode(Letter("greet", b"hi")))
        wanted.token = bytes([i]) * 8
        me.receive(1, wanted)
    assert len([e for e in me.effects if isinstance(e, events.Deliver)]) == 3
    [(_, answer)] = me.take(Answer)
    assert answer.results[0] == Result(0, Status.REFUSED, b"overloaded")


def test_routing_to_one_peer_reports_what_became_of_it() -> None:
    me = Played(0, FAR, 1)
    me.handle(events.Route(1, at(FAR + 1).peer, "greet", b"hi", 4.0))
    [(target, passed)] = asked(me, Kind.SEND)
    me.receive(target, Answer(passed.hop, [Result(0, Status.OK, b"yes")]))
    assert me.done() == [b"yes"]
    me.handle(events.Route(2, at(FAR + 1).peer, "greet", b"hi", 4.0))
    for _ in range(3):
        for target, passed in asked(me, Kind.SEND):
            me.receive(target, Answer(passed.hop, [Result(0, Status.NO_PEER, b"")]))
        me.passes(0.3)
    [error] = me.done()
    assert isinstance(error, NotReachable)
    me.handle(events.Route(3, at(FAR + 1).peer, "greet", b"hi", 4.0))
    for target, passed in asked(me, Kind.SEND):
        me.receive(target, Ack(passed.hop))
    for _ in range(5):
        me.passes(1.0)
        for target, passed in asked(me, Kind.SEND):
            me.receive(target, Ack(passed.hop))
    [error] = me.done()
    assert isinstance(error, CallTimeout | NotReachable)


def test_operations_are_bounded() -> None:
    me = Played(0, FAR, config=DhtConfig(siblings=4, replicas=3, operations_max=5))
    for op in range(10):
        me.handle(events.Get(op, [bytes([FAR])]))
    assert len(me.done()) >= 5, "those over the limit end at once, unanswered"
    assert me.node._operations.running == 5
    me.passes(60)
    assert me.node._operations.running <= 5


def test_an_offer_is_taken_up_if_anything_differs() -> None:
    me = Played(0, 1)
    me.receive(1, Store(1, [record(key=0)]))
    assert me.take(Stored) == [(1, Stored(1))]
    digest = me.node.core.store.digest(b"\0", me.now)
    me.receive(1, Offer(9, [Digest(b"\0", digest), Digest(b"\1", b"12345678"), Digest(b"too long", b"")]))
    assert me.take(Want) == [(1, Want(9, [b"\1"]))]
    me.receive(1, Offer(10, [Digest(b"\0", digest)]))
    assert me.take(Want) == []


@pytest.mark.parametrize(("key", "usually"), [(0, {1, 2}), (1, {1, 2}), (2, {1, 2}), (3, {2})])
def test_the_two_closest_holders_offer_to_all_and_the_others_to_the_closest_but_every_third_time(
    key: int, usually: set[int]
) -> None:
    """Three replicas: this node, 1 and 2. This node is closest to 0, second closest to 1 and 2, third to 3."""
    me = Played(0, 1, 2, 64, config=DhtConfig(siblings=4, replicas=3, small_overlay=1))
    me.receive(1, Store(1, [record(key=key, expires_at=START + 5000)]))
    me.take()
    passes: list[set[int]] = []
    for _ in range(500):
        me.passes(1)
        if offered := {peer for peer, offer in me.take(Offer) if offer.entries[0].key == bytes([key])}:
            passes.append(offered)
    assert passes[:6] == [{1, 2}, usually, usually] * 2


def test_only_what_was_offered_is_given_and_once() -> None:
    me = Played(0, 1, 2)
    me.receive(1, Store(1, [record(key=0), record(key=1)]))
    me.take()
    me.passes(100)
    offers = dict(me.take(Offer))
    assert set(offers) == {1, 2}
    me.receive(1, Want(offers[2].call, [b"\0"]))
    me.receive(2, Want(offers[2].call, [b"\7", b"\0", b"\0"]))
    assert [(t, [r.key for r in m.records]) for t, m in me.take(Store)] == [(2, [b"\0"])]
    me.receive(2, Want(offers[2].call, [b"\0"]))
    assert me.take(Store) == []


def test_neighbours_are_named_to_a_sibling() -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(1, Near(True))
    [(target, near)] = me.take(NearPeers)
    assert (target, near.peers) == (1, [at(2).peer.raw, at(FAR).peer.raw])
    me.receive(1, Near(False))
    assert me.take(NearPeers) == []
    me.receive(1, Ping(3))
    assert me.take(Pong) == [(1, Pong(3))]


def test_named_peers_that_belong_among_our_siblings_are_dialed_and_failures_back_off() -> None:
    me = Played(0, 1)

    def dialed() -> list[int]:
        found = [e.peer for e in me.effects if isinstance(e, events.Connect)]
        me.effects.clear()
        return [k for k in range(256) if at(k).peer in found]

    me.receive(1, NearPeers([at(2).peer.raw, at(3).peer.raw, at(0).peer.raw, at(1).peer.raw]))
    assert dialed() == [2, 3]
    me.receive(1, NearPeers([at(2).peer.raw]))
    assert dialed() == [], "it is being dialed"
    me.handle(events.ConnectFailed(at(2).peer))
    me.receive(1, NearPeers([at(2).peer.raw]))
    assert dialed() == [], "not so soon again"
    me.passes(1.3)
    me.receive(1, NearPeers([at(2).peer.raw]))
    assert dialed() == [2]


def test_dials_are_bounded_and_given_up() -> None:
    me = Played(0, 1, config=DhtConfig(siblings=8, dials_max=3))
    me.receive(1, NearPeers([at(k).peer.raw for k in range(2, 12)]))
    assert len([e for e in me.effects if isinstance(e, events.Connect)]) == 3
    me.effects.clear()
    me.passes(31)
    assert len([e for e in me.effects if isinstance(e, events.Connect)]) >= 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x63",
        b"\x92\x01",
        encode(Ack(1)) + b"\0",
        b"\x92\x02\xff",
        b"\x92\x02\xa1x",
        b"\x93" * 5000,
        b"\x91" * 16_385,
        encode(Ack(1)).ljust(16_385, b"\0"),
    ],
)
def test_nonsense_is_a_protocol_violation_and_changes_nothing(data: bytes) -> None:
    me = Played(0, 1)
    with pytest.raises(ProtocolViolation):
        me.handle(events.Received(at(1).peer, data))
    assert me.effects == []


@pytest.mark.parametrize(
    "message",
    [
        request(Kind.FIND, *([0] * 257)),
        request(Kind.FIND),
        request(Kind.FIND, 0, avoid=[1, 2, 3, 4, 5]),
        NearPeers([b"p" * 32] * 65),
        NearPeers([b"p" * 31]),
        Store(1, []),
        Ack(2**32),
        Ack(-1),
    ],
)
def test_messages_beyond_their_limits_are_refused(message: object) -> None:
    with pytest.raises(ProtocolViolation):
        decode(encode(message))


def test_a_callers_mistakes_are_named() -> None:
    me = Played(0, 1)
    for event in (
        events.Get(1, [b"\0\0"]),
        events.Find(1, b""),
        events.Put(1, [make_record(b"\0\0", at(5).peer, expires_at=START + 5)]),
        events.Route(1, at(5).peer, "k" * 65, b"", 1.0),
        events.Route(1, at(5).peer, "k", b"x" * (14 * 1024 + 1), 1.0),
        events.Reply(1, True, b"x" * (14 * 1024 + 1)),
    ):
        with pytest.raises(ValueError):
            me.handle(event)
