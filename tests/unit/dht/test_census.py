"""The census machine alone, and in simulated overlays that are whole, thinned out, split, and lied in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agent.dht import events
from agent.dht.census import (
    KIND,
    NEIGHBOURS_MAX,
    NONCE_BYTES,
    Answered,
    Ask,
    Census,
    CensusConfig,
    CensusReport,
    Heard,
    Silent,
    Survey,
    _Signed,
    answer,
    parts,
)
from agent.dht.config import DhtConfig
from agent.errors import ProtocolViolation
from agent.identity import PeerId
from tests.sim.engine import World

NONCE = bytes(NONCE_BYTES)


def stamp(peer: PeerId, message: bytes) -> bytes:
    return hashlib.blake2b(message, key=peer.raw, digest_size=16).digest()


def verify(peer: PeerId, message: bytes, signature: bytes) -> bool:
    return signature == stamp(peer, message)


def peer(n: int) -> PeerId:
    return PeerId(n.to_bytes(32, "big"))


def says(who: PeerId, *near: PeerId, held: int = 0, own: int = 0) -> Answered:
    said = msgspec.msgpack.encode(Survey(held, own, [p.raw for p in near]))
    return Answered(who, msgspec.msgpack.encode(_Signed(said, stamp(who, NONCE + said))))


def census(**settings: Any) -> Census:
    expected = settings.pop("expected", ())
    return Census(peer(0), CensusConfig(**settings), expected=expected, nonce=NONCE, verify=verify)


def test_it_asks_whoever_is_named_once_and_never_itself() -> None:
    machine = census()
    assert machine.handle(Heard([peer(1), peer(0)]), 0.0) == [Ask(peer(1), NONCE)]
    assert machine.handle(says(peer(1), peer(0), peer(1), peer(2), held=4, own=1), 1.0) == [Ask(peer(2), NONCE)]
    assert machine.handle(says(peer(2), peer(1), held=4, own=1), 2.0) == []
    assert machine.done
    report = machine.report()
    assert (report.peers, report.silent, report.records, report.replicas) == (2, 0, 2, 4.0)
    assert report.parts == (2,)
    assert report.complete


def test_a_silent_peer_is_asked_again_and_then_not_counted() -> None:
    machine = census(tries_max=2)
    machine.handle(Heard([peer(1)]), 0.0)
    assert machine.handle(Silent(peer(1)), 1.0) == [Ask(peer(1), NONCE)]
    assert machine.handle(Silent(peer(1)), 2.0) == []
    assert (machine.done, machine.report().peers, machine.report().silent) == (True, 0, 1)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x92\xc4\x00\xc4\x00", msgspec.msgpack.encode([b"x" * 5000, b""])])
def test_what_is_no_answer_counts_as_silence(body: bytes) -> None:
    machine = census(tries_max=1)
    machine.handle(Heard([peer(1)]), 0.0)
    machine.handle(Answered(peer(1), body), 1.0)
    assert (machine.report().peers, machine.report().silent) == (0, 1)


def test_nobody_answers_for_another_peer() -> None:
    machine = census(tries_max=1)
    machine.handle(Heard([peer(1)]), 0.0)
    machine.handle(Answered(peer(1), says(peer(9)).body), 1.0)
    assert machine.report().peers == 0


def test_answers_that_were_not_asked_for_are_ignored() -> None:
    machine = census()
    machine.handle(Heard([peer(1)]), 0.0)
    assert machine.handle(says(peer(7), peer(8)), 1.0) == []
    assert machine.handle(Silent(peer(7)), 1.0) == []
    assert machine.report().peers == 0


def test_at_most_so_many_questions_are_under_way() -> None:
    machine = census(asks_max=3)
    assert len(machine.handle(Heard([peer(i) for i in range(1, 9)]), 0.0)) == 3
    assert len(machine.handle(says(peer(1)), 0.0)) == 1


@pytest.mark.parametrize(("heard", "complete"), [(5, True), (6, False)])
def test_more_peers_than_the_limit_are_left_out_and_it_says_so(heard: int, complete: bool) -> None:
    machine = census(peers_max=5)
    asks = machine.handle(Heard([peer(i) for i in range(1, heard + 1)]), 0.0)
    for ask in asks:
        machine.handle(says(ask.peer), 1.0)
    assert machine.done
    assert (machine.report().peers, machine.report().complete) == (5, complete)


def test_a_liar_adds_no_more_than_its_share_of_inventions() -> None:
    machine = census(named_max=2, asks_max=100)
    machine.handle(Heard([peer(1)]), 0.0)
    assert len(machine.handle(says(peer(1), *(peer(i) for i in range(2, 60))), 1.0)) == 2


def test_it_ends_when_its_time_is_up_and_says_that_it_is_not_complete() -> None:
    machine = census(budget_s=10.0)
    machine.handle(Heard([peer(1)]), 5.0)
    assert machine.next_deadline() == 15.0
    assert (machine.tick(14.9), machine.done) == ([], False)
    machine.tick(15.0)
    assert (machine.done, machine.report().complete) == (True, False)


def test_with_nobody_to_ask_it_is_done_at_once() -> None:
    machine = census()
    machine.handle(Heard([]), 0.0)
    assert machine.done
    assert machine.report() == CensusReport(
        peers=0, silent=0, missing=0, records=0, replicas=0.0, parts=(), complete=True, asked=0, seconds=0.0
    )


def test_parts_are_joined_by_either_ends_word() -> None:
    a, b, c, d = map(peer, (1, 2, 3, 4))
    assert parts({a: [b], b: [], c: [d, peer(9)], d: []}) == [{a, b}, {c, d}]


def test_a_census_asks_with_a_nonce_of_its_length() -> None:
    world = World(0)
    node = world.peers[world.add()].node
    with pytest.raises(ProtocolViolation):
        answer(node.core, world.now, peer(0), b"short", lambda said: b"")


# -- in simulated overlays -----------------------------------------------------------------------------------------------


def take(world: World, observer: PeerId, *, expected: list[PeerId] | None = None, **settings: Any) -> CensusReport:
    """What the observer's driver does (agent/net/census.py), on the world's clock."""

    def serve(me: PeerId, origin: PeerId, kind: str, body: bytes) -> tuple[bool, bytes]:
        assert kind == KIND
        return True, answer(world.peers[me].node.core, world.now, origin, body, lambda said: stamp(me, said))

    world.handler = serve
    machine = Census(observer, CensusConfig(**settings), expected=expected or (), nonce=NONCE, verify=verify)

    def came_back(who: PeerId) -> Callable[[Any], None]:
        return lambda result: perform(
            machine.handle(Answered(who, result) if isinstance(result, bytes) else Silent(who), world.now)
        )

    def route_to(ask: Ask) -> Callable[[int], events.Event]:
        return lambda op: events.Route(op, ask.peer, KIND, ask.nonce, 5.0)

    def perform(asks: list[Ask]) -> None:
        for ask in asks:
            world.start(observer, route_to(ask), came_back(ask.peer))

    def over() -> bool:
        perform(machine.tick(world.now))
        return machine.done

    perform(machine.handle(Heard(list(world.peers[observer].links)), world.now))
    world.run_until(over, within_s=120.0)
    return machine.report()


def grown(n: int, seed: int = 0) -> World:
    world = World(seed)
    world.grow(n, gap_s=0.2)
    world.run(20)
    return world


def test_it_counts_every_peer_and_every_record_of_an_overlay() -> None:
    world = grown(120)
    peers = world.alive()
    for i in range(150):
        world.put(peers[i % 60], f"name{i}")
    observer = world.add(via=peers[0])
    world.run(10)
    report = take(world, observer)
    assert (report.peers, report.silent, report.parts, report.complete) == (120, 0, (120,), True)
    assert 147 <= report.records <= 153  # of a record that has just found a closer holder, two say that it is theirs
    assert abs(report.replicas - DhtConfig().replicas) <= 0.5
    assert report.asked == 120


def test_the_dead_are_not_counted() -> None:
    world = grown(60)
    observer = world.alive()[0]
    for dead in world.alive()[40:]:
        world.kill(dead, noticed_after_s=1.0)
    report = take(world, observer)
    assert report.peers == 39
    assert report.parts == (39,)


def test_an_overlay_in_two_halves_is_found_out_by_an_observer_in_between() -> None:
    world = grown(40)
    left, right = world.alive()[:20], world.alive()[20:]
    world.partition(lambda p: int(p in right))
    world.run(60)
    world.heal()
    observer = world.add()
    world.link(observer, left[0])
    world.link(observer, right[0])
    report = take(world, observer)
    assert len(report.parts) == 2  # a few questions took a turn into the wrong half, and nobody there knows the peer
    assert min(report.parts) >= 15


def test_a_part_that_the_observer_cannot_reach_is_missed_if_it_was_expected() -> None:
    world = grown(40)
    left, right = world.alive()[:25], world.alive()[25:]
    world.partition(lambda p: int(p in right))
    world.run(60)
    report = take(world, left[0], expected=left[1:] + right)
    assert (report.peers, report.missing) == (24, 15)


def test_a_large_overlay_takes_one_question_a_peer_and_few_messages() -> None:
    world = grown(150)
    before = world.delivered
    report = take(world, world.alive()[0])
    assert report.peers == 149
    assert report.asked <= 155
    assert world.delivered - before < 149 * 16
    assert report.seconds < 60


def test_a_survey_names_no_more_neighbours_than_its_limit() -> None:
    world = grown(100)
    for p in world.alive():
        signed = msgspec.msgpack.decode(
            answer(world.peers[p].node.core, world.now, peer(0), NONCE, lambda said: b""), type=_Signed
        )
        assert len(msgspec.msgpack.decode(signed.survey, type=Survey).neighbours) <= NEIGHBOURS_MAX
