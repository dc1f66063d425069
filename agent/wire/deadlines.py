"""Deadlines of many things, most of which end before theirs."""

from __future__ import annotations

import heapq


class Deadlines:
    """A heap whose dead entries are swept out when they outnumber the live ones, so its size follows the live ones."""

    _SLACK = 64

    def __init__(self) -> None:
        self._when: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: int, when: float) -> None:
        self._when[key] = when
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._when) + self._SLACK:
            self._heap = [(w, k) for k, w in self._when.items()]
            heapq.heapify(self._heap)

    def drop(self, key: int) -> None:
        self._when.pop(key, None)

    def next(self) -> float | None:
        heap = self._heap
        while heap and self._when.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[int]:
        """Remove and return what is due, earliest first."""
        keys = []
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[1]
            del self._when[key]
            keys.append(key)
        return keys
