"""Keeping a node well connected: joining, siblings, buckets, dials, suspects, and too many connections.

A node asks for the peers near its own key, over different neighbours, soon after any change and ever more rarely while nothing
changes; it connects to those that belong among its siblings. Above these, buckets.py seeks connections. Nothing here depends on
a single message: whatever is lost is asked for again.
"""

from __future__ import annotations

from agent.dht import density
from agent.dht.buckets import Buckets
from agent.dht.core import Core, Timer
from agent.dht.events import Connect, Disconnect, Settled
from agent.dht.keys import Contact, bucket_of, stratum_of
from agent.dht.messages import Near, NearPeers, Ping, Seek
from agent.dht.operations import Found, Operations
from agent.dht.replication import Replication
from agent.dht.routing_table import Neighbour
from agent.identity import PeerId

NEWCOMERS_MAX = 8  # new siblings that are remembered to be asked
FAILURES_MAX = 256  # peers whose failed dials are remembered
FAILURES_FORGET = 5  # failed dials after which a contact is forgotten
FIRST_DIALS = 2  # siblings that a newcomer dials before it knows anybody who is near


class Upkeep:
    """Decides whom to connect to and whom to let go."""

    __slots__ = (
        "_all_spared", "_buckets", "_check_s", "_checks", "_core", "_dialing", "_dials", "_failures", "_looking", "_newcomers",
        "_next_check", "_operations", "_replication", "_settled", "_trimming",
    )  # fmt: skip

    def __init__(self, core: Core, operations: Operations, replication: Replication) -> None:
        self._core = core
        self._operations = operations
        self._replication = replication
        self._buckets = Buckets(core, operations, self._dial_far, self.heard)
        self._check_s = core.config.check_min_s
        self._next_check = float("inf")
        self._newcomers: list[PeerId] = []  # new siblings that have yet to be asked for their neighbours
        self._dialing = False  # siblings are wanted that have not been dialed
        self._looking = False  # a look among the siblings is due
        self._checks = 0  # answered
        self._dials: dict[PeerId, Timer] = {}  # -> which gives it up
        self._failures: dict[PeerId, tuple[int, float]] = {}  # failed dials, when the next is allowed
        self._settled = False
        self._trimming = False
        self._all_spared = False  # nobody was found that could be closed; looking takes long
        core.on_miss = self.missed

    # -- what happens ------------------------------------------------------------------------------------------------

    def opened(self, peer: PeerId, subnet: str) -> None:
        core = self._core
        contact = core.space.contact(peer)
        self._dial_ended(peer)
        self._failures.pop(peer, None)
        if not core.table.add(contact, core.now, subnet):
            return
        self._changed(contact)
        if len(core.table.connected) == 1:
            self._buckets.later()
        if not self._all_spared or len(core.table.connected) > 1.5 * core.config.links_max:
            self._trim()
        if self._dialing:
            self._dial_siblings()
        self._maybe_settled()

    def closed(self, peer: PeerId) -> None:
        self._core.suspects.pop(peer, None)
        contact = self._core.table.remove(peer)
        if contact is not None:
            self._changed(contact)
            # It may come back, and others may still say that it is there: do not dial it at once.
            self._fail(peer)
            self._buckets.lost(contact)

    def connect_failed(self, peer: PeerId) -> None:
        if self._dial_ended(peer):
            self._fail(peer)
            self._retry_later(peer)
            self._dial_siblings()
            self._maybe_settled()

    def heard(self, peers: list[Found]) -> None:
        """Others named these peers. Those that belong among our siblings are dialed, those that fill a bucket remembered."""
        table = self._core.table
        me, bits, reach = self._core.me.key, self._core.config.stratum_bits, table.reach()
        connected = table.connected
        near = far = False
        for contact, via in peers:
            if contact.peer in connected:
                continue
            distance = contact.key ^ me
            if distance < reach:
                table.learn(contact, via)
                near = near or contact.peer in table.known
            else:
                bucket = distance.bit_length() - 1
                if self._buckets.lacks(bucket, stratum_of(contact.key, bucket, bits)):
                    far = table.learn(contact, via) or far
        if far:
            self._buckets.later()
        if near:
            self._dial_siblings()

    def missed(self, peer: PeerId) -> None:
        """A neighbour did not acknowledge in time: pass it over, and ask whether it is alive."""
        neighbour = self._core.table.connected.get(peer)
        if neighbour is None:
            return
        neighbour.misses += 1
        self._core.suspects[peer] = self._core.now + self._core.config.suspect_s
        if not neighbour.probing:
            neighbour.probing = True
            self._probe(peer)

    def spoke(self, neighbour: Neighbour) -> None:
        """Any message from a neighbour shows that it is alive."""
        if neighbour.misses:
            neighbour.misses = 0
            self._core.suspects.pop(neighbour.contact.peer, None)

    # -- siblings ----------------------------------------------------------------------------------------------------

    def _changed(self, contact: Contact) -> None:
        """If the change is among the siblings, look around soon, and see to the records."""
        core = self._core
        if (contact.key ^ core.me.key) > core.table.reach():
            return
        gained = contact.peer in core.table.connected
        if not self._settled:
            first = not self._checks and len(core.table.connected) == 1
            self._check_s = core.config.check_min_s
            self._check_later(0.0 if first else self._check_s * (0.25 + 0.5 * core.rng.random()))
        elif gained:  # whoever comes looks around itself; once it has, it is asked
            if len(self._newcomers) < NEWCOMERS_MAX:
                self._newcomers.append(contact.peer)
                core.at(core.now + core.config.look_gain_s * (0.75 + 0.5 * core.rng.random()), self._ask_newcomer)
        else:
            self._look_later(core.config.look_loss_s)
            self._check_s = min(self._check_s, core.config.check_loss_s)
            self._check_later(self._check_s * (0.25 + 0.5 * core.rng.random()))
        if gained:  # a newcomer is about to ask some of them
            self._tell(contact.peer, ask=False)
        self._replication.neighbourhood_changed()

    def _ask_newcomer(self, _: object) -> None:
        peer = self._newcomers.pop(0)
        if peer in self._core.table.connected:
            self._tell(peer, ask=True)

    def _look_later(self, delay_s: float) -> None:
        if not self._looking:
            self._looking = True
            self._core.at(self._core.now + delay_s * (0.25 + 0.5 * self._core.rng.random()), self._look)

    def _look(self, _: object) -> None:
        """Ask around among our siblings: what they know is most of what a change calls for, and costs little."""
        self._looking = False
        self._ask_neighbours()

    def _check_later(self, delay_s: float) -> None:
        when = self._core.now + delay_s
        if when < self._next_check:
            self._next_check = when
            self._core.at(when, self._check, when)

    def _check(self, when: float) -> None:
        if when != self._next_check:
            return
        self._next_check = float("inf")
        core = self._core
        if not core.table.connected:
            return
        self._operations.find(core.space.encode(core.me.key), self._checked, starts=(None, self._outsider()))
        self._ask_neighbours()
        self._check_later(self._check_s * (0.75 + 0.5 * core.rng.random()))
        self._check_s = min(self._check_s * 2, core.config.check_max_s)

    def _outsider(self) -> PeerId | None:
        """A random neighbour that is not a sibling. Siblings that have come to know only one another all say the same; whoever
        looks from outside sees who else is near."""
        table = self._core.table
        if len(table.connected) <= self._core.config.siblings:
            return None
        return table.anyone(self._core.rng, {c.peer for c in table.siblings()})

    def _checked(self, found: list[Found]) -> None:
        if found:
            self._checks += 1
        self.heard(found[: self._core.config.answer_peers_max])
        self._dial_siblings()
        self._maybe_settled()

    def _ask_neighbours(self) -> None:
        """Tell our siblings that they are, and ask the closest, the furthest and one in between for their neighbours: the
        closest alone knows our other side only in part."""
        core = self._core
        siblings = core.table.siblings()
        asked = {0, len(siblings) - 1, core.rng.randrange(len(siblings))} if siblings else set()
        for position, contact in enumerate(siblings):
            ask = position in asked
            if ask or core.table.connected[contact.peer].told_at < core.now - core.config.check_max_s:
                self._tell(contact.peer, ask=ask)

    def _tell(self, peer: PeerId, *, ask: bool) -> None:
        self._core.table.connected[peer].told_at = self._core.now
        self._core.send(peer, Near(ask))

    def on_near(self, peer: PeerId, message: Near) -> None:
        core = self._core
        key = core.space.contact(peer).key
        core.table.connected[peer].keep_until = core.now + 2.5 * core.config.check_max_s
        if not message.ask:
            return
        near = core.table.closest(key, core.config.answer_peers_max + 1)
        named = [c.peer.raw for c in near if c.peer != peer and not core.is_suspect(c.peer)]
        core.send(peer, NearPeers(named[: core.config.answer_peers_max], density.told(core.table)))

    def on_near_peers(self, peer: PeerId, message: NearPeers) -> None:
        core = self._core
        self.heard([(core.space.contact(raw), peer) for raw in message.peers[: core.config.answer_peers_max]])

    def on_seek(self, peer: PeerId, message: Seek) -> None:
        self._buckets.on_seek(peer, message)

    def _dial_siblings(self) -> None:
        """Dial known peers that belong among our siblings. What does not fit is dialed when another dial has ended."""
        now = self._core.now
        waiting = {peer for peer, (_, until) in self._failures.items() if until > now}
        self._dialing = False
        wanted = self._core.table.wanted_siblings(waiting)
        first = FIRST_DIALS if self._checks <= 1 and self._is_far_from(wanted) else len(wanted)
        for position, contact in enumerate(wanted):
            if contact.peer not in self._dials and (position >= first or not self._dial(contact)):
                self._dialing = True

    def _retry_later(self, peer: PeerId) -> None:
        """A dial failed. If that peer belongs among our siblings, do not leave it to the next search, long in coming."""
        core = self._core
        count, until = self._failures[peer]
        if (core.space.contact(peer).key ^ core.me.key) < core.table.reach() and peer in core.table.known:
            delay_s = core.config.sibling_retry_s * 2 ** (count - 1) * (0.75 + 0.5 * core.rng.random())
            core.at(max(until, core.now + delay_s), self._retry)

    def _retry(self, _: object) -> None:
        self._dial_siblings()

    def _is_far_from(self, wanted: list[Contact]) -> bool:
        """True if nobody we are connected to is as near as these. Then the closest come first, and lead to the others: each
        connection takes a way through the whole overlay otherwise."""
        siblings, me = self._core.table.siblings(), self._core.me.key
        return bool(wanted and siblings) and siblings[0].key ^ me > wanted[-1].key ^ me

    def _maybe_settled(self) -> None:
        if not self._settled and self._checks and not self._dialing and not self._dials_near():
            self._settled = True
            self._check_s = max(self._check_s, self._core.config.check_loss_s)
            self._core.effects.append(Settled())

    def _dials_near(self) -> bool:
        """True if a peer is being dialed that belongs among our siblings."""
        core = self._core
        return any(core.space.contact(peer).key ^ core.me.key < core.table.reach() for peer in self._dials)

    # -- dials -------------------------------------------------------------------------------------------------------

    def dial_through(self, peer: PeerId, introducer: PeerId) -> None:
        """Connect to a peer that a neighbour leads to."""
        contact = self._core.space.contact(peer)
        self._core.table.learn(contact, introducer)
        self._dial(contact)

    def _dial_far(self, contact: Contact) -> bool:
        """Dial a peer that is no sibling: half of the dials are left to siblings. False if there is no room for it."""
        table, config = self._core.table, self._core.config
        if len(self._dials) >= max(1, config.dials_max // 2):
            return False
        expected = len(table.connected) + len(self._dials)
        if expected >= config.links_max and not table.is_empty(bucket_of(table.me.key, contact.key)):
            return False
        return self._dial(contact)

    def _dial(self, contact: Contact) -> bool:
        core = self._core
        peer = contact.peer
        failed = self._failures.get(peer)
        if peer in self._dials or peer in core.table.connected or len(self._dials) >= core.config.dials_max:
            return False
        if failed is not None and failed[1] > core.now:
            return False
        self._dials[peer] = core.at(core.now + core.config.dial_timeout_s, self.connect_failed, peer)
        core.effects.append(Connect(peer))
        return True

    def _dial_ended(self, peer: PeerId) -> bool:
        timer = self._dials.pop(peer, None)
        if timer is not None:
            self._core.cancel(timer)
        return timer is not None

    def _fail(self, peer: PeerId) -> None:
        core = self._core
        count = self._failures.pop(peer, (0, 0.0))[0] + 1
        if len(self._failures) >= FAILURES_MAX:
            del self._failures[next(iter(self._failures))]
        delay_s = min(core.config.dial_backoff_s * 2 ** (count - 1), core.config.dial_backoff_max_s)
        self._failures[peer] = (count, core.now + delay_s * (0.75 + 0.5 * core.rng.random()))
        if count >= FAILURES_FORGET:
            core.table.forget(peer)

    # -- too many ----------------------------------------------------------------------------------------------------

    def _trim(self) -> None:
        """Close the connection that matters least, if there are too many; again later if there still are."""
        core = self._core
        if len(core.table.connected) <= core.config.links_max:
            return
        victim = core.table.victim(core.now)
        if victim is not None:
            core.effects.append(Disconnect(victim.peer, "too many connections"))
        self._all_spared = victim is None
        if not self._trimming:
            self._trimming = True
            core.at(core.now + core.config.newcomer_s / 10, self._trim_again)

    def _trim_again(self, _: object) -> None:
        self._trimming = self._all_spared = False
        self._trim()

    # -- suspects ----------------------------------------------------------------------------------------------------

    def _probe(self, peer: PeerId) -> None:
        core = self._core
        neighbour = core.table.connected.get(peer)
        if neighbour is None:
            return
        if not neighbour.misses:
            neighbour.probing = False
            return
        if neighbour.misses > core.config.silent_max:
            core.effects.append(Disconnect(peer, "does not answer"))
            neighbour.probing = False
            return
        core.send(peer, Ping(core.number()))
        core.at(core.now + core.config.suspect_s, self._probed, peer)

    def _probed(self, peer: PeerId) -> None:
        neighbour = self._core.table.connected.get(peer)
        if neighbour is not None and neighbour.misses:
            neighbour.misses += 1
            self._core.suspects[peer] = self._core.now + self._core.config.suspect_s
        self._probe(peer)
