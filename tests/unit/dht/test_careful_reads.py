"""Careful reads: holders sign, the reader counts who has; neighbours played by the test, keys of 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pytest

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import (
    Ack,
    Answer,
    Attest,
    Attested,
    Claim,
    Entry,
    Kind,
    Request,
    Result,
    Statement,
    Status,
    Store,
    decode_records,
    decode_statement,
    encode,
)
from agent.dht.records import Record
from agent.dht.statements import Subject, said, signed, stamp, stamps
from tests.sim.engine import START, CheapSeal, make_record
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played, request

FAR = 0b1000_0000
KEY = bytes([FAR])
HOLDERS = (FAR, FAR + 1, FAR + 2)
THREE_PATHS = DhtConfig(siblings=4, replicas=3, read_confirmations=3)


def record(key: int = FAR, owner: int = 5, **changes: object) -> Record:
    return make_record(bytes([key]), at(owner).peer, **{"expires_at": START + 500, **changes})  # type: ignore[arg-type]


def asked(me: Played) -> list[tuple[int, Request]]:
    return [(target, m) for target, m in me.take(Request) if m.kind == Kind.READ]


def spoken(holder: int, passed: Request, listed: Sequence[Record], *extra: Record, by: int | None = None) -> Result:
    """The statement of a holder about item 0; `by`: who signs in its place."""
    seal = CheapSeal(at(holder if by is None else by).peer)
    bare = Statement(at(holder).peer.raw, [Entry(0, list(extra))])
    return Result(0, Status.STATEMENT, encode(signed(seal, bare, passed.token, [(KEY, stamps(listed), stamps(extra))])), True)


def answer(me: Played, source: int, passed: Request, statements: Sequence[Result], *records: Record) -> None:
    me.receive(source, Answer(passed.hop, [*statements, Result(0, Status.OK, encode(list(records)))]))


def reading(me: Played) -> Iterator[tuple[int, Request]]:
    """Each path that the read takes, in turn."""
    for _ in range(40):
        yield from asked(me)
        me.passes(0.4)


def test_a_read_ends_when_all_holders_have_signed_and_the_paths_confirm_it() -> None:
    me = Played(0, *HOLDERS, 1, 2, config=THREE_PATHS)
    me.handle(events.Get(1, [KEY]))
    paths = asked(me)
    assert paths[0][0] == FAR and len({neighbour for neighbour, _ in paths}) == 3
    assert len({passed.token for _, passed in paths}) == 1
    for neighbour, passed in paths[:2]:
        answer(me, neighbour, passed, [spoken(h, passed, [record()]) for h in HOLDERS], record())
    assert me.done() == []
    neighbour, passed = paths[2]
    answer(me, neighbour, passed, [spoken(FAR + 1, passed, [record()])], record())
    assert me.done() == [{KEY: [record()]}]


def test_what_a_holder_has_besides_counts_if_it_is_newer() -> None:
    old, new = record(sequence=1), record(sequence=2)
    me = Played(0, *HOLDERS, 1)
    me.handle(events.Get(1, [KEY]))
    [(a, first)] = asked(me)
    answer(me, a, first, [spoken(FAR, first, [old]), spoken(FAR + 1, first, [old], new), spoken(FAR + 2, first, [old])], old)
    assert me.done() == [{KEY: [new]}]


def test_nothing_there_is_signed_too() -> None:
    me = Played(0, *HOLDERS, 1)
    me.handle(events.Get(1, [KEY]))
    [(a, first)] = asked(me)
    answer(me, a, first, [spoken(h, first, []) for h in HOLDERS])
    assert me.done() == [{KEY: []}]


@pytest.mark.parametrize("trick", ["unsigned", "in another's name", "of another list", "of another search", "with a forgery"])
def test_what_holders_have_not_signed_does_not_count(trick: str) -> None:
    forged = msgspec.structs.replace(record(sequence=9), value=b"forged")
    me = Played(0, *HOLDERS, 1)
    me.handle(events.Get(1, [KEY]))
    for neighbour, passed in reading(me):
        other = Request(**{name: getattr(passed, name) for name in passed.__struct_fields__} | {"token": b"another!"})
        statements = {
            "unsigned": [],
            "in another's name": [spoken(h, passed, [record()], by=1) for h in HOLDERS],
            "of another list": [spoken(h, passed, []) for h in HOLDERS],
            "of another search": [spoken(h, other, [record()]) for h in HOLDERS],
            "with a forgery": [spoken(h, passed, [record()], forged) for h in HOLDERS],
        }[trick]
        answer(me, neighbour, passed, statements, record())
    assert me.done() == [{}], "not a list, which would say that it is known"


def test_each_holder_that_is_missing_takes_one_more_path_and_the_first_of_them_two() -> None:
    me = Played(0, *HOLDERS, 1, 2)
    me.handle(events.Get(1, [KEY]))
    for path, (neighbour, passed) in enumerate(reading(me)):
        assert me.done() == []
        answer(me, neighbour, passed, [spoken(h, passed, [record()]) for h in HOLDERS[:2]], record())
        if path == 2:
            break
    assert me.done() == [{KEY: [record()]}]


def test_one_holder_of_three_is_never_enough() -> None:
    me = Played(0, *HOLDERS, 1, 2)
    me.handle(events.Get(1, [KEY]))
    for neighbour, passed in reading(me):
        answer(me, neighbour, passed, [spoken(FAR, passed, [record()])], record())
    me.passes(13)
    assert me.done() == [{}]


def test_three_that_sign_each_on_a_path_of_its_own_are_not_half_of_the_holders() -> None:
    """Three of five holders lie, and none has another sign what it answers."""
    me = Played(0, *HOLDERS, FAR + 3, FAR + 4, 1, 2, config=DhtConfig(siblings=5, replicas=5))
    me.handle(events.Get(1, [KEY]))
    for path, (neighbour, passed) in enumerate(reading(me)):
        answer(me, neighbour, passed, [spoken(HOLDERS[path % 3], passed, [record()])], record())
    assert me.done() == [{}]
    me.handle(events.Get(2, [KEY]))
    for path, (neighbour, passed) in enumerate(reading(me)):
        together = HOLDERS if path == 3 else (HOLDERS[path % 3],)
        answer(me, neighbour, passed, [spoken(holder, passed, [record()]) for holder in together], record())
    assert me.done() == [{KEY: [record()]}]


def test_signers_far_from_the_key_do_not_shorten_a_read() -> None:
    """Around us peers lie one apart; those that sign lie a hundred from the key."""
    me = Played(0b1111_1111, *range(0b1111_1000, 0b1111_1111), 0, config=DhtConfig(siblings=4, replicas=3, read_confirmations=1))
    me.handle(events.Get(1, [bytes([0])]))
    [(neighbour, passed)] = asked(me)
    key = b"\0"
    far = (100, 110, 120)
    results = []
    for holder in far:
        bare = Statement(at(holder).peer.raw, [Entry(0)])
        statement = signed(CheapSeal(at(holder).peer), bare, passed.token, [(key, b"", b"")])
        results.append(Result(0, Status.STATEMENT, encode(statement), True))
    me.receive(neighbour, Answer(passed.hop, [*results, Result(0, Status.OK, encode([]))]))
    assert me.done() == []
    me.passes(0.1)
    assert asked(me), "another path is tried at once"


@pytest.mark.parametrize(
    ("each", "outcome"),
    [
        ([(30, 35, 40)], [{b"\0": []}]),  # the holders, together on every path
        ([(30,), (35,), (40,)], [{}]),  # liars, each alone on its paths
        ([(100, 110, 120)], [{}]),  # together, but further off than anybody counts
    ],
)
def test_in_a_dense_place_far_holders_are_believed_if_they_sign_together(each: list[tuple[int, ...]], outcome: object) -> None:
    """Around us peers lie one apart: those that sign lie too far from the key to be counted singly."""
    me = Played(0b1111_1111, *range(0b1111_1000, 0b1111_1111), 0, config=DhtConfig(siblings=4, replicas=3))
    me.handle(events.Get(1, [b"\0"]))
    for path, (neighbour, passed) in enumerate(reading(me)):
        results = []
        for holder in each[path % len(each)]:
            statement = signed(
                CheapSeal(at(holder).peer), Statement(at(holder).peer.raw, [Entry(0)]), passed.token, [(b"\0", b"", b"")]
            )
            results.append(Result(0, Status.STATEMENT, encode(statement), True))
        me.receive(neighbour, Answer(passed.hop, [*results, Result(0, Status.OK, encode([]))]))
    assert me.done() == outcome


def test_a_holder_near_the_key_asks_the_others_and_brings_what_they_sign() -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(1, Store(1, [record(key=0)]))
    me.receive(FAR, request(Kind.READ, 0, hop=3))
    attests = dict(me.take(Attest))
    assert set(attests) == {1, 2}
    claim = Claim(0, b"\0", stamp(record(key=0)))
    assert attests[1] == Attest(attests[1].call, b"t" * 8, [claim])
    for holder in (1, 2):
        bare = Statement(at(holder).peer.raw, [Entry(0)], b"whatever it says")
        me.receive(holder, Attested(attests[holder].call, bare))
    [(target, told)] = me.take(Answer)
    assert target == FAR and [r.status for r in told.results] == [Status.STATEMENT] * 3 + [Status.OK]
    own = decode_statement(told.results[0].payload)
    subjects: list[Subject] = [(b"\0", stamp(record(key=0)), b"")]
    assert CheapSeal(at(0).peer).check(at(0).peer, said(Kind.READ, b"t" * 8, subjects), own.signature)
    assert decode_records(told.results[-1].payload) == [record(key=0)]


def test_others_are_not_waited_for_long() -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(FAR, request(Kind.READ, 0, hop=3))
    assert len(me.take(Attest)) == 2
    me.passes(0.7)
    [told] = [m for _, m in me.take(Answer)]
    assert len(told.results) == 2


def test_nobody_attests_in_anothers_place() -> None:
    me = Played(0, 1, 2, FAR)
    me.receive(FAR, request(Kind.READ, 0, hop=3))
    attests = dict(me.take(Attest))
    me.receive(2, Attested(attests[1].call, Statement(at(1).peer.raw, [Entry(0)])))
    me.receive(2, Attested(attests[2].call, Statement(at(1).peer.raw, [Entry(0)])))
    assert me.take(Answer) == []
    me.receive(1, Ack(1))
    me.passes(0.7)
    [told] = [m for _, m in me.take(Answer)]
    assert [decode_statement(r.payload).holder for r in told.results[:-1]] == [at(0).peer.raw]


def test_a_holder_signs_what_it_has_besides_and_asks_for_what_it_lacks() -> None:
    me = Played(0, 1, 2)
    mine, theirs = record(key=0, sequence=2), record(key=0, owner=6)
    me.receive(1, Store(1, [mine]))
    me.take()
    me.receive(1, Attest(9, b"t" * 8, [Claim(4, b"\0", stamps([theirs])), Claim(5, b"too long", b"")]))
    [(_, attested)] = me.take(Attested)
    assert attested.statement.entries == [Entry(4, [mine])] and attested.lacks == [stamp(theirs)]
    subjects: list[Subject] = [(b"\0", stamps([theirs]), stamps([mine]))]
    assert CheapSeal(at(0).peer).check(at(0).peer, said(Kind.READ, b"t" * 8, subjects), attested.statement.signature)


def test_a_read_mends_holders_that_have_an_older_record_or_none() -> None:
    me = Played(0, 1, 2, FAR)
    old, new, other = record(key=0, sequence=1), record(key=0, sequence=2), record(key=0, owner=6)
    me.receive(1, Store(1, [old, other]))
    me.receive(FAR, request(Kind.READ, 0, hop=3))
    attests = dict(me.take(Attest))
    me.receive(1, Attested(attests[1].call, Statement(at(1).peer.raw, [Entry(0, [new])]), [stamp(other), b"made up!"]))
    assert me.node.core.store.get(b"\0", me.now) == [new, other]
    stores = [(target, m.records) for target, m in me.take(Store)]
    assert (2, [new]) in stores and (1, [other]) in stores


def test_a_holder_that_would_have_to_add_too_much_leaves_the_key_out() -> None:
    me = Played(0, 1)
    for n in range(40):
        me.receive(1, Store(n, [record(key=0, subkey=str(n), value=b"x" * 1000)]))
    me.take()
    me.receive(1, Attest(9, b"t" * 8, [Claim(0, b"\0", b""), Claim(1, b"\1", b"")]))
    [(_, attested)] = me.take(Attested)
    assert attested.statement.entries == []


def test_careful_reads_of_one_neighbour_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.dht.witnesses.READINGS_PER_PEER_MAX", 3)
    me = Played(0, 1, 2, FAR)
    for hop in range(5):
        me.receive(FAR, request(Kind.READ, 0, hop=hop))
    assert len([m for _, m in me.take(Answer)]) == 2, "what is beyond is answered without the others"
    me.passes(0.7)
    assert len(me.take(Answer)) == 3
    assert not me.node._witnesses._open and not me.node._witnesses._per_peer
