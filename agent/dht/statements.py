"""What the holders of a key sign, so that nobody on the way can speak in their place or leave out what they have.

Whoever answers a careful read lists its records by stamps, and shows that list to the other holders. Each signs: "of these keys
I hold nothing that is not in this list, except ...". The reader checks that the records it got are those of the list, and counts
who has signed. A write is answered with what the holders sign about the record itself: "I keep it". The token of the search is
in every signature, so that no statement is good for another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import msgspec

from agent.dht.messages import Kind, Statement
from agent.dht.records import Record
from agent.identity import Identity, PeerId

STAMP_BYTES = 8
PURPOSE = "holder"


class Seal(Protocol):
    """Signs for this node, and checks what others signed. Simulations pass a cheaper one than IdentitySeal."""

    def sign(self, said: bytes) -> bytes: ...

    def check(self, peer: PeerId, said: bytes, signature: bytes) -> bool: ...


class IdentitySeal:
    """Ed25519: 0.03 ms to sign and 0.1 ms to check, once for all keys of a message."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def sign(self, said: bytes) -> bytes:
        return self._identity.sign(PURPOSE, said)

    def check(self, peer: PeerId, said: bytes, signature: bytes) -> bool:
        return peer.verify(PURPOSE, said, signature)


def stamp(record: Record) -> bytes:
    """Eight bytes that name a version of a record: its place under the key, and its sequence number."""
    place = record.owner.raw + record.sequence.to_bytes(8, "big") + record.subkey.encode()
    return hashlib.blake2b(place, digest_size=STAMP_BYTES).digest()


def stamps(records: Iterable[Record]) -> bytes:
    """The list that holders sign, in the order in which the records are sent."""
    return b"".join(map(stamp, records))


Subject = tuple[bytes, bytes, bytes]
"""What a statement says of one key: the key, the stamps of the answer, the stamps of what the holder has besides."""


def said(kind: Kind, token: bytes, subjects: Iterable[Subject]) -> bytes:
    """What a holder signs, for a READ or a PUT. Every part has its length before it, so that no two statements read the same."""
    hasher = hashlib.blake2b(kind.to_bytes(1, "big") + token, digest_size=32)
    for subject in subjects:
        for part in subject:
            hasher.update(len(part).to_bytes(4, "big") + part)
    return hasher.digest()


def signed(seal: Seal, statement: Statement, token: bytes, subjects: Iterable[Subject]) -> Statement:
    """A READ's statement with its holder's signature; `subjects` in the order of its entries."""
    return msgspec.structs.replace(statement, signature=seal.sign(said(Kind.READ, token, subjects)))


def receipt(seal: Seal, token: bytes, records: Iterable[Record]) -> bytes:
    """The signature of a holder that keeps the `records` of a PUT."""
    return seal.sign(said(Kind.PUT, token, [(record.key, stamp(record), b"") for record in records]))
