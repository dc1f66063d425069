"""What is known of the prefixes of grids that are too large to know whole. Sans-IO, not thread-safe: the Directory locks.

An agent reads from the DHT those prefixes that its beam searches come by, all that one search wants in one go. The records under
`ffn0.` are hints that something lives below a coordinate; those under the last prefix, `ffn0.3.`, are the leases themselves, with
their expiry, so that a search need not ask again whether what it has found is alive, and where.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from agent.errors import RecordError
from agent.experts.records import PrefixHint, StoredRecord, decode
from agent.grid import ExpertId, Grid, prefix

NAMES_MAX = 4096
"""Prefixes that are remembered; the one longest unused is forgotten first."""


class _Prefix:
    __slots__ = ("hints", "read_at", "used_at")

    def __init__(self) -> None:
        self.read_at = float("-inf")
        self.used_at = float("-inf")
        self.hints: dict[int, float] = {}
        """Coordinate -> until when something below it is believed to live."""


class PrefixBook:
    """Of `grids`. Times in seconds: what was read is known for `fresh_s`, and in use for `use_s` after it was asked for."""

    def __init__(self, grids: Sequence[Grid], *, fresh_s: float, use_s: float) -> None:
        self._grids = {grid.layer: grid for grid in grids}
        self._fresh_s = fresh_s
        self._use_s = use_s
        self._prefixes: OrderedDict[str, _Prefix] = OrderedDict()

    def unknown(self, names: Iterable[str], now: float) -> list[str]:
        """Those that must be read before they can be used. Notes that all of them are in use."""
        stale = []
        for name in names:
            entry = self._entry(name)
            entry.used_at = now
            if now - entry.read_at >= self._fresh_s:
                stale.append(name)
        return stale

    def in_use(self, now: float) -> list[str]:
        """What is worth reading again before it is asked for: the roots, and what was used lately."""
        roots = [prefix(layer) for layer in self._grids]
        used = [name for name, entry in self._prefixes.items() if now - entry.used_at < self._use_s]
        return list(dict.fromkeys([*roots, *used]))

    def hinted(self, name: str, now: float) -> tuple[int, ...]:
        """Coordinates below which something is believed to live, ascending."""
        entry = self._prefixes.get(name)
        return () if entry is None else tuple(sorted(c for c, until in entry.hints.items() if until > now))

    def absorb(
        self, found: Mapping[str, Sequence[StoredRecord]], *, now: float, unix: float, hint_s: float
    ) -> dict[ExpertId, list[StoredRecord]]:
        """Take in what was just read; the records of leases in it, by expert. No hint is believed for longer than `hint_s`.

        `now` is monotonic and `unix` the same moment in Unix time, in which records expire.
        """
        leases: dict[ExpertId, list[StoredRecord]] = {}
        for name, records in found.items():
            grid, coordinates = self._parse(name)
            entry = self._entry(name)
            entry.read_at = now
            side = grid.shape[len(coordinates)]
            last = len(coordinates) + 1 == len(grid.shape)
            hints: dict[int, float] = {}
            for record in records:
                if not record.subkey.isascii() or not record.subkey.isdecimal() or len(record.subkey) > 3:
                    continue
                coordinate = int(record.subkey)
                if coordinate >= side:
                    continue
                if last:
                    leases.setdefault(ExpertId(grid.layer, (*coordinates, coordinate)), []).append(record)
                elif _leads_to(record, grid, (*coordinates, coordinate)):
                    hints[coordinate] = max(hints.get(coordinate, 0.0), now + min(record.expires_at - unix, hint_s))
            entry.hints = hints
        return leases

    def _entry(self, name: str) -> _Prefix:
        self._parse(name)
        entry = self._prefixes.get(name)
        if entry is None:
            if len(self._prefixes) >= NAMES_MAX:
                self._prefixes.popitem(last=False)
            entry = self._prefixes[name] = _Prefix()
        self._prefixes.move_to_end(name)
        return entry

    def _parse(self, name: str) -> tuple[Grid, tuple[int, ...]]:
        """Raises ValueError for what is no prefix of our grids."""
        layer, *parts = name.removesuffix(".").split(".")
        grid = self._grids.get(layer)
        if grid is None or not name.endswith(".") or len(parts) >= len(grid.shape):
            raise ValueError(f"{name!r} is not a prefix of {', '.join(self._grids) or 'any grid'}")
        return grid, tuple(int(part) for part in parts)


def _leads_to(record: StoredRecord, grid: Grid, coordinates: tuple[int, ...]) -> bool:
    """True if the hint names an expert of the grid that lies below those coordinates."""
    try:
        uid = ExpertId.parse(decode(record.value, PrefixHint).uid)
    except (RecordError, ValueError):
        return False
    return uid in grid and uid.coordinates[: len(coordinates)] == coordinates
