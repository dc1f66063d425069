"""Keeping records at the peers closest to their keys: writes, and repair when neighbours come and go.

A write reaches the closest peer, which stores it at the replica set as it sees it and answers with what these sign for it.
Repair compares digests: the two closest peers offer what they hold to the other replicas, and these offer theirs to the closest;
whoever lacks something asks for it. A pass walks the store in steps, so that a large store never blocks the node.
"""

from __future__ import annotations

from agent.dht.core import Core, Timer
from agent.dht.messages import (
    Digest,
    Entry,
    Item,
    Offer,
    Result,
    Statement,
    Status,
    Store,
    Stored,
    Want,
    decode_records,
    encode,
)
from agent.dht.records import Record
from agent.dht.router import Leg, in_messages
from agent.dht.statements import receipt
from agent.errors import ProtocolViolation, RecordError
from agent.identity import PeerId

OFFER_S = 10.0  # how long an offer may be taken up
OFFERS_MAX = 1024
THOROUGH = 3  # of so many passes one is thorough
WRITES_MAX = 4096  # Store messages whose answer is awaited


class _Write:
    """A routed write that waits for its replicas."""

    __slots__ = ("leg", "statements", "status", "waiting")

    def __init__(self, leg: Leg) -> None:
        self.leg = leg
        self.status: dict[int, Status] = {}  # item -> what to answer with
        self.statements: list[Statement] = []  # of those who keep it
        self.waiting = 0


class _Call:
    """A Store on its way. `write` is None for repairs."""

    __slots__ = ("indices", "peer", "timer", "write")

    def __init__(self, peer: PeerId, indices: list[int], write: _Write | None, timer: Timer) -> None:
        self.timer = timer
        self.peer = peer
        self.indices = indices
        self.write = write


class Replication:
    """The holder's side of the DHT."""

    __slots__ = ("_calls", "_core", "_offers", "_pass", "_pass_at", "_passes", "repaired")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._calls: dict[int, _Call] = {}
        self._offers: dict[int, tuple[PeerId, float, set[bytes]]] = {}
        self._pass: list[bytes] = []  # keys that the current pass has yet to look at
        self._pass_at = float("inf")
        self._passes = 0  # begun
        self.repaired = 0  # records that neighbours asked for

    def begin(self) -> None:
        """Start the periodic passes."""
        self._schedule(self._core.config.repair_period_s * (0.5 + self._core.rng.random()))

    # -- writes ------------------------------------------------------------------------------------------------------

    def write(self, leg: Leg, items: list[tuple[Item, Status]]) -> None:
        """Store what a PUT brought, here and at the other replicas, then answer with that status."""
        core = self._core
        write = _Write(leg)
        batches: dict[PeerId, list[tuple[int, Record]]] = {}
        kept: list[tuple[int, Record]] = []
        for item, status in items:
            write.status[item.index] = status
            record = _only_record(item)
            if record is None or not core.store.is_acceptable(record, core.now):
                continue
            for contact in core.replica_set(core.space.decode(item.key)):
                if contact.peer != core.me.peer:
                    batches.setdefault(contact.peer, []).append((item.index, record))
                elif self._keep(record):
                    kept.append((item.index, record))
        if kept:
            signature = receipt(core.seal, leg.token, [record for _, record in kept])
            write.statements.append(Statement(core.me.peer.raw, [Entry(index) for index, _ in kept], signature))
        for peer, entries in batches.items():
            self._store(peer, entries, write)
        if not write.waiting:
            self._answer(write)

    def on_store(self, peer: PeerId, message: Store) -> None:
        refused = [i for i, record in enumerate(message.records) if not self._keep(record)]
        signature = b""
        if message.token and len(refused) < len(message.records):
            kept = [record for i, record in enumerate(message.records) if i not in refused]
            signature = receipt(self._core.seal, message.token, kept)
        self._core.send(peer, Stored(message.call, refused, signature))

    def on_stored(self, peer: PeerId, message: Stored) -> None:
        call = self._calls.get(message.call)
        if call is None or call.peer != peer:
            return
        del self._calls[message.call]
        self._core.cancel(call.timer)
        if call.write is not None:
            refused = set(message.refused)
            kept = [Entry(index) for position, index in enumerate(call.indices) if position not in refused]
            if kept:
                call.write.statements.append(Statement(peer.raw, kept, message.signature))
            self._arrived(call.write)

    def on_closed(self, peer: PeerId) -> None:
        for number in [n for n, call in self._calls.items() if call.peer == peer]:
            self._give_up(number)

    def _keep(self, record: Record) -> bool:
        try:
            self._core.store.put(record, self._core.now)
        except RecordError:
            return False
        return True

    def _store(self, peer: PeerId, entries: list[tuple[int, Record]], write: _Write | None) -> None:
        core = self._core
        for part in in_messages(entries, lambda entry: entry[1].wire_bytes):
            if len(self._calls) >= WRITES_MAX:
                return
            call = core.number()
            timer = core.at(core.now + core.config.hop_timeout_s, self._missed, call)
            self._calls[call] = _Call(peer, [index for index, _ in part], write, timer)
            if write is not None:
                write.waiting += 1
            core.send(peer, Store(call, [record for _, record in part], write.leg.token if write else b""))

    def _missed(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None:
            self._core.on_miss(call.peer)
            self._give_up(number)

    def _give_up(self, number: int) -> None:
        call = self._calls.pop(number)
        self._core.cancel(call.timer)
        if call.write is not None:
            self._arrived(call.write)

    def _arrived(self, write: _Write) -> None:
        write.waiting -= 1
        if not write.waiting:
            self._answer(write)

    def _answer(self, write: _Write) -> None:
        results = [Result(s.entries[0].index, Status.STATEMENT, encode(s), True) for s in write.statements]
        write.leg.sink.deliver(results + [Result(index, status, b"") for index, status in write.status.items()])

    # -- reads -------------------------------------------------------------------------------------------------------

    def read(self, item: Item, status: Status) -> list[Result]:
        """What this node holds under an item's key, in parts that fit in messages, with that status."""
        records = self._core.store.get(item.key, self._core.now)
        parts = list(in_messages(records, lambda r: r.wire_bytes)) or [[]]
        return [Result(item.index, status, encode(part), i + 1 < len(parts)) for i, part in enumerate(parts)]

    def give(self, peer: PeerId, records: list[Record]) -> None:
        """Have a neighbour keep these, as a repair."""
        self.repaired += len(records)
        self._store(peer, [(0, record) for record in records], None)

    # -- repair ------------------------------------------------------------------------------------------------------

    def neighbourhood_changed(self) -> None:
        """A close neighbour came or went: look through the records soon, if there are any."""
        if not len(self._core.store):
            return
        self._schedule(self._core.config.repair_delay_s * (0.5 + self._core.rng.random()))

    def _schedule(self, delay_s: float) -> None:
        when = self._core.now + delay_s
        if when < self._pass_at:
            self._pass_at = when
            self._core.at(when, self._begin_pass, when)

    def _begin_pass(self, when: float) -> None:
        if when != self._pass_at:
            return  # an earlier one was scheduled since
        self._pass_at = float("inf")
        going_on = bool(self._pass)
        self._pass = list(self._core.store.keys())
        self._passes += 1
        if self._pass and not going_on:
            self._core.at(self._core.now, self._step)
        self._schedule(self._core.config.repair_period_s * (0.75 + 0.5 * self._core.rng.random()))

    def _step(self, _: object) -> None:
        core = self._core
        keys, self._pass = self._pass[: core.config.repair_keys_max], self._pass[core.config.repair_keys_max :]
        offers: dict[PeerId, list[Digest]] = {}
        for key in keys:
            digest = core.store.digest(key, core.now)
            if not digest:
                continue
            replicas = core.replica_set(core.space.decode(key))
            # The closest two offer to all, the others to the closest, which may know more than they do. But one of the closest
            # may have a connection to neither of the first two, only to another holder: so all offer to all in one pass of three.
            targets = replicas if self._passes % THOROUGH == 1 or core.me in replicas[:2] else replicas[:1]
            for contact in targets:
                if contact.peer != core.me.peer:
                    offers.setdefault(contact.peer, []).append(Digest(key, digest))
        for peer, entries in offers.items():
            for part in in_messages(entries, lambda entry: 48):
                self._offer(peer, part)
        if self._pass:
            core.at(core.now + core.config.repair_step_s, self._step)

    def _offer(self, peer: PeerId, entries: list[Digest]) -> None:
        core = self._core
        while self._offers:
            oldest = next(iter(self._offers))
            if self._offers[oldest][1] > core.now and len(self._offers) < OFFERS_MAX:
                break
            del self._offers[oldest]
        call = core.number()
        self._offers[call] = (peer, core.now + OFFER_S, {entry.key for entry in entries})
        core.send(peer, Offer(call, entries))

    def on_offer(self, peer: PeerId, message: Offer) -> None:
        core = self._core
        keys = [
            entry.key
            for entry in message.entries
            if len(entry.key) == core.space.key_bytes and core.store.digest(entry.key, core.now) != entry.digest
        ]
        if keys:
            core.send(peer, Want(message.call, keys))

    def on_want(self, peer: PeerId, message: Want) -> None:
        """Give what was offered, once."""
        core = self._core
        offer = self._offers.get(message.call)
        if offer is None or offer[0] != peer:
            return
        del self._offers[message.call]
        entries = [(0, r) for key in dict.fromkeys(message.keys) if key in offer[2] for r in core.store.get(key, core.now)]
        self.repaired += len(entries)
        self._store(peer, entries, None)


def _only_record(item: Item) -> Record | None:
    """The one record of a PUT item, if it is well formed and belongs there."""
    try:
        records = decode_records(item.body)
    except ProtocolViolation:
        return None
    return records[0] if len(records) == 1 and records[0].key == item.key else None
