"""Whom a node is connected to, arranged by distance, and whom it has heard of.

Bucket i holds the connected peers whose highest bit of difference from us is bit i. Walking the buckets in the right order gives
the connected peers in order of distance to any key (Kademlia, section 2.4), without looking at the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from heapq import nsmallest
from random import Random

from agent.dht.config import DhtConfig
from agent.dht.keys import Contact, stratum_of
from agent.identity import PeerId

FAR = 1 << 256  # further than any key

Part = int
"""A stratum of a bucket: `bucket << stratum_bits | stratum`."""


class Neighbour:
    """A connected peer."""

    __slots__ = ("contact", "keep_until", "misses", "opened_at", "part", "probing", "reach", "reach_at", "subnet", "told_at")

    def __init__(self, contact: Contact, part: Part, opened_at: float, subnet: str = "") -> None:
        self.contact = contact
        self.part = part
        self.opened_at = opened_at
        self.subnet = subnet  # of its address; empty if not known
        self.misses = 0  # acknowledgements missed in a row
        self.probing = False
        self.keep_until = 0.0  # it counts us among its siblings
        self.told_at = 0.0  # when we told it that it is among ours
        self.reach = 0  # how far its siblings reach, as it told (density.py); 0: it has not
        self.reach_at = 0.0  # when it did


class RoutingTable:
    """Connected peers (no more than the host lets in; `victim` names whom to close above the limit) and known contacts."""

    __slots__ = (
        "_buckets",
        "_config",
        "_mask",
        "_reach",
        "_sibling_bucket",
        "_siblings",
        "_strata",
        "connected",
        "introducers",
        "known",
        "me",
    )

    def __init__(self, me: Contact, config: DhtConfig) -> None:
        self.me = me
        self._config = config
        self.connected: dict[PeerId, Neighbour] = {}
        self.known: dict[PeerId, Contact] = {}
        self.introducers: dict[PeerId, PeerId] = {}  # known peer -> the neighbour by whose way we heard of it
        self._buckets: dict[int, list[Contact]] = {}
        self._strata: dict[int, int] = {}  # bucket -> bit s is set if there is a connection in stratum s
        self._siblings: list[Contact] | None = None  # None: to be found again, with what follows from them
        self._reach = FAR
        self._sibling_bucket = 256
        self._mask = 0  # bit i is set if bucket i is not empty

    def add(self, contact: Contact, now: float, subnet: str = "") -> bool:
        """Note that a connection is open. False if it was noted already."""
        if contact.peer in self.connected or contact.peer == self.me.peer:
            return False
        self.forget(contact.peer)
        distance = contact.key ^ self.me.key
        if distance < self._reach:
            self._siblings = None
        bucket = distance.bit_length() - 1
        stratum = 0 if bucket < 0 else stratum_of(contact.key, bucket, self._config.stratum_bits)
        self.connected[contact.peer] = Neighbour(contact, bucket << self._config.stratum_bits | stratum, now, subnet)
        self._buckets.setdefault(bucket, []).append(contact)
        if bucket >= 0:
            self._strata[bucket] = self._strata.get(bucket, 0) | 1 << stratum
            self._mask |= 1 << bucket
        return True

    def remove(self, peer: PeerId) -> Contact | None:
        """Note that a connection is closed; the contact if it was connected."""
        neighbour = self.connected.pop(peer, None)
        if neighbour is None:
            return None
        distance = neighbour.contact.key ^ self.me.key
        if distance <= self._reach:
            self._siblings = None
        bucket = distance.bit_length() - 1
        contacts = [c for c in self._buckets[bucket] if c.peer != peer]
        if contacts:
            self._buckets[bucket] = contacts
        else:
            del self._buckets[bucket]
            if bucket >= 0:
                self._mask &= ~(1 << bucket)
        self._count_strata(bucket)
        return neighbour.contact

    def learn(self, contact: Contact, via: PeerId | None = None) -> bool:
        """Note a peer that someone named; the neighbour `via` leads to it, if given. The oldest is forgotten at `known_max`.
        False if it was known."""
        if contact.peer == self.me.peer or contact.peer in self.connected or contact.peer in self.known:
            return False
        if len(self.known) >= self._config.known_max:
            self.forget(next(iter(self.known)))
        self.known[contact.peer] = contact
        if via is not None:
            self.introducers[contact.peer] = via
        return True

    def forget(self, peer: PeerId) -> None:
        """No longer know of a peer that is not connected."""
        self.known.pop(peer, None)
        self.introducers.pop(peer, None)

    def closer(self, key: int) -> Iterator[Contact]:
        """Connected peers that are closer to `key` than we are, closest first."""
        bits = (self.me.key ^ key) & self._mask
        while bits:
            bucket = bits.bit_length() - 1
            yield from self._sorted(bucket, key)
            bits ^= 1 << bucket

    def closest_closer(self, key: int) -> Contact | None:
        """The first of `closer`."""
        bits = (self.me.key ^ key) & self._mask
        if not bits:
            return None
        contacts = self._buckets[bits.bit_length() - 1]
        return contacts[0] if len(contacts) == 1 else min(contacts, key=lambda c: c.key ^ key)

    def further(self, key: int) -> Iterator[Contact]:
        """The other connected peers, closest first."""
        if -1 in self._buckets:  # a peer with our very key; possible only with small key spaces
            yield from self._buckets[-1]
        bits = ~(self.me.key ^ key) & self._mask
        while bits:
            low = bits & -bits
            yield from self._sorted(low.bit_length() - 1, key)
            bits ^= low

    def closest(self, key: int, n: int) -> list[Contact]:
        """The `n` connected peers closest to `key`, closest first."""
        found: list[Contact] = []  # written out, because it is what a node does most
        different = self.me.key ^ key
        bits = different & self._mask
        while bits and len(found) < n:
            bucket = bits.bit_length() - 1
            contacts = self._buckets[bucket]
            found += contacts if len(contacts) == 1 else self._sorted(bucket, key)
            bits ^= 1 << bucket
        if len(found) < n and -1 in self._buckets:
            found += self._buckets[-1]
        bits = ~different & self._mask
        while bits and len(found) < n:
            low = bits & -bits
            contacts = self._buckets[low.bit_length() - 1]
            found += contacts if len(contacts) == 1 else self._sorted(low.bit_length() - 1, key)
            bits ^= low
        return found[:n]

    def siblings(self) -> list[Contact]:
        """The connected peers closest to us, at most `siblings` of them."""
        if self._siblings is None:
            found = self._siblings = self.closest(self.me.key, self._config.siblings)
            self._reach = FAR if len(found) < self._config.siblings else found[-1].key ^ self.me.key
            self._sibling_bucket = self._reach.bit_length() - 1
        return self._siblings

    def reach(self) -> int:
        """The distance up to which siblings cover the key space; beyond every key if there are too few of them."""
        if self._siblings is None:
            self.siblings()
        return self._reach

    def wanted_siblings(self, unwanted: Container[PeerId] = ()) -> list[Contact]:
        """Known, unconnected peers that belong among our siblings. The `unwanted` leave their places to others."""
        me, reach = self.me.key, self.reach()
        near = [c for c in self.known.values() if c.key ^ me < reach and c.peer not in unwanted]
        if not near:
            return []
        best = nsmallest(self._config.siblings, [*self.siblings(), *near], key=lambda c: c.key ^ me)
        return [c for c in best if c.peer not in self.connected]

    def sibling_bucket(self) -> int:
        """The bucket of our furthest sibling, below which siblings cover everything; 256 if they are too few."""
        if self._siblings is None:
            self.siblings()
        return self._sibling_bucket

    def is_covered(self, bucket: int, stratum: int) -> bool:
        """True if there is a connection in that part of that bucket."""
        return bool(self._strata.get(bucket, 0) >> stratum & 1)

    def is_empty(self, bucket: int) -> bool:
        return not self._mask >> bucket & 1

    def anyone(self, rng: Random, unwanted: Container[PeerId] = ()) -> PeerId:
        """A random connected peer, drawn from a random subnet: many peers of one owner are no more likely than one. Whose address
        is not known stands for itself. There must be one that is not unwanted."""
        rooms: dict[object, list[PeerId]] = {}
        for peer, neighbour in self.connected.items():
            if peer not in unwanted:
                rooms.setdefault(neighbour.subnet or peer, []).append(peer)
        room = list(rooms.values())[rng.randrange(len(rooms))]
        return room[0] if len(room) == 1 else room[rng.randrange(len(room))]

    def victim(self, now: float) -> Contact | None:
        """Whom to disconnect when there are too many: never one of our siblings; one that has just connected (it may be joining
        through us) or that counts us among its siblings only if there is nobody else and we are far above the limit. From the
        most crowded stratum one of the subnet that most connections are to, or an owner of many addresses would crowd out the
        others; of equals the newest, since old connections have shown that they last (Kademlia, section 4.1)."""
        siblings = {c.peer for c in self.siblings()}
        others = [n for peer, n in self.connected.items() if peer not in siblings]
        recent = now - self._config.newcomer_s
        crowd = _crowd([n for n in others if n.opened_at <= recent and n.keep_until <= now])
        if crowd:
            crowds = Counter(n.subnet for n in self.connected.values() if n.subnet)
            return max(crowd, key=lambda n: (crowds.get(n.subnet, 1), n.opened_at, n.contact.key)).contact
        crowd = _crowd(others)
        if crowd and 2 * len(self.connected) > 3 * self._config.links_max:  # the oldest has had the most time to find others
            return min(crowd, key=lambda n: (n.opened_at, n.contact.key)).contact
        return None

    def _count_strata(self, bucket: int) -> None:
        """After a loss."""
        mask = 0
        if bucket >= 0:
            for contact in self._buckets.get(bucket, ()):
                mask |= 1 << stratum_of(contact.key, bucket, self._config.stratum_bits)
        if mask:
            self._strata[bucket] = mask
        else:
            self._strata.pop(bucket, None)

    def _sorted(self, bucket: int, key: int) -> list[Contact]:
        contacts = self._buckets[bucket]
        if len(contacts) == 1:
            return contacts
        if len(contacts) == 2:  # half of the buckets that are asked for have no more
            a, b = contacts
            return contacts if a.key ^ key < b.key ^ key else [b, a]
        return sorted(contacts, key=lambda c: c.key ^ key)


def _crowd(neighbours: list[Neighbour]) -> list[Neighbour]:
    """Those in the most crowded part; of equals, in the widest bucket."""
    crowds: dict[Part, list[Neighbour]] = {}
    for neighbour in neighbours:
        crowds.setdefault(neighbour.part, []).append(neighbour)
    return max(crowds.items(), key=lambda entry: (len(entry[1]), entry[0]), default=(0, []))[1]
