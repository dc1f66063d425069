"""How far siblings reach, as neighbours tell; keys of 8 bits, so that a reach of 2**k is told as 16 k."""

from __future__ import annotations

from collections.abc import Iterable

from agent.dht import density, events
from agent.dht.config import DhtConfig
from agent.dht.density import STEPS, TELLERS_MIN, TOLD_S, usual_reach
from agent.dht.messages import Answer, Kind, NearPeers, Request, Result, Seek, Status, encode
from agent.dht.routing_table import FAR
from tests.sim.engine import make_record
from tests.unit.dht.peers import at
from tests.unit.dht.test_careful_reads import answer, reading, spoken
from tests.unit.dht.world import Played, request

CLOSE = (1, 2, 3, 4)  # four siblings: our own reach is 4
OTHERS = tuple(range(0b0100_0000, 0b0100_0000 + TELLERS_MIN))
KEY = 0b1000_0000
HOLDERS = (KEY + 30, KEY + 40, KEY + 50)


def played() -> Played:
    return Played(0, *CLOSE, *OTHERS, KEY, config=DhtConfig(siblings=4, replicas=3, read_confirmations=1))


def tell(me: Played, tellers: Iterable[int], reach_log2: float) -> None:
    for teller in tellers:
        me.receive(teller, NearPeers([], round(STEPS * reach_log2)))


def usual(me: Played) -> int | None:
    reach, is_sure = usual_reach(me.node.core.table, me.now)
    return reach if is_sure else None


def test_it_takes_enough_neighbours_that_are_not_our_siblings() -> None:
    me = played()
    tell(me, CLOSE, 7)
    tell(me, OTHERS[1:], 5)
    assert usual(me) is None
    tell(me, OTHERS[:1], 5)
    assert usual(me) == 32


def test_until_then_siblings_and_we_ourselves_count_too() -> None:
    me = played()
    assert usual_reach(me.node.core.table, me.now) == (4, False), "only our own is known"
    tell(me, CLOSE[:2], 5)
    assert usual_reach(me.node.core.table, me.now) == (32, False), "the median of three"
    assert usual_reach(Played(0, 1).node.core.table, me.now) == (FAR, False)


def test_less_than_half_of_them_cannot_move_it_away_from_what_the_honest_say() -> None:
    me = played()
    tell(me, OTHERS[:3], 8)
    tell(me, OTHERS[3:5], 5)
    tell(me, OTHERS[5:], 5.5)
    assert usual(me) in (32, 45)
    tell(me, OTHERS[:3], 0.1)
    assert usual(me) in (32, 45)


def test_what_was_told_long_ago_does_not_count_nor_does_not_knowing() -> None:
    me = played()
    tell(me, OTHERS, 5)
    me.receive(OTHERS[0], NearPeers([], 0))
    assert usual(me) == 32
    me.now += TOLD_S + 1
    me.receive(OTHERS[0], NearPeers([], 0))
    assert usual(me) is None


def test_answers_of_all_kinds_tell_our_own() -> None:
    me = played()
    mine = density.told(me.node.core.table)
    assert mine == 2 * STEPS
    me.receive(OTHERS[0], Seek([bytes([KEY])]))
    me.receive(OTHERS[1], request(Kind.GET, 0))
    told = [message for _, message in me.take() if isinstance(message, (NearPeers, Answer))]
    assert [(type(message), message.reach) for message in told] == [(NearPeers, mine), (Answer, mine)]
    assert density.told(Played(0, 1).node.core.table) == 0, "one sibling says nothing about others"


def test_an_answer_tells_as_well() -> None:
    me = played()
    me.handle(events.Get(1, [bytes([KEY])], eager=True))
    asked = me.take(Request)
    assert asked
    for neighbour, passed in asked:
        me.receive(neighbour, Answer(passed.hop, [Result(0, Status.OK, encode([]))], 40))
        assert me.node.core.table.connected[at(neighbour).peer].reach == 40


def answers(told: float, holders: Iterable[int]) -> list[int]:
    """How many keys a careful read of KEY is sure of, if others tell that and these sign on every path."""
    me = played()
    record = make_record(bytes([KEY]), at(5).peer, expires_at=me.now + 500)
    tell(me, OTHERS, told)
    me.handle(events.Get(1, [bytes([KEY])]))
    for neighbour, passed in reading(me):
        answer(me, neighbour, passed, [spoken(h, passed, [record]) for h in holders], record)
    return [len(result) for result in me.done()]


def test_a_reader_where_peers_are_dense_counts_holders_by_what_others_tell() -> None:
    """Four peers live within 4 of us; holders 30 to 50 from their key are far off by that, and near by what others tell."""
    assert answers(5, HOLDERS) == [1]
    assert answers(2, HOLDERS) == [0]


def test_in_a_small_overlay_everybody_is_close() -> None:
    """Siblings reach over a quarter of all keys: there may be sixteen peers, and any of them may be a holder."""
    assert answers(6, OTHERS[:3]) == [1]
    assert answers(5.9, OTHERS[:3]) == [0]
