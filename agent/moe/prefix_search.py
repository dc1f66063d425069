"""Beam search by an agent that does not know the whole grid: it reads the prefixes that it comes by from the DHT. Sans-IO.

Each step reads all that the search wants to know in one bulk read. The first step also reads the prefixes that the search is
likely to come by next, those below the coordinates with the best scores: a read takes the time of a few hops, and it matters more
how many follow one another than how much one of them brings. Where what was guessed suffices, the search ends after one read.

    search = PrefixSearch(grid, logits_UG, k)
    while names := search.names():
        ...                                            # read those that are not known, in one go
        search.supply({name: directory.children(name) for name in names})
    search.best()
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agent.grid import Grid, prefix
from agent.moe.beam_search import BeamConfig, BeamSearch, Coordinates
from agent.moe.gating import split_logits


@dataclass(frozen=True, kw_only=True)
class PrefixSearchConfig:
    """How hard to search, and how much to read."""

    beam: BeamConfig = field(default_factory=lambda: BeamConfig(prefixes_max=256))
    guesses_max: int = 64
    """Prefixes that the first step reads besides the root."""
    steps_max: int = 6
    """Reads that follow one another; after them the search takes what is not known for dead."""

    def __post_init__(self) -> None:
        if self.guesses_max < 0 or self.steps_max < 1:
            raise ValueError(f"unusable limits of a search: {self}")


class PrefixSearch:
    """One search for all rows of a batch; arguments as BeamSearch's."""

    def __init__(
        self,
        grid: Grid,
        logits_UG: Tensor,
        k: int,
        *,
        excluded_UM: Tensor | None = None,
        config: PrefixSearchConfig | None = None,
    ) -> None:
        self.steps = 0
        self._grid = grid
        self._config = config or PrefixSearchConfig()
        self._beam = BeamSearch(grid, logits_UG, k, excluded_UM=excluded_UM, config=self._config.beam)
        self._children: dict[Coordinates, Collection[int]] = {}
        guesses = self._guess(logits_UG.detach()) if len(grid.shape) > 1 else []
        self._asked: dict[str, Coordinates] = {prefix(grid.layer, c): c for c in [*self._beam.wanted(), *guesses]}

    @property
    def exact(self) -> Tensor:
        """See BeamSearch."""
        return self._beam.exact

    def names(self) -> list[str]:
        """Prefixes to know before it can go on. Empty at the end."""
        return list(self._asked)

    def supply(self, children: Mapping[str, Collection[int]]) -> None:
        """The live children of all that `names` named; one that is missing counts as dead."""
        self.steps += 1
        self._children |= {coordinates: children.get(name, ()) for name, coordinates in self._asked.items()}
        while wanted := self._beam.wanted():
            missing = [c for c in wanted if c not in self._children]
            if missing and self.steps < self._config.steps_max:
                self._asked = {prefix(self._grid.layer, c): c for c in missing}
                return
            self._beam.supply({c: self._children.get(c, ()) for c in wanted})
        self._asked = {}

    def best(self) -> Tensor:
        """Flat numbers of the experts, best first, [U, k]; -1 where there are fewer. RuntimeError before the end."""
        return self._beam.best()

    def _guess(self, logits_UG: Tensor) -> list[Coordinates]:
        """The first coordinates that rows like best, each row's best before any row's second best."""
        scores_US = split_logits(logits_UG, self._grid.shape)[0]
        ranks_US = scores_US.argsort(dim=1, descending=True).argsort(dim=1)
        order = torch.argsort(ranks_US.amin(dim=0), stable=True)
        return [(int(c),) for c in order[: self._config.guesses_max]]
