"""Keys of the DHT and the XOR metric (Maymounkov and Mazieres, Kademlia, 2002, section 2.1).

Inside the node a key is an `int`, so that a distance is one XOR; on the wire it is `KeySpace.key_bytes` bytes, big-endian.
"""

from __future__ import annotations

import hashlib
from random import Random

from agent.identity import PeerId


class Contact:
    """A peer and its place in the key space. Shared, never changed."""

    __slots__ = ("key", "peer")

    def __init__(self, peer: PeerId, key: int) -> None:
        self.peer = peer
        self.key = key

    def __repr__(self) -> str:
        return f"Contact({self.peer.short})"


class KeySpace:
    """Keys of `bits` bits: 256 in production, 8 in tests that want to see the geometry.

    It remembers contacts, so that thousands of simulated nodes of one process share one object per peer; at most
    `contacts_max` of them, after which it starts afresh (contacts compare by their PeerId, never by identity).
    """

    __slots__ = ("_contacts", "_contacts_max", "bits", "key_bytes")

    def __init__(self, bits: int = 256, *, contacts_max: int = 65_536) -> None:
        if not 8 <= bits <= 256 or bits % 8:
            raise ValueError(f"keys have 8 to 256 bits, a multiple of 8, not {bits}")
        self.bits = bits
        self.key_bytes = bits // 8
        self._contacts: dict[bytes, Contact] = {}
        self._contacts_max = contacts_max

    def contact(self, peer: PeerId | bytes) -> Contact:
        """The contact of a peer, given its id or the 32 bytes of it. Raises ValueError for another length."""
        raw = peer if isinstance(peer, bytes) else peer.raw
        contact = self._contacts.get(raw)
        if contact is None:
            if len(self._contacts) >= self._contacts_max:
                self._contacts.clear()
            peer_id = PeerId(raw) if isinstance(peer, bytes) else peer
            contact = self._contacts[raw] = Contact(peer_id, self.decode(peer_id.key[: self.key_bytes]))
        return contact

    def named(self, experiment: str, name: str) -> bytes:
        """The key of a record's name, as it goes on the wire. The experiment is part of it, so experiments never mix."""
        digest = hashlib.sha256(b"hive/1/name\0" + experiment.encode() + b"\0" + name.encode()).digest()
        return digest[: self.key_bytes]

    def decode(self, key: bytes) -> int:
        return int.from_bytes(key, "big")

    def encode(self, key: int) -> bytes:
        return key.to_bytes(self.key_bytes, "big")

    def in_stratum(self, me: int, bucket: int, stratum: int, stratum_bits: int, rng: Random) -> int:
        """A random key that shares with `me` the bits above `bucket`, differs at it, and goes on with `stratum`."""
        base = ((me >> bucket) ^ 1) << bucket
        below = min(stratum_bits, bucket)
        rest = bucket - below
        return base | (stratum & ((1 << below) - 1)) << rest | (rng.getrandbits(rest) if rest else 0)


def bucket_of(a: int, b: int) -> int:
    """The number of the bucket in which `a` keeps `b`: the highest bit in which they differ; -1 if they are equal."""
    return (a ^ b).bit_length() - 1


def stratum_of(key: int, bucket: int, stratum_bits: int) -> int:
    """Which part of its bucket `key` lies in: the `stratum_bits` bits below bit number `bucket`."""
    below = min(stratum_bits, bucket)
    return key >> (bucket - below) & ((1 << below) - 1)
