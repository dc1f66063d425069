"""Writing our own records again and again, until they expire or we write newer ones.

Repair keeps a record as long as one of its holders lives. If all of them die at once, only its owner can bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.dht.core import Core
from agent.dht.messages import Item, Kind, encode
from agent.dht.operations import Operations
from agent.dht.records import Record

Place = tuple[bytes, str]  # key, subkey


class Republisher:
    """Remembers what this node's owner has written, up to `republished_max` records; the oldest is forgotten first."""

    __slots__ = ("_core", "_operations", "_own", "written")

    def __init__(self, core: Core, operations: Operations) -> None:
        self._core = core
        self._operations = operations
        self._own: dict[Place, Record] = {}
        self.written = 0  # records written again

    def note(self, records: Sequence[Record]) -> None:
        """These have been written. Those of other owners are not ours to keep alive."""
        core = self._core
        for record in records:
            place = (record.key, record.subkey)
            if record.owner != core.me.peer or record.expires_at <= core.now + core.config.republish_s:
                self._own.pop(place, None)  # it expires, or is renewed by its owner, before we would see to it
                continue
            self._own.pop(place, None)
            if len(self._own) >= core.config.republished_max:
                del self._own[next(iter(self._own))]
            self._own[place] = record
            self._later(record)

    def _later(self, record: Record) -> None:
        core = self._core
        core.at(core.now + core.config.republish_s * (0.75 + 0.5 * core.rng.random()), self._again, record)

    def _again(self, record: Record) -> None:
        if self._own.get((record.key, record.subkey)) is not record:
            return
        if record.expires_at <= self._core.now:
            del self._own[record.key, record.subkey]
            return
        self.written += 1
        self._operations.start(Kind.PUT, [Item(0, record.key, encode([record]))], lambda search: None, paths=1)
        self._later(record)
