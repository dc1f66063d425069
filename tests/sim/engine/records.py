"""Stand-ins for signatures, passed through the seam that production fills with Ed25519 (agent.dht.records.Verify).

A keyed hash takes a hundredth of the time. It tells an altered record from a true one just as well; what it does not have is
secrecy, so a simulated liar must not compute it for another's record.
"""

from __future__ import annotations

import hashlib

from agent.dht.records import Record
from agent.identity import PeerId


def cheap_signature(record: Record) -> bytes:
    return hashlib.blake2b(record.signed_bytes(), key=record.owner.raw, digest_size=8).digest()


def cheap_verify(record: Record) -> bool:
    return record.signature == cheap_signature(record)


class CheapSeal:
    """One peer's statements, signed in the same way."""

    def __init__(self, peer: PeerId) -> None:
        self._peer = peer

    def sign(self, said: bytes) -> bytes:
        return hashlib.blake2b(said, key=self._peer.raw, digest_size=8).digest()

    def check(self, peer: PeerId, said: bytes, signature: bytes) -> bool:
        return CheapSeal(peer).sign(said) == signature


def make_record(
    key: bytes, owner: PeerId, value: bytes = b"v", *, subkey: str = "", sequence: int = 1, expires_at: float
) -> Record:
    record = Record(key, subkey, owner, sequence, expires_at, value)
    return Record(key, subkey, owner, sequence, expires_at, value, cheap_signature(record))
