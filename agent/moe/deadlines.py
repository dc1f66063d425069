"""How long to wait for an expert: learnt from what it has shown. Sans-IO.

After RFC 6298: a smoothed time and its variation per expert and direction, a deadline of `srtt + 4 * rttvar`, doubled
after every timeout. The time of a call grows with its rows, so what is smoothed is seconds per (row + OVERHEAD_ROWS).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["forward", "backward"]
OVERHEAD_ROWS = 256
"""What a call costs beyond its rows, in rows: a round trip and a queue weigh about as much as computing this many."""
_ALPHA, _BETA, _K = 1 / 8, 1 / 4, 4.0  # RFC 6298, section 2.3
_BACKOFF_MAX = 64.0


@dataclass(frozen=True, kw_only=True)
class DeadlineConfig:
    """Bounds of a deadline."""

    floor_s: float = 2.0
    """Wait at least this long (the ceiling wins): a busy machine may stall for as long without anything being wrong."""
    ceiling_s: float = 10.0
    """Never wait longer, and wait this long for an expert that nothing is known about."""
    experts_max: int = 8192
    """How many (expert, direction) pairs are remembered; the least recently used are forgotten."""

    def __post_init__(self) -> None:
        if not (self.floor_s > 0 and self.ceiling_s > 0):
            raise ValueError(f"floor_s and ceiling_s are above 0, not {self.floor_s} and {self.ceiling_s}")
        if self.experts_max < 1:
            raise ValueError("experts_max is at least 1")


@dataclass(slots=True)
class _Shown:
    srtt: float | None = None
    rttvar: float = 0.0
    backoff: float = field(default=1.0)


class Deadlines:
    """Deadlines per expert and direction. Not thread-safe: one event loop owns it.

    `who` names the expert and its host, since an expert that has moved has shown nothing at its new place.
    """

    def __init__(self, config: DeadlineConfig | None = None) -> None:
        self.config = config or DeadlineConfig()
        self._shown: OrderedDict[tuple[Hashable, Direction], _Shown] = OrderedDict()

    def timeout_s(self, who: Hashable, direction: Direction, rows: int) -> float:
        """How long to wait for a call of `rows` rows, seconds."""
        shown = self._shown.get((who, direction))
        if shown is None or shown.srtt is None:
            return self.config.ceiling_s
        learnt = (shown.srtt + _K * shown.rttvar) * (rows + OVERHEAD_ROWS)
        return min(max(learnt, self.config.floor_s) * shown.backoff, self.config.ceiling_s)

    def answered(self, who: Hashable, direction: Direction, rows: int, elapsed_s: float) -> None:
        """The expert answered a call of `rows` rows after `elapsed_s`."""
        sample = max(elapsed_s, 0.0) / (rows + OVERHEAD_ROWS)
        shown = self._remember(who, direction)
        shown.backoff = 1.0
        if shown.srtt is None:
            shown.srtt, shown.rttvar = sample, sample / 2
            return
        shown.rttvar += _BETA * (abs(shown.srtt - sample) - shown.rttvar)
        shown.srtt += _ALPHA * (sample - shown.srtt)

    def missed(self, who: Hashable, direction: Direction) -> None:
        """The expert did not answer in time: the next deadline is twice as long (up to the ceiling)."""
        shown = self._remember(who, direction)
        shown.backoff = min(2 * shown.backoff, _BACKOFF_MAX)

    def __len__(self) -> int:
        return len(self._shown)

    def _remember(self, who: Hashable, direction: Direction) -> _Shown:
        shown = self._shown.setdefault((who, direction), _Shown())
        self._shown.move_to_end((who, direction))
        while len(self._shown) > self.config.experts_max:
            self._shown.popitem(last=False)
        return shown
