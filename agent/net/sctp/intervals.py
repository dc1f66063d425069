"""Closed intervals of integers, sorted and disjoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Interval = tuple[int, int]


def newly_covered(old: Sequence[Interval], new: Sequence[Interval]) -> Iterator[Interval]:
    """Yield, in order, what `new` covers and `old` does not. Both are sorted and disjoint; linear in their lengths."""
    at = 0
    for start, end in new:
        while at < len(old) and old[at][1] < start:
            at += 1
        position, index = start, at
        while index < len(old) and old[index][0] <= end:
            if position < old[index][0]:
                yield position, old[index][0] - 1
            position = old[index][1] + 1
            index += 1
        if position <= end:
            yield position, end


def shifted(relative: Sequence[Interval], base: int, last: int) -> list[Interval]:
    """Return intervals that count from `base`, as a peer gave them, as absolute ones above it up to `last`, put in order."""
    absolute = []
    floor = base + 1
    for start, end in relative:
        first, final = max(base + start, floor), min(base + end, last)
        if first <= final:
            absolute.append((first, final))
            floor = final + 1
    return absolute
