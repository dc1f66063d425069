"""Noticing that the overlay is split, and coming over."""

from __future__ import annotations

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import Bridge
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

ELSEWHERE = 200


def contacts(played: Played) -> list[events.Contact]:
    return [e for e in played.effects if isinstance(e, events.Contact)]


def test_an_entrance_that_the_overlay_does_not_find_is_contacted_from_outside() -> None:
    me = Played(0, 1, 128)
    me.handle(events.Entrances([at(ELSEWHERE).peer, at(0).peer]))
    me.passes(200)
    assert contacts(me)[0] == events.Contact(at(ELSEWHERE).peer)


def test_an_entrance_that_is_connected_is_not() -> None:
    me = Played(0, 1, 128)
    me.handle(events.Entrances([at(128).peer]))
    me.passes(400)
    assert not contacts(me)


def test_who_has_come_over_tells_its_neighbours_once() -> None:
    me = Played(0, 1, 128)
    me.handle(events.Entrances([at(ELSEWHERE).peer]))
    while not contacts(me):
        me.passes(1)
    me.take()
    me.handle(events.PeerOpened(at(ELSEWHERE).peer))
    me.passes(4)
    told = me.take(Bridge)
    assert {key for key, _ in told} == {1, 128}
    assert {message.peer for _, message in told} == {at(ELSEWHERE).peer.raw}
    me.passes(30)
    assert not me.take(Bridge)


def test_a_connection_that_was_not_awaited_is_no_bridge() -> None:
    me = Played(0, 1, 128)
    me.handle(events.PeerOpened(at(ELSEWHERE).peer))
    me.passes(10)
    assert not me.take(Bridge)


def test_news_of_a_bridge_are_believed_only_if_that_peer_is_not_found_here() -> None:
    me = Played(0, 1, 128)
    me.take()
    me.receive(128, Bridge(at(ELSEWHERE).peer.raw))
    me.passes(1)
    assert events.Connect(at(ELSEWHERE).peer) in me.effects


def test_a_liar_cannot_make_us_dial_more_often_than_a_few_times_a_minute() -> None:
    me = Played(0, 1, 128)
    for key in range(100, 120):
        me.receive(128, Bridge(at(key).peer.raw))
        me.passes(0.5)
    dialed = [e.peer for e in me.effects if isinstance(e, events.Connect)]
    assert dialed == [at(100).peer, at(101).peer]
    me.receive(1, Bridge(at(ELSEWHERE).peer.raw))
    me.passes(1)
    assert events.Connect(at(ELSEWHERE).peer) in me.effects, "others are still heard"
    me.passes(70)
    me.receive(128, Bridge(at(121).peer.raw))
    me.passes(1)
    assert events.Connect(at(121).peer) in me.effects


def test_whoever_is_dialed_through_a_liar_and_does_not_answer_is_no_bridge() -> None:
    me = Played(0, 1, 128)
    me.receive(128, Bridge(at(ELSEWHERE).peer.raw))
    me.passes(1)
    me.handle(events.ConnectFailed(at(ELSEWHERE).peer))
    me.passes(10)
    assert not me.take(Bridge) and me.node._reunion.crossed == 0


def test_who_has_few_connections_looks_sooner_since_few_others_look() -> None:
    config = DhtConfig(siblings=4, replicas=3, read_paths=1, write_paths=1, read_confirmations=1, write_confirmations=1)
    for links, at_least, at_most in ((1, 7.5, 22.5), (10, 15, 45), (40, 60, 180), (60, 60, 180)):
        me = Played(0, *range(1, 1 + links), config=config)
        me.handle(events.Entrances([at(ELSEWHERE).peer]))
        me.passes(200)  # what was set before there were connections is over
        for _ in range(3):
            me.effects.clear()
            began = me.now
            while not contacts(me):
                me.passes(0.5)
            me.handle(events.ConnectFailed(at(ELSEWHERE).peer))
            assert me.now - began <= at_most + 0.5
        if links == 40:
            me.effects.clear()
            me.passes(at_least - 1)
            assert not contacts(me)
