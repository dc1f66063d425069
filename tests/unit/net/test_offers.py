from __future__ import annotations

import math

import msgspec
import pytest

from agent.errors import RemoteError
from agent.identity import Identity, PeerId
from agent.net import offers
from agent.net.offers import AGE_MAX_S, REPLAYS_MAX, SEALED_BYTES_MAX, OfferBook
from agent.net.transport import DESCRIPTION_BYTES_MAX

ALICE, BOB, CHARLIE = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2, 3))
NOW = 1_800_000_000.0
ID = bytes(range(16))


def book(identity: Identity, experiment: str = "gpt-crowd") -> OfferBook:
    return OfferBook(identity, experiment)


def test_an_offer_and_its_answer_pass() -> None:
    alice, bob = book(ALICE), book(BOB)
    offer, sealed = alice.make_offer(BOB.peer_id, b"here I am", exchange=ID, now=NOW)
    got = bob.open_offer(sealed, now=NOW + 1)
    assert got.peer == ALICE.peer_id and got.description == b"here I am" and got.age_key == offer.age_key
    answer = bob.make_answer(got, b"and I", now=NOW + 1)
    assert alice.open_answer(answer, offer, now=NOW + 2) == b"and I"


def test_the_largest_description_fits_every_signaling_path() -> None:
    _, sealed = book(ALICE, "x" * 63).make_offer(BOB.peer_id, bytes(DESCRIPTION_BYTES_MAX), exchange=ID, now=NOW)
    assert len(sealed) <= SEALED_BYTES_MAX
    with pytest.raises(ValueError, match="2 KiB"):
        book(ALICE).make_offer(BOB.peer_id, bytes(DESCRIPTION_BYTES_MAX + 1), exchange=ID, now=NOW)


def test_only_the_receiver_can_open_it() -> None:
    _, sealed = book(ALICE).make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    with pytest.raises(RemoteError, match="not for this peer"):
        book(CHARLIE).open_offer(sealed, now=NOW)


def test_a_receiver_cannot_pass_it_on_as_if_it_were_meant_for_another() -> None:
    _, sealed = book(ALICE).make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    resealed = CHARLIE.peer_id.seal(BOB.unseal(sealed))
    with pytest.raises(RemoteError, match="for another peer"):
        book(CHARLIE).open_offer(resealed, now=NOW)


@pytest.mark.parametrize("age", [AGE_MAX_S, -AGE_MAX_S])
def test_an_offer_at_the_age_limit_is_taken(age: float) -> None:
    _, sealed = book(ALICE).make_offer(BOB.peer_id, b"", exchange=ID, now=NOW - age)
    book(BOB).open_offer(sealed, now=NOW)


@pytest.mark.parametrize("at", [NOW - AGE_MAX_S - 1, NOW + AGE_MAX_S + 1, math.nan, math.inf, -math.inf])
def test_an_offer_past_the_age_limit_is_not(at: float) -> None:
    _, sealed = book(ALICE).make_offer(BOB.peer_id, b"", exchange=ID, now=at)
    with pytest.raises(RemoteError, match="clocks"):
        book(BOB).open_offer(sealed, now=NOW)


def test_an_offer_is_good_once() -> None:
    bob = book(BOB)
    _, sealed = book(ALICE).make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    bob.open_offer(sealed, now=NOW)
    with pytest.raises(RemoteError, match="used before"):
        bob.open_offer(sealed, now=NOW + AGE_MAX_S - 1)


def test_the_memory_of_used_offers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "REPLAYS_MAX", 8)
    alice, bob = book(ALICE), book(BOB)
    for i in range(9):
        bob.open_offer(alice.make_offer(BOB.peer_id, b"", exchange=bytes([i]) * 16, now=NOW)[1], now=NOW)
    assert len(bob._seen) == 8 < REPLAYS_MAX
    bob.open_offer(alice.make_offer(BOB.peer_id, b"", exchange=ID, now=NOW + 1000)[1], now=NOW + 1000)
    assert len(bob._seen) == 1


def test_another_experiment_is_refused_by_name() -> None:
    _, sealed = book(ALICE, "other").make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    with pytest.raises(RemoteError, match="'other'"):
        book(BOB).open_offer(sealed, now=NOW)


def test_nobody_offers_in_anothers_name() -> None:
    _, sealed = book(CHARLIE).make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    signed = msgspec.msgpack.decode(BOB.unseal(sealed), type=list[bytes])
    body = msgspec.msgpack.decode(signed[0])
    body[0] = ALICE.peer_id.raw
    forged = BOB.peer_id.seal(msgspec.msgpack.encode([msgspec.msgpack.encode(body), signed[1]]))
    with pytest.raises(RemoteError, match="not signed"):
        book(BOB).open_offer(forged, now=NOW)


def test_an_offer_is_no_answer_and_an_answer_belongs_to_its_offer() -> None:
    alice, bob = book(ALICE), book(BOB)
    first, sealed = alice.make_offer(BOB.peer_id, b"", exchange=ID, now=NOW)
    second, _ = alice.make_offer(BOB.peer_id, b"", exchange=ID[::-1], now=NOW)
    _, back = bob.make_offer(ALICE.peer_id, b"", exchange=ID, now=NOW)
    with pytest.raises(RemoteError, match="not signed"):
        alice.open_answer(back, first, now=NOW)
    answer = bob.make_answer(bob.open_offer(sealed, now=NOW), b"", now=NOW)
    with pytest.raises(RemoteError, match="another offer"):
        alice.open_answer(answer, second, now=NOW)


@pytest.mark.parametrize("junk", [b"", b"\0" * 31, b"\0" * 200, b"x" * (SEALED_BYTES_MAX + 1)])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(RemoteError):
        book(BOB).open_offer(junk, now=NOW)
    for plain in (b"", b"\x92\xc4\x00\xc4\x00", junk[:100]):
        with pytest.raises(RemoteError, match="not valid"):
            book(BOB).open_offer(BOB.peer_id.seal(plain), now=NOW)


def test_a_peer_id_that_is_no_point_is_a_callers_error() -> None:
    with pytest.raises(ValueError):
        book(ALICE).make_offer(PeerId(b"\x01" + bytes(31)), b"", exchange=ID, now=NOW)
