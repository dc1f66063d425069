"""One connection in each part of each bucket above the siblings.

Whoever lacks some asks a neighbour: one that shares with us the bits above a bucket, or lies in it, has connections in the same
parts (so a newcomer takes rows of others' tables in Pastry, Rowstron and Druschel 2001, section 2.4). It names those closest
to random keys, so that not everybody hears of the same peers, and then leads to them: a connection by way of the neighbour that
named a peer takes two hops, wherever it is. What no neighbour knows is searched for.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.dht import density
from agent.dht.config import SOUGHT_MAX
from agent.dht.core import Core
from agent.dht.keys import Contact, bucket_of, stratum_of
from agent.dht.messages import NearPeers, Seek
from agent.dht.operations import Found, Operations
from agent.identity import PeerId

ASKS_MAX = 3  # neighbours that are asked in one round before what is still lacking is searched for
PICKS_MAX = 16  # random neighbours that are looked at, to find one with the same buckets
NAMED_EACH = 2  # peers that a neighbour names for each key

Stratum = tuple[int, int]  # bucket, and which part of it


class Buckets:
    """Fills the parts of the buckets, in rounds that come ever more rarely while nothing changes.

    `dial(contact)` opens a connection if there is room for one; `heard` takes peers that were named.
    """

    __slots__ = ("_asks", "_core", "_dial", "_heard", "_next", "_operations", "_round", "_round_s")

    def __init__(
        self, core: Core, operations: Operations, dial: Callable[[Contact], bool], heard: Callable[[list[Found]], None]
    ) -> None:
        self._core = core
        self._operations = operations
        self._dial = dial
        self._heard = heard
        self._round: list[Stratum] = []  # what this round has yet to look at
        self._round_s = core.config.refresh_first_s
        self._asks = 0  # neighbours asked in this round
        self._next = float("inf")

    def later(self) -> None:
        """Look at them soon."""
        self._after(self._core.config.refresh_step_s)

    def lost(self, contact: Contact) -> None:
        """A connection closed. If nothing else leads to that part of the key space, look for another there soon. A bucket that
        still has connections can wait for the next round: where many are at their limit, whoever was let go for want of room
        would only push out others."""
        core = self._core
        bucket = bucket_of(core.me.key, contact.key)
        stratum = stratum_of(contact.key, bucket, core.config.stratum_bits) if bucket >= 0 else 0
        if self.lacks(bucket, stratum):
            if (bucket, stratum) not in self._round:
                self._round.insert(0, (bucket, stratum))
            if core.table.is_empty(bucket):
                self._asks = 0
                self._round_s = core.config.refresh_first_s
                self.later()

    def lacks(self, bucket: int, stratum: int) -> bool:
        """True if a connection is wanted there. At the limit of connections one in each bucket has to do: requests still get
        closer with every hop, only in smaller steps."""
        table = self._core.table
        if bucket <= table.sibling_bucket() or table.is_covered(bucket, stratum):
            return False
        return len(table.connected) < self._core.config.links_max or table.is_empty(bucket)

    def on_seek(self, peer: PeerId, message: Seek) -> None:
        """A neighbour asks for peers close to some keys."""
        core = self._core
        named: dict[bytes, None] = {}
        for raw in message.keys:
            if len(raw) == core.space.key_bytes:
                for contact in core.table.closest(core.space.decode(raw), NAMED_EACH):
                    if contact.peer != peer and not core.is_suspect(contact.peer):
                        named[contact.peer.raw] = None
        core.send(peer, NearPeers(list(named), density.told(core.table)))

    # -- a round -----------------------------------------------------------------------------------------------------

    def _after(self, delay_s: float) -> None:
        when = self._core.now + delay_s * (0.75 + 0.5 * self._core.rng.random())
        if when < self._next:
            self._next = when
            self._core.at(when, self._step, when)

    def _step(self, when: float) -> None:
        """Connect to what is known, then ask for the rest, or search for a part of it."""
        if when != self._next:
            return  # an earlier one was wanted since
        self._next = float("inf")
        if not self._core.table.connected:
            return
        if not self._round:
            self._round, self._asks = self._uncovered(), 0
        waiting = self._dial_known()
        if waiting and self._asks < ASKS_MAX:
            self._asks += 1
            self._ask(waiting[:SOUGHT_MAX])
        elif waiting:
            self._round.remove(waiting[0])
            self._search(*waiting[0])
        if self._round:
            self.later()
        else:
            self._after(self._round_s)
            self._round_s = min(2 * self._round_s, self._core.config.refresh_period_s)

    def _uncovered(self) -> list[Stratum]:
        """Parts of buckets without a connection, widest bucket first, down to where the siblings cover everything."""
        core = self._core
        strata: list[Stratum] = []
        for bucket in range(core.space.bits - 1, core.table.sibling_bucket(), -1):
            parts = range(1 << min(core.config.stratum_bits, bucket))
            strata += [(bucket, s) for s in parts if self.lacks(bucket, s)]
        return strata

    def _dial_known(self) -> list[Stratum]:
        """Dial a known peer in each part that this round has yet to look at. The parts where none is known."""
        core = self._core
        me, bits = core.me.key, core.config.stratum_bits
        fitting: dict[Stratum, list[Contact]] = {place: [] for place in self._round if self.lacks(*place)}
        buckets = {bucket for bucket, _ in fitting}
        for contact in core.table.known.values() if buckets else ():
            bucket = (contact.key ^ me).bit_length() - 1
            if bucket in buckets:
                place = (bucket, stratum_of(contact.key, bucket, bits))
                if place in fitting:
                    fitting[place].append(contact)
        self._round = []
        waiting: list[Stratum] = []
        for place, contacts in fitting.items():
            if not contacts:
                waiting.append(place)
            elif self._dial(contacts[core.rng.randrange(len(contacts))]):
                continue
            self._round.append(place)
        return waiting

    def _ask(self, strata: list[Stratum]) -> None:
        """Ask one neighbour for peers there: a random one of those that have the same buckets down to the lowest of these, or any
        if there is none."""
        core = self._core
        lowest = min(bucket for bucket, _ in strata)
        neighbours = list(core.table.connected.values())
        asked = neighbours[core.rng.randrange(len(neighbours))].contact
        for _ in range(PICKS_MAX):
            if bucket_of(core.me.key, asked.key) <= lowest and not core.is_suspect(asked.peer):
                break
            asked = neighbours[core.rng.randrange(len(neighbours))].contact
        core.send(asked.peer, Seek([core.space.encode(self._random_key(*place)) for place in strata]))

    def _search(self, bucket: int, stratum: int) -> None:
        core = self._core
        key = self._random_key(bucket, stratum)
        # Without a connection that leads there, others have to know one.
        start = None if core.table.closest_closer(key) is not None else self._anyone()
        self._operations.find(core.space.encode(key), self._found, starts=(start,))

    def _random_key(self, bucket: int, stratum: int) -> int:
        core = self._core
        return core.space.in_stratum(core.me.key, bucket, stratum, core.config.stratum_bits, core.rng)

    def _anyone(self) -> PeerId:
        return self._core.table.anyone(self._core.rng)

    def _found(self, named: list[Found]) -> None:
        self._heard(named[: self._core.config.answer_peers_max])
