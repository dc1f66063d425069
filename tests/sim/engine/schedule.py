"""One heap of events and a virtual clock. Events of the same moment come in an order that the seed decides."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from tests.sim.engine.chance import fork

START = 1_800_000_000.0


class Schedule:
    """`now` is in Unix seconds, as the DHT's records have them."""

    def __init__(self, seed: int) -> None:
        self.now = START
        self.events = 0  # that have happened
        self._shuffle = fork(seed, "simultaneous events").random
        self._heap: list[tuple[float, float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = 0

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        """Do it at `when`; at once, if that is past."""
        self._numbers += 1
        heapq.heappush(self._heap, (when, self._shuffle(), self._numbers, act, arguments))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end:
            self.now, _, _, act, arguments = pop(heap)
            self.events += 1
            act(*arguments)
        self.now = end

    def run_until(self, met: Callable[[], bool], *, within_s: float) -> float:
        """Run until `met()`; how long it took. AssertionError if it takes longer."""
        start = self.now
        while not met():
            assert self._heap and self._heap[0][0] <= start + within_s, f"not met within {within_s} s"
            self.now, _, _, act, arguments = heapq.heappop(self._heap)
            self.events += 1
            act(*arguments)
        return self.now - start
