"""The grid of experts as a honeycomb, drawn by the server so that it stands before any script runs. Pure geometry.

The scripts colour the cells by who hosts each (frontend/src/elements/expert-comb.ts); they move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from agent.grid import ExpertId
from coordinator.telemetry.shapes import Expert

RADIUS = 46.0
"""Of a cell, in units of the picture; one is a CSS pixel at full size."""
GAP = 2.6
LINE_COLUMNS = 8
"""A one-dimensional grid is wrapped into lines of this many."""
CELLS_MAX = 1024
"""Larger grids have only their table."""
STALE_S = 6.0
"""An expert that was not reported for so long is drawn as stale."""
_STEP_X, _STEP_Y = math.sqrt(3) * RADIUS, 1.5 * RADIUS


def _hexagon(radius: float) -> str:
    corners = [(math.pi / 3 * i + math.pi / 6) for i in range(6)]
    return "M" + "L".join(f"{radius * math.cos(a):.2f} {radius * math.sin(a):.2f}" for a in corners) + "Z"


HEXAGON = _hexagon(RADIUS - GAP)


@dataclass(frozen=True, slots=True)
class Cell:
    """One expert's place."""

    expert: Expert
    x: str
    y: str
    state: str
    """`hosted`, `single` (hosted, one copy only), `stale`, `vacant` (its host is gone) or `never` (nobody ever had it)."""
    words: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's comb."""

    name: str
    width: int
    height: int
    cells: list[Cell]
    hosted: int

    @property
    def box(self) -> str:
        """The SVG viewBox."""
        return f"-2 -2 {self.width} {self.height}"


def layers(experts: Sequence[Expert], now: float) -> list[Layer]:
    """One comb per layer: rows by all coordinates but the last. `experts` in the grid's order."""
    shown = experts[:CELLS_MAX]
    return [_layer(name, list(of_it), now) for name, of_it in groupby(shown, key=lambda e: e.uid.partition(".")[0])]


def state(expert: Expert, now: float) -> str:
    """How the cell is drawn."""
    if expert.peer is None:
        return "never" if expert.seen_at is None else "vacant"
    if expert.seen_at is not None and now - expert.seen_at > STALE_S:
        return "stale"
    return "single" if expert.copies < 2 else "hosted"


WORDS = {
    "hosted": "hosted",
    "single": "hosted, one copy only",
    "stale": "hosted, not reported lately",
    "vacant": "nobody hosts it",
    "never": "nobody has hosted it yet",
}


def _layer(name: str, experts: list[Expert], now: float) -> Layer:
    coordinates = [ExpertId.parse(e.uid).coordinates for e in experts]
    flat = all(len(c) == 1 for c in coordinates)
    rows: dict[tuple[int, ...], int] = {}
    places = []
    for i, expert in enumerate(experts):
        key = (i // LINE_COLUMNS,) if flat else coordinates[i][:-1]
        places.append((expert, rows.setdefault(key, len(rows)), i % LINE_COLUMNS if flat else coordinates[i][-1]))
    columns = max(column for _, _, column in places) + 1
    return Layer(
        name=name,
        width=round(_STEP_X * (columns + (0.5 if len(rows) > 1 else 0)) + 4),
        height=round(2 * RADIUS + _STEP_Y * (len(rows) - 1) + 4),
        cells=[_cell(expert, row, column, now) for expert, row, column in places],
        hosted=sum(e.peer is not None for e in experts),
    )


def _cell(expert: Expert, row: int, column: int, now: float) -> Cell:
    found = state(expert, now)
    return Cell(
        expert=expert,
        x=f"{_STEP_X * (column + 0.5 + row % 2 * 0.5):.2f}",
        y=f"{RADIUS + _STEP_Y * row:.2f}",
        state=found,
        words=f"{expert.uid}: {WORDS[found]}",
    )
