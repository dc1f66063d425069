"""Both sides prove who they are, on this channel, for this experiment; nobody else gets through."""

from __future__ import annotations

import msgspec
import pytest

from agent.errors import HandshakeRejected
from agent.identity import Identity
from agent.wire.handshake import (
    ADMISSION_BYTES_MAX,
    HANDSHAKE_FRAME_BYTES_MAX,
    PROTOCOL_VERSION,
    Channel,
    Handshake,
    Hello,
    Proof,
    Terms,
)

ALICE, BOB, MALLORY = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2, 3))
PRINT_A, PRINT_B, PRINT_M = b"a" * 32, b"b" * 32, b"m" * 32
TERMS = Terms(experiment="gpt-crowd")


def side(
    identity: Identity,
    *,
    initiator: bool,
    terms: Terms = TERMS,
    prints: tuple[bytes, bytes] | None = None,
    expected: Identity | None = None,
) -> Handshake:
    local, remote = prints or ((PRINT_A, PRINT_B) if initiator else (PRINT_B, PRINT_A))
    return Handshake(
        identity,
        terms,
        Channel(local_fingerprint=local, remote_fingerprint=remote, initiator=initiator),
        nonce=identity.peer_id.raw[::-1] if initiator else identity.peer_id.raw,
        deadline=10.0,
        expected=expected.peer_id if expected else None,
    )


def run(a: Handshake, b: Handshake) -> None:
    """Carry messages both ways until nobody has any more."""
    to_b, to_a = [a.start()], [b.start()]
    while to_a or to_b:
        if to_b:
            to_a += b.receive(to_b.pop(0))
        if to_a:
            to_b += a.receive(to_a.pop(0))


def rejected(match: str) -> pytest.RaisesExc[HandshakeRejected]:
    return pytest.raises(HandshakeRejected, match=match)


def test_both_learn_who_the_other_is_and_what_it_presents() -> None:
    a = side(ALICE, initiator=True, terms=Terms(experiment="gpt-crowd", admission=b"A" * ADMISSION_BYTES_MAX), expected=BOB)
    b = side(BOB, initiator=False, expected=ALICE)
    run(a, b)
    assert (a.peer, b.peer) == (BOB.peer_id, ALICE.peer_id)
    assert (a.admission, b.admission) == (b"", b"A" * ADMISSION_BYTES_MAX)
    assert a.next_deadline() is None
    a.tick(1e9)
    with rejected("is over"):
        a.receive(b.start())


def test_another_version() -> None:
    for mine, theirs, who in ((1, 2, "this agent"), (2, 1, "it")):
        a = side(ALICE, initiator=True, terms=Terms(experiment="gpt-crowd", version=mine))
        b = side(BOB, initiator=False, terms=Terms(experiment="gpt-crowd", version=theirs))
        with rejected(f"version {theirs} and we speak {mine}: {who} needs an update"):
            a.receive(b.start())


def test_a_later_versions_longer_hello_is_still_read_as_another_version() -> None:
    longer = msgspec.msgpack.encode([1, 9, "gpt-crowd", BOB.peer_id.raw, bytes(32), b"", "new", 3])
    with rejected("version 9"):
        side(ALICE, initiator=True).receive(longer)


def test_another_experiment() -> None:
    with rejected("'digits', not in 'gpt-crowd'"):
        side(ALICE, initiator=True).receive(side(BOB, initiator=False, terms=Terms(experiment="digits")).start())


def test_another_peer_than_was_called() -> None:
    with rejected(f"{MALLORY.peer_id.short} answered where {BOB.peer_id.short} was called"):
        run(side(ALICE, initiator=True, expected=BOB), side(MALLORY, initiator=False))


def test_oneself() -> None:
    with rejected("own identity"):
        run(side(ALICE, initiator=True), side(ALICE, initiator=False))
    with rejected("own identity"):
        run(side(ALICE, initiator=True, prints=(PRINT_A, PRINT_A)), side(BOB, initiator=False))


def test_reflected_hello() -> None:
    a = side(ALICE, initiator=True)
    with rejected("came back"):
        a.receive(a.start())


def test_reflected_proof() -> None:
    a = side(ALICE, initiator=True)
    [proof] = a.receive(side(BOB, initiator=False).start())
    with rejected("did not prove"):
        a.receive(proof)
    assert a.peer is None


def test_a_proof_of_the_same_role() -> None:
    """Two sides that both believe that they made the offer."""
    with rejected("did not prove"):
        run(side(ALICE, initiator=True), side(BOB, initiator=True, prints=(PRINT_B, PRINT_A)))


def test_a_man_in_the_middle_cannot_pass_proofs_on() -> None:
    """Mallory holds a DTLS channel with each side and copies messages; only the certificates differ."""
    a = side(ALICE, initiator=True, prints=(PRINT_A, PRINT_M), expected=BOB)
    b = side(BOB, initiator=False, prints=(PRINT_B, PRINT_M), expected=ALICE)
    with rejected("this very channel"):
        run(a, b)


def test_anothers_name_without_its_key() -> None:
    """Mallory says that she is Bob, and signs a transcript that says so, with her own key."""
    a = side(ALICE, initiator=True, expected=BOB)
    m = side(MALLORY, initiator=False)
    m._mine = Hello(PROTOCOL_VERSION, "gpt-crowd", BOB.peer_id.raw, bytes(32))
    with rejected(f"did not prove that it is {BOB.peer_id.short}"):
        run(a, m)


def test_an_admission_changed_on_the_way() -> None:
    a, b = side(ALICE, initiator=True), side(BOB, initiator=False)
    hello = msgspec.msgpack.decode(a.start(), type=Hello)
    altered = Hello(hello.version, hello.experiment, hello.peer, hello.nonce, b"better")
    b.receive(msgspec.msgpack.encode(altered))
    [proof] = a.receive(b.start())
    with rejected("did not prove"):
        b.receive(proof)


def test_a_proof_from_an_earlier_connection() -> None:
    a, b = side(ALICE, initiator=True), side(BOB, initiator=False)
    [old] = b.receive(a.start())
    fresh = Handshake(
        ALICE,
        TERMS,
        Channel(local_fingerprint=PRINT_A, remote_fingerprint=PRINT_B, initiator=True),
        nonce=b"fresh" + bytes(27),
        deadline=10.0,
    )
    fresh.receive(b.start())
    with rejected("did not prove"):
        fresh.receive(old)


def test_order() -> None:
    with rejected("before its hello"):
        side(ALICE, initiator=True).receive(msgspec.msgpack.encode(Proof(bytes(64))))
    a, b = side(ALICE, initiator=True), side(BOB, initiator=False)
    a.receive(b.start())
    with rejected("twice"):
        a.receive(b.start())
    with rejected("twice"):  # it stays rejected
        a.receive(b.receive(a.start())[0])


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        bytes(HANDSHAKE_FRAME_BYTES_MAX + 1),
        b"\x91" * HANDSHAKE_FRAME_BYTES_MAX,
        msgspec.msgpack.encode([1, 1, "x" * 65, bytes(32), bytes(32)]),
        msgspec.msgpack.encode([1, 1, "gpt-crowd", bytes(31), bytes(32)]),
        msgspec.msgpack.encode([1, 1, "gpt-crowd", bytes(32), bytes(33)]),
        msgspec.msgpack.encode([1, 1, "gpt-crowd", bytes(32), bytes(32), bytes(ADMISSION_BYTES_MAX + 1)]),
        msgspec.msgpack.encode([2, bytes(63)]),
        b"\x96\x01\x01\xa2\xff\xff\xc4\x00\xc4\x00\xc4\x00",
    ],
)
def test_junk(junk: bytes) -> None:
    with pytest.raises(HandshakeRejected):
        side(ALICE, initiator=True).receive(junk)


def test_deadline() -> None:
    a, b = side(ALICE, initiator=True), side(BOB, initiator=False)
    a.receive(b.start())
    a.tick(9.999)
    assert a.next_deadline() == 10.0
    with rejected("in time"):
        a.tick(10.0)
    with rejected("in time"):
        a.receive(b.receive(a.start())[0])


def test_what_a_caller_may_not_pass() -> None:
    for experiment in ("", "x" * 65, "é"):
        with pytest.raises(ValueError, match="experiment"):
            Terms(experiment=experiment)
    with pytest.raises(ValueError, match="admission"):
        Terms(experiment="x", admission=bytes(ADMISSION_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="fingerprint"):
        Channel(local_fingerprint=PRINT_A, remote_fingerprint=b"", initiator=True)
    channel = Channel(local_fingerprint=PRINT_A, remote_fingerprint=PRINT_B, initiator=True)
    with pytest.raises(ValueError, match="nonce"):
        Handshake(ALICE, TERMS, channel, nonce=b"short", deadline=1.0)
