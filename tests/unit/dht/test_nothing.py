"""Remembering for a moment that nothing was there."""

from __future__ import annotations

import pytest

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import Answer, Kind, Request, Result, Status, Store, encode
from agent.dht.nothing import Nothing
from tests.sim.engine import make_record
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

FAR = 0b1000_0000
KEY = bytes([FAR])


def reads(me: Played) -> list[tuple[int, Request]]:
    return [(target, m) for target, m in me.take(Request) if m.kind in (Kind.GET, Kind.READ)]


def found_empty(me: Played) -> None:
    """An eager read that finds nothing."""
    me.handle(events.Get(1, [KEY], eager=True))
    [(target, passed)] = reads(me)
    me.receive(target, Answer(passed.hop, [Result(0, Status.OK, encode([]))]))
    assert me.done() == [{KEY: []}]


def test_an_empty_key_is_not_asked_for_again_at_once_but_after_a_moment() -> None:
    me = Played(0, FAR, 1)
    found_empty(me)
    me.handle(events.Get(2, [KEY], eager=True))
    assert me.done() == [{KEY: []}] and not reads(me)
    assert me.node.core.nothing.spared == 1
    me.passes(3.1)
    me.handle(events.Get(3, [KEY], eager=True))
    assert len(reads(me)) == 1


def test_a_careful_read_always_asks() -> None:
    me = Played(0, FAR, 1)
    found_empty(me)
    me.handle(events.Get(2, [KEY]))
    assert len(reads(me)) == 1


def test_keys_that_are_known_to_be_empty_are_left_out_of_a_bulk_read() -> None:
    me = Played(0, FAR, 1)
    found_empty(me)
    me.handle(events.Get(2, [KEY, bytes([FAR + 1])], eager=True))
    [(target, passed)] = reads(me)
    assert [item.key for item in passed.items] == [bytes([FAR + 1])]
    record = make_record(bytes([FAR + 1]), at(5).peer, expires_at=me.now + 60)
    me.receive(target, Answer(passed.hop, [Result(0, Status.OK, encode([record]))]))
    assert me.done() == [{KEY: [], bytes([FAR + 1]): [record]}]


@pytest.mark.parametrize("own", [True, False])
def test_a_write_of_our_own_and_a_record_that_we_keep_end_it(own: bool) -> None:
    me = Played(0, FAR, 1)
    record = make_record(KEY, at(5).peer, expires_at=me.now + 60)
    found_empty(me)
    if own:
        me.handle(events.Put(9, [record]))
    else:
        me.receive(1, Store(4, [record]))
    me.take()
    me.handle(events.Get(2, [KEY], eager=True))
    assert reads(me)


def test_it_is_bounded() -> None:
    nothing = Nothing(DhtConfig(nothing_max=3))
    for key in range(5):
        nothing.note(bytes([key]), 0.0)
    assert len(nothing) == 3
    assert not nothing.holds(b"\1", 0.0) and nothing.holds(b"\4", 2.9) and not nothing.holds(b"\4", 3.0)
    assert len(nothing) == 2
