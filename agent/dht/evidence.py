"""What a reader knows of who holds a key, and when that is enough to believe that nothing newer is held.

A statement counts if its signature is right, it speaks of exactly the records that came on its path, and its signer lies as
close to the key as holders do (density.py): signatures of far-off peers are cheap, close ones are not. The newest record of all
counts, so one honest holder among those that have signed is enough to find out the others.

Of five holders, with one peer in ten lying, all five lie with a probability of 0.00001, the first three that answer with 0.001.
So all are wanted, on two paths; if some are missing, more paths have to confirm the answer, and less than half are never enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.dht import density
from agent.dht.core import Core
from agent.dht.messages import Item, Kind, Statement, decode_records, decode_statement
from agent.dht.records import Record
from agent.dht.routing_table import FAR
from agent.dht.statements import Subject, said, stamps
from agent.identity import PeerId

SPREAD = 2  # how many times further from the key than usual the furthest holder may lie, to be counted in full
WIDE_SPREAD = 4  # the same, to be counted if there are no others
FAR_SPREAD = 16  # the same, while we know only our own surroundings, which may be much denser (one in five hundred)
FAR_PATHS = 3  # on each of so many has half of the holders to sign together then; whoever lies for itself is alone on a path
SMALL_BITS = 2  # where siblings reach over 1/2**SMALL_BITS of all keys there are some thirty peers at most: all are close
SPOILT = b"?"
PATHS_ENOUGH = 5  # that have to confirm, however few holders have signed, as long as it is half of them
STATEMENTS_PER_ITEM_MAX = 16  # on one path, on average

Extra = tuple[int, Sequence[Record]]
"""Item, and what a holder has besides."""


class Evidence:
    """For one READ, or for one PUT, in which each holder signs for the record that is written."""

    __slots__ = (
        "_core",
        "_far",
        "_is_sure",
        "_items",
        "_kind",
        "_near",
        "_over",
        "_pending",
        "_reach",
        "_stamps",
        "_together",
        "_token",
        "_written",
        "holders",
        "lenience",
        "paths",
        "signers",
    )

    def __init__(self, core: Core, kind: Kind, token: bytes, items: Mapping[int, Item]) -> None:
        self._core = core
        reach, self._is_sure = density.usual_reach(core.table, core.now)
        self._reach = FAR if reach << SMALL_BITS >> core.space.bits else reach
        self._kind = kind
        self._token = token
        self._items = items
        self._written: dict[int, bytes] = {}  # PUT: item -> stamp of its record
        self._stamps: dict[tuple[int, int], bytes] = {}  # path, item -> of the records that have come
        self._over: set[tuple[int, int]] = set()  # path, item: all its records have come
        self._pending: dict[int, list[Statement]] = {}
        self._together: dict[tuple[int, int], set[PeerId]] = {}  # path, item -> who has signed on that path
        self._near: dict[int, dict[int, set[PeerId]]] = {index: {} for index in items}  # item -> path -> signers, WIDE_SPREAD
        self._far: dict[int, dict[int, set[PeerId]]] = {index: {} for index in items}  # the same, FAR_SPREAD
        self.lenience = 0  # paths that are done without, because time runs out
        self.paths: dict[int, set[int]] = {index: set() for index in items}  # item -> paths that a holder has signed on
        self.signers: dict[int, set[PeerId]] = {index: set() for index in items}  # item -> holders that count
        self.holders: dict[int, set[PeerId]] = {index: set() for index in items}  # the same, and those from a little further off
        for index, item in items.items():
            if kind == Kind.PUT:
                self._written[index] = stamps(decode_records(item.body))
            elif core.is_replica(core.space.decode(item.key)):
                self.signers[index].add(core.me.peer)

    def note_records(self, path: int, index: int, records: Sequence[Record]) -> None:
        """Records came as a part of an answer."""
        self._stamps[path, index] = self._stamps.get((path, index), b"") + stamps(records)

    def note_statement(self, path: int, payload: bytes) -> None:
        """A statement came; it is checked when all that it speaks of has come. Raises ProtocolViolation."""
        pending = self._pending.setdefault(path, [])
        statement = decode_statement(payload)
        if len(pending) < STATEMENTS_PER_ITEM_MAX * len(self._items):
            pending.append(statement)

    def spoil(self, path: int, index: int) -> None:
        """Somebody lies on this path: statements about the item mean nothing."""
        self._stamps[path, index] = SPOILT

    def close(self, path: int, index: int) -> None:
        """No more records of this item come on this path."""
        self._over.add((path, index))

    def checked(self, path: int) -> list[Extra]:
        """Check what can be checked on a path, and count its signers; what they hold besides is returned, verified."""
        waiting: list[Statement] = []
        extras: list[Extra] = []
        for statement in self._pending.pop(path, ()):
            if not all(entry.index in self._items for entry in statement.entries):
                continue
            if not all((path, entry.index) in self._over for entry in statement.entries):
                waiting.append(statement)
            elif self._is_true(path, statement):
                extras += self._count(path, statement)
        if waiting:
            self._pending[path] = waiting
        return extras

    def _is_true(self, path: int, statement: Statement) -> bool:
        core = self._core
        subjects: list[Subject] = []
        for entry in statement.entries:
            listed = self._stamps.get((path, entry.index), self._written.get(entry.index, b""))
            key = self._items[entry.index].key
            forged = any(
                r.key != key or not core.store.is_acceptable(r, core.now) for r in entry.extra if r.expires_at > core.now
            )
            if listed is SPOILT or forged:
                return False
            subjects.append((key, listed, stamps(entry.extra)))
        holder = core.space.contact(statement.holder).peer
        return core.seal.check(holder, said(self._kind, self._token, subjects), statement.signature)

    def _count(self, path: int, statement: Statement) -> list[Extra]:
        contact = self._core.space.contact(statement.holder)
        extras: list[Extra] = []
        for entry in statement.entries:
            if entry.extra:
                extras.append((entry.index, entry.extra))
            self._together.setdefault((path, entry.index), set()).add(contact.peer)
            distance = contact.key ^ self._core.space.decode(self._items[entry.index].key)
            if not self._is_sure and self._is_within(distance, FAR_SPREAD):
                self._far[entry.index].setdefault(path, set()).add(contact.peer)
            if self._is_within(distance, WIDE_SPREAD):
                self._near[entry.index].setdefault(path, set()).add(contact.peer)
                self.holders[entry.index].add(contact.peer)
                self.paths[entry.index].add(path)
            if self._is_within(distance, SPREAD):
                self.signers[entry.index].add(contact.peer)
        return extras

    def _is_within(self, distance: int, spread: int) -> bool:
        """True if a holder may be that far from its key: so far as siblings usually reach, by their numbers."""
        config = self._core.config
        return distance * config.siblings <= spread * config.replicas * self._reach

    # -- when it is enough -------------------------------------------------------------------------------------------

    def short_of(self, index: int) -> int:
        """How many more paths have to bring statements about this item; 0: it is answered."""
        wanted = self._wanted()
        missing = max(0, wanted - len(self.signers[index]))
        config = self._core.config
        if self._kind == Kind.READ:
            paths = config.read_confirmations + (config.read_doubts if missing else 0)
        else:
            paths = config.write_confirmations
        paths = max(1, min(paths + missing, PATHS_ENOUGH) - self.lenience)
        return max(paths - len(self.paths[index]), 0 if self.is_acceptable(index) else 1)

    def is_acceptable(self, index: int) -> bool:
        """True if it may be believed when no path is left to try: on one of them half of the holders have signed. Whoever lies
        for itself is alone on its path, and three such liars on three paths are not three holders."""
        if self._kind == Kind.PUT:
            return self.kept_by(index) > 0
        half = (self._wanted() + 1) // 2
        if sum(len(signers) >= half for signers in self._far[index].values()) >= FAR_PATHS:
            return True
        own = self.signers[index] & {self._core.me.peer}
        return any(len(signers | own) >= half for signers in self._near[index].values())

    def kept_by(self, index: int) -> int:
        """PUT: how many holders have signed that they keep it; 0 if on no path half of them have. Liars on many paths, each of
        whom signs for itself, are not holders together."""
        most = max(len(self._together.get((path, index), ())) for path in range(self._core.config.paths_max))
        return max(most, len(self.holders[index])) if most >= (self._wanted() + 1) // 2 else 0

    def _wanted(self) -> int:
        core = self._core
        return min(core.replica_count(), len(core.table.connected) + 1)
