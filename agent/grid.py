"""Names of experts: `ffn0.3.1` is layer `ffn0`, coordinates 3 and 1 in its grid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

DIMENSIONS_MAX = 4
SIDE_MAX = 256
_LAYER = re.compile(r"[a-z][a-z_]{0,14}[0-9]{0,3}")
_UID = re.compile(r"([a-z][a-z_]{0,14}[0-9]{0,3})((?:\.(?:0|[1-9][0-9]{0,2})){1,4})")


@dataclass(frozen=True, order=True, slots=True)
class ExpertId:
    """One expert's name. `str` gives `ffn0.3.1`."""

    layer: str
    coordinates: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> ExpertId:
        """Raises ValueError if `text` is not an expert's name."""
        match = _UID.fullmatch(text)
        if not match:
            raise ValueError(f"{text[:80]!r} is not an expert's name such as ffn0.3.1")
        coordinates = tuple(int(c) for c in match[2][1:].split("."))
        if max(coordinates) >= SIDE_MAX:
            raise ValueError(f"a coordinate of {text!r} is {SIDE_MAX} or more")
        return cls(match[1], coordinates)

    @property
    def prefixes(self) -> tuple[tuple[str, int], ...]:
        """The dictionary records that lead to it: `(("ffn0.", 3), ("ffn0.3.", 1))`."""
        return tuple((prefix(self.layer, self.coordinates[:i]), c) for i, c in enumerate(self.coordinates))

    def __str__(self) -> str:
        return ".".join((self.layer, *map(str, self.coordinates)))


@dataclass(frozen=True, slots=True)
class Grid:
    """One layer's grid of experts, `shape` a number of experts per dimension."""

    layer: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not _LAYER.fullmatch(self.layer):
            raise ValueError(f"{self.layer[:40]!r} is not a layer's name such as ffn0")
        if not 1 <= len(self.shape) <= DIMENSIONS_MAX or not all(1 <= s <= SIDE_MAX for s in self.shape):
            raise ValueError(f"a grid has 1 to {DIMENSIONS_MAX} dimensions of 1 to {SIDE_MAX}, not {self.shape}")

    def __iter__(self) -> Iterator[ExpertId]:
        return (ExpertId(self.layer, c) for c in itertools.product(*map(range, self.shape)))

    def __contains__(self, expert: ExpertId) -> bool:
        return (
            expert.layer == self.layer
            and len(expert.coordinates) == len(self.shape)
            and all(c < s for c, s in zip(expert.coordinates, self.shape, strict=True))
        )

    def __len__(self) -> int:
        n = 1
        for side in self.shape:
            n *= side
        return n


def prefix(layer: str, coordinates: tuple[int, ...] = ()) -> str:
    """The name of the dictionary record for a prefix: `ffn0.` or `ffn0.3.`."""
    return ".".join((layer, *map(str, coordinates))) + "."
