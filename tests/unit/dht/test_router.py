"""One hop, its neighbours played by the test; keys of 8 bits, our own is 0."""

from __future__ import annotations

import pytest

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import Ack, Answer, Kind, Ping, Pong, Request, Result, Status, decode_peers, encode
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played, request

FAR, FURTHER, FURTHEST = 0b1000_0000, 0b1100_0000, 0b1110_0000


def test_a_request_goes_to_the_connected_peer_closest_to_the_key() -> None:
    me = Played(0, FAR, FURTHER, 1)
    me.receive(1, request(Kind.FIND, FURTHEST))
    [(target, passed)] = me.take(Request)
    assert target == FURTHER
    assert passed.hops_left == 8


def test_it_is_acknowledged_when_passed_on_and_answered_when_nobody_is_closer() -> None:
    me = Played(0, FAR, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, hop=3))
    me.passes(0.2)
    assert me.take(Ack) == [], "the answer may come yet"
    me.passes(0.1)
    assert me.take(Ack) == [(1, Ack(3))]
    me.receive(FAR, request(Kind.FIND, 0, hop=4))
    [(target, answer)] = me.take(Answer)
    assert (target, answer.hop) == (FAR, 4)
    assert [at(k).peer.raw for k in (0, 1, FAR)] == decode_peers(answer.results[0].payload)
    me.passes(1.0)
    assert me.take(Ack) == []


def test_an_answer_within_the_delay_stands_for_the_acknowledgement() -> None:
    me = Played(0, FAR, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, hop=3))
    [(_, passed)] = me.take(Request)
    me.passes(0.2)
    me.receive(FAR, Answer(passed.hop, [Result(0, Status.OK, encode([]))]))
    me.passes(1.0)
    assert [m.hop for _, m in me.take(Answer)] == [3] and me.take(Ack) == []


def test_a_bulk_request_splits_where_its_keys_part() -> None:
    me = Played(0, FAR, 0b0100_0000, 1)
    me.receive(1, request(Kind.FIND, 0b1000_0001, 0b0100_0001, 0b1000_0010, 0))
    sent = me.take()
    passed = {target: [i.index for i in m.items] for target, m in sent if isinstance(m, Request)}
    assert passed == {FAR: [0, 2], 0b0100_0000: [1]}
    assert [r.index for target, m in sent if isinstance(m, Answer) for r in m.results] == [3]


def test_answers_go_back_the_way_the_request_came() -> None:
    me = Played(0, FAR, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, hop=3))
    [(_, passed)] = me.take(Request)
    result = Result(0, Status.OK, encode([b"p" * 32]))
    me.receive(FAR, Answer(passed.hop, [result]))
    assert me.take(Answer) == [(1, Answer(3, [result]))]
    me.receive(FAR, Answer(passed.hop, [result]))
    assert me.take(Answer) == [], "it was answered"


def test_only_whom_we_asked_may_answer_and_only_what_we_asked() -> None:
    me = Played(0, FAR, 1, 2)
    me.receive(1, request(Kind.FIND, FURTHEST))
    [(_, passed)] = me.take(Request)
    me.receive(2, Answer(passed.hop, [Result(0, Status.OK, encode([]))]))
    me.receive(FAR, Answer(passed.hop, [Result(9, Status.OK, encode([]))]))
    me.receive(FAR, Answer(passed.hop + 1, [Result(0, Status.OK, encode([]))]))
    me.receive(2, Ack(passed.hop))
    assert me.take(Answer) == []


def test_a_hop_that_does_not_acknowledge_is_passed_over() -> None:
    me = Played(0, FAR, FURTHER, 1)
    me.receive(1, request(Kind.FIND, FURTHEST))
    assert [t for t, _ in me.take(Request)] == [FURTHER]
    me.passes(1.3)
    sent = me.take()
    [(target, again)] = [(t, m) for t, m in sent if isinstance(m, Request)]
    assert target == FAR
    assert again.avoid == [at(FURTHER).peer.raw]
    assert [t for t, m in sent if isinstance(m, Ping)] == [FURTHER]
    me.receive(1, request(Kind.FIND, FURTHEST, hop=8))
    assert [t for t, _ in me.take(Request)] == [FAR], "it stays under suspicion"
    me.receive(FURTHER, Pong(0))
    me.receive(1, request(Kind.FIND, FURTHEST, hop=9))
    assert [t for t, _ in me.take(Request)] == [FURTHER], "until it speaks"


def test_when_a_hop_closes_what_it_has_not_answered_goes_another_way() -> None:
    me = Played(0, FAR, FURTHER, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, 0b1110_0001))
    [(_, passed)] = me.take(Request)
    me.receive(FURTHER, Ack(passed.hop))
    me.receive(FURTHER, Answer(passed.hop, [Result(0, Status.OK, encode([]))]))
    me.take()
    me.handle(events.PeerClosed(at(FURTHER).peer))
    [(target, again)] = [(t, m) for t, m in me.take(Request)]
    assert target == FAR
    assert [i.index for i in again.items] == [1]


def test_the_peers_to_avoid_are_avoided() -> None:
    me = Played(0, FAR, FURTHER, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, avoid=[FURTHER]))
    assert [t for t, _ in me.take(Request)] == [FAR]


def test_a_second_path_takes_another_way_if_there_is_one() -> None:
    me = Played(0, FAR, FURTHER, 1, 2)
    me.receive(1, request(Kind.FIND, FURTHEST, path=0))
    me.receive(2, request(Kind.FIND, FURTHEST, path=1))
    assert [t for t, _ in me.take(Request)] == [FURTHER, FAR]


def test_the_last_hop_answers() -> None:
    me = Played(0, FAR, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, hops_left=0))
    [(target, answer)] = me.take()
    assert target == 1 and isinstance(answer, Answer)


@pytest.mark.parametrize(
    ("kind", "path", "target"),
    [(Kind.READ, 1, 1), (Kind.READ, 2, 2), (Kind.READ, 4, 0), (Kind.READ, 7, 3), (Kind.READ, 8, 3), (Kind.READ, 9, 4)]
    + [(Kind.GET, 7, 1), (Kind.GET, 8, 2), (Kind.PUT, 7, 1)],
)
def test_paths_end_at_different_holders_and_late_ones_of_a_careful_read_next_to_them(kind: Kind, path: int, target: int) -> None:
    """Of key 0 the holders are 0, 1 and 2; at path 4 one more peer counts, at path 8 two."""
    me = Played(0, 1, 2, 3, 4, 5, FAR)
    me.receive(FAR, request(kind, 0, path=path))
    assert [to for to, _ in me.take(Request)] == ([target] if target else [])


def test_a_request_never_goes_back_to_its_origin() -> None:
    """A joiner asks for its own key: nobody is closer to it than itself."""
    me = Played(0, FAR)
    me.receive(FAR, request(Kind.FIND, FAR, origin=at(FAR)))
    [(_, answer)] = me.take(Answer)
    assert decode_peers(answer.results[0].payload) == [at(0).peer.raw]


@pytest.mark.parametrize("limit", ["relays_max", "relays_per_peer_max"])
def test_relays_are_bounded(limit: str) -> None:
    me = Played(0, FAR, 1, 2, config=DhtConfig(siblings=4, replicas=3, **{limit: 20}))
    for hop in range(40):
        me.receive(1, request(Kind.FIND, FURTHEST, hop=hop))
    me.receive(2, request(Kind.FIND, FURTHEST, hop=40))
    me.passes(0.3)
    acked = [m.hop for _, m in me.take(Ack) if m.hop < 40]
    me.receive(2, request(Kind.FIND, FURTHEST, hop=41))
    me.passes(0.3)
    assert acked == list(range(20)), "what is over the limit is dropped unacknowledged"
    assert len(me.take(Ack)) == (0 if limit == "relays_max" else 1)


def test_relays_are_forgotten_when_their_time_is_over() -> None:
    me = Played(0, FAR, 1)
    for hop in range(50):
        me.receive(1, request(Kind.FIND, FURTHEST, hop=hop))
    for _, passed in me.take(Request):
        me.receive(FAR, Ack(passed.hop))
    assert me.node._router.relaying == 50
    me.handle(events.PeerClosed(at(1).peer))
    me.passes(6.0)
    me.handle(events.PeerClosed(at(FAR).peer))
    me.passes(10.0)
    assert me.node._router.relaying == 0
    assert not me.node._router._per_source


def test_requests_that_make_no_sense_are_dropped() -> None:
    me = Played(0, FAR, 1)
    me.receive(1, request(Kind.FIND, FURTHEST, origin=at(0)))
    wrong = request(Kind.FIND, FURTHEST)
    wrong.items[0].key = b"\0\0"
    me.receive(1, wrong)
    assert me.take() == []


def test_messages_of_strangers_are_ignored() -> None:
    me = Played(0, 1)
    me.receive(FAR, request(Kind.FIND, 0))
    assert me.take() == []
