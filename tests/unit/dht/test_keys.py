from __future__ import annotations

import random

import pytest

from agent.dht.keys import KeySpace, bucket_of, stratum_of
from agent.identity import PeerId

PEER = PeerId(bytes(range(32)))


def test_a_contact_is_made_once() -> None:
    space = KeySpace()
    assert space.contact(PEER) is space.contact(PEER.raw)
    assert space.encode(space.contact(PEER).key) == PEER.key


def test_contacts_are_bounded() -> None:
    space = KeySpace(contacts_max=2)
    first = space.contact(PEER)
    for i in range(2):
        space.contact(bytes([i]) * 32)
    assert space.contact(PEER) is not first
    assert space.contact(PEER).key == first.key


def test_small_keys_are_the_first_bits() -> None:
    space = KeySpace(8)
    assert space.contact(PEER).key == PEER.key[0]
    assert len(space.named("x", "y")) == 1


@pytest.mark.parametrize("bits", [0, 7, 9, 264])
def test_absurd_sizes_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="8 to 256 bits"):
        KeySpace(bits)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_a_peer_has_32_bytes(raw: bytes) -> None:
    with pytest.raises(ValueError):
        KeySpace().contact(raw)


def test_names_of_experiments_do_not_mix() -> None:
    space = KeySpace()
    assert space.named("a", "b.") != space.named("b", "b.")
    assert space.named("a", "bc") != space.named("ab", "c")


def test_the_bucket_is_the_highest_differing_bit() -> None:
    assert bucket_of(0b1010_0000, 0b1010_0000) == -1
    assert bucket_of(0b1010_0000, 0b1010_0001) == 0
    assert bucket_of(0b1010_0000, 0b0010_0000) == 7


def test_the_stratum_is_the_bits_below_the_bucket() -> None:
    assert stratum_of(0b0011_0000, 7, 2) == 0b01
    assert stratum_of(0b0000_0011, 1, 2) == 1
    assert stratum_of(0b0000_0011, 0, 2) == 0


def test_a_random_key_lies_where_it_was_asked_for() -> None:
    space, rng = KeySpace(8), random.Random(1)
    for me in range(256):
        for bucket in range(8):
            for stratum in range(1 << min(2, bucket)):
                key = space.in_stratum(me, bucket, stratum, 2, rng)
                assert bucket_of(me, key) == bucket
                assert stratum_of(key, bucket, 2) == stratum
