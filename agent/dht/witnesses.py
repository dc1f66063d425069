"""A holder's part in careful reads: answering them together with the other holders, and signing what they answer.

Whoever a READ comes to asks the other replicas what they hold besides its own records (Attest), and sends all statements back in
one answer. What it learns in passing repairs records: it keeps what others have that is newer, passes that on to those who did
not have it either, and gives them what they lack.
"""

from __future__ import annotations

from agent.dht.core import Core, Timer
from agent.dht.messages import (
    LACKS_MAX,
    Attest,
    Attested,
    Claim,
    Entry,
    Item,
    Result,
    Statement,
    Status,
    encode,
)
from agent.dht.records import Record
from agent.dht.replication import Replication
from agent.dht.router import Leg, in_messages
from agent.dht.statements import STAMP_BYTES, Subject, signed, stamp, stamps
from agent.errors import RecordError
from agent.identity import PeerId

READINGS_MAX = 1024  # careful reads that wait for other holders
READINGS_PER_PEER_MAX = 128  # the same for one neighbour; what is beyond is answered without them
EXTRA_BYTES_MAX = 8 * 1024  # records that a holder adds to an answer
EXTRA_MAX = 64  # the same, for one key


class _Reading:
    """A READ that waits for the other holders."""

    __slots__ = ("calls", "items", "leg", "records", "statements", "timer")

    def __init__(self, leg: Leg, items: list[tuple[Item, Status]], records: dict[int, list[Record]]) -> None:
        self.leg = leg
        self.items = items
        self.records = records  # item -> what is answered
        self.statements: list[Statement] = []
        self.calls: dict[int, PeerId] = {}
        self.timer: Timer | None = None


class Witnesses:
    """See the module."""

    __slots__ = ("_core", "_open", "_per_peer", "_replication", "mended")

    def __init__(self, core: Core, replication: Replication) -> None:
        self._core = core
        self._replication = replication
        self._open: dict[int, _Reading] = {}  # call -> reading
        self._per_peer: dict[PeerId | None, int] = {}
        self.mended = 0  # records that a read brought to a holder that had none or an older one

    # -- whoever a read comes to -------------------------------------------------------------------------------------

    def read(self, leg: Leg, items: list[tuple[Item, Status]]) -> None:
        """Answer a READ: with what we hold, our statement on it, and those of the other holders."""
        core = self._core
        records = {item.index: core.store.get(item.key, core.now) for item, _ in items}
        reading = _Reading(leg, items, records)
        near = [item for item, status in items if status == Status.OK]
        if near:
            self._state(reading, near)
            if len(self._open) < READINGS_MAX and self._per_peer.get(leg.source, 0) < READINGS_PER_PEER_MAX:
                self._ask(reading, near)
        if reading.calls:
            self._count(leg.source, +1)
            reading.timer = core.at(core.now + core.config.witness_timeout_s, self._late, reading)
        else:
            self._answer(reading)

    def _state(self, reading: _Reading, near: list[Item]) -> None:
        subjects: list[Subject] = [(item.key, stamps(reading.records[item.index]), b"") for item in near]
        bare = Statement(self._core.me.peer.raw, [Entry(item.index) for item in near])
        reading.statements.append(signed(self._core.seal, bare, reading.leg.token, subjects))

    def _ask(self, reading: _Reading, items: list[Item]) -> None:
        core = self._core
        claims: dict[PeerId, list[Claim]] = {}
        for item in items:
            claim = Claim(item.index, item.key, stamps(reading.records[item.index]))
            for contact in core.replica_set(core.space.decode(item.key)):
                if contact.peer not in (core.me.peer, reading.leg.origin.peer):
                    claims.setdefault(contact.peer, []).append(claim)
        for peer, entries in claims.items():
            for part in in_messages(entries, lambda claim: len(claim.stamps) + 48):
                call = core.number()
                self._open[call] = reading
                reading.calls[call] = peer
                core.send(peer, Attest(call, reading.leg.token, part))

    def on_attested(self, peer: PeerId, message: Attested) -> None:
        reading = self._open.get(message.call)
        if reading is None or reading.calls[message.call] != peer or message.statement.holder != peer.raw:
            return
        self._close(reading, message.call)
        reading.statements.append(message.statement)
        self._mend(reading, peer, message)
        if not reading.calls:
            self._answer(reading)

    def on_closed(self, peer: PeerId) -> None:
        for call, reading in [(c, r) for c, r in self._open.items() if r.calls[c] == peer]:
            self._close(reading, call)
            if not reading.calls:
                self._answer(reading)

    def _late(self, reading: _Reading) -> None:
        for call, peer in list(reading.calls.items()):
            self._core.on_miss(peer)
            self._close(reading, call)
        self._answer(reading)

    def _close(self, reading: _Reading, call: int) -> None:
        del reading.calls[call], self._open[call]

    def _count(self, peer: PeerId | None, change: int) -> None:
        count = self._per_peer.get(peer, 0) + change
        if count:
            self._per_peer[peer] = count
        else:
            self._per_peer.pop(peer, None)

    def _answer(self, reading: _Reading) -> None:
        """Statements first: an item is over with its last records."""
        if reading.timer is not None:
            self._core.cancel(reading.timer)
            reading.timer = None
            self._count(reading.leg.source, -1)
        asked = {item.index for item, _ in reading.items}
        results = [
            Result(s.entries[0].index, Status.STATEMENT, encode(s), True)
            for s in reading.statements
            if s.entries and all(entry.index in asked for entry in s.entries)
        ]
        for item, status in reading.items:
            parts = list(in_messages(reading.records[item.index], lambda r: r.wire_bytes)) or [[]]
            results += [Result(item.index, status, encode(part), i + 1 < len(parts)) for i, part in enumerate(parts)]
        reading.leg.sink.deliver(results)

    def _mend(self, reading: _Reading, peer: PeerId, message: Attested) -> None:
        """Read repair: keep what is newer elsewhere, and pass it on; give what is lacking elsewhere."""
        core = self._core
        keys = {item.index: item.key for item, _ in reading.items}
        for entry in message.statement.entries:
            for record in entry.extra:
                if record.key != keys.get(entry.index):
                    continue
                try:
                    fresh = core.store.put(record, core.now)
                except RecordError:
                    continue
                if fresh:
                    self._pass_on(record, peer)
        if message.lacks:
            wanted = set(message.lacks)
            held = [r for records in reading.records.values() for r in records if stamp(r) in wanted][:LACKS_MAX]
            self.mended += len(held)
            self._replication.give(peer, held)

    def _pass_on(self, record: Record, source: PeerId) -> None:
        core = self._core
        self.mended += 1
        for contact in core.replica_set(core.space.decode(record.key)):
            if contact.peer not in (core.me.peer, source):
                self._replication.give(contact.peer, [record])

    # -- the other holders -------------------------------------------------------------------------------------------

    def on_attest(self, peer: PeerId, message: Attest) -> None:
        """Sign what we hold besides what a neighbour is about to answer. Keys for which that would not fit are left out."""
        core = self._core
        entries: list[Entry] = []
        subjects: list[Subject] = []
        lacks: list[bytes] = []
        room = EXTRA_BYTES_MAX
        for claim in message.claims:
            if len(claim.key) != core.space.key_bytes or len(claim.stamps) % STAMP_BYTES:
                continue
            theirs = [claim.stamps[i : i + STAMP_BYTES] for i in range(0, len(claim.stamps), STAMP_BYTES)]
            held = {stamp(r): r for r in core.store.get(claim.key, core.now)}
            lacks += [s for s in theirs if s not in held]
            extra = [held[s] for s in held.keys() - set(theirs)]
            extra.sort(key=lambda r: (r.subkey, r.owner))
            room -= sum(r.wire_bytes for r in extra)
            if room < 0 or len(extra) > EXTRA_MAX:
                break
            entries.append(Entry(claim.index, extra))
            subjects.append((claim.key, claim.stamps, stamps(extra)))
        statement = signed(core.seal, Statement(core.me.peer.raw, entries), message.token, subjects)
        core.send(peer, Attested(message.call, statement, lacks[:LACKS_MAX]))
