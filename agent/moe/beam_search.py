"""Beam search for the k best live experts, over live prefixes learnt from a directory. Sans-IO, batched over rows.

The search descends the grid dimension by dimension. It says which prefixes it wants to know, is told their live
children, and goes on (Ryabinin & Gusev 2020, arXiv:2002.04013, section 3.2, algorithm 1). A stale prefix, one that
was listed and has no live child any more, only loses its beams.

    search = BeamSearch(grid, logits_UG, k)
    while wanted := search.wanted():
        search.supply(directory.children(wanted))
    search.best()

Scores add up over dimensions, so a beam of k prefixes finds the k best experts of a *complete* grid. With experts
missing that is not so: a good prefix may have no good live child. So the beam is wider than k, and where the result
is short or not provably best (the k-th score is below what a dropped prefix could at most have reached), the search
starts again for those rows with a beam four times as wide, up to `width_max`, keeping what it has learnt. `exact` tells,
per row, if the result is proven to be the k best. (64 x 64 with half of the experts gone, k = 4: a beam of 4 finds 89 %,
of 8 99 %, and widening up to 64 all of them.)

Shape suffixes: U rows (routing units), S side of a dimension, W beam, P distinct prefixes, C candidates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from agent.grid import Grid
from agent.moe.gating import NONE, split_logits, strides, take_best

Coordinates = tuple[int, ...]
WIDTH_LIMIT = 4096


@dataclass(frozen=True, kw_only=True)
class BeamConfig:
    """How hard to search."""

    width: int = 8
    """Prefixes that each row keeps per dimension, at first; never fewer than k."""
    width_max: int = 64
    """To which the beam widens for the sake of rows whose result is short or not proven."""
    prefixes_max: int = 2048
    """Distinct prefixes that are asked for per dimension over all rows together; those with the best scores win."""

    def __post_init__(self) -> None:
        if not 1 <= self.width <= self.width_max <= WIDTH_LIMIT:
            raise ValueError(f"1 <= width <= width_max <= {WIDTH_LIMIT} does not hold for {self.width}, {self.width_max}")
        if self.prefixes_max < 1:
            raise ValueError("prefixes_max is at least 1")


class BeamSearch:
    """One search for all rows of a batch.

    `logits_UG` is the gate's output; `excluded_UM` holds flat numbers that a row does not want (-1 is ignored).
    """

    exact: Tensor
    """Boolean [U]: proven to be the k best live experts, as far as the directory knows. Valid after the search."""

    def __init__(
        self, grid: Grid, logits_UG: Tensor, k: int, *, excluded_UM: Tensor | None = None, config: BeamConfig | None = None
    ) -> None:
        self.grid = grid
        self.k = k
        self.config = config or BeamConfig()
        self.prefixes_asked = 0
        self._scores = split_logits(logits_UG.detach(), grid.shape)
        self._excluded_UM = excluded_UM
        self._needed = k + (0 if excluded_UM is None else excluded_UM.shape[1])
        self._width = max(self.config.width, self._needed)
        self._children: dict[Coordinates, Tensor] = {}
        units = len(logits_UG)
        self._best_UK = torch.full((units, k), NONE)
        self.exact = torch.zeros(units, dtype=torch.bool)
        self._open_U = torch.arange(units)  # rows that are being searched for
        self._wanted: list[Coordinates] = []
        # rest[d]: the most that dimensions d and later can add, per row.
        tops = torch.stack([s_US.amax(dim=1) for s_US in self._scores])
        self._rest = torch.cat([tops.flip(0).cumsum(0).flip(0), torch.zeros_like(tops[:1])])
        self._advance()

    def wanted(self) -> list[Coordinates]:
        """Prefixes (coordinates so far; `()` is the grid itself) whose live children must be supplied. Empty at the end."""
        return self._wanted

    def supply(self, children: Mapping[Coordinates, Collection[int]]) -> None:
        """The live children of the wanted prefixes. One that is missing, and coordinates outside the grid, count as dead."""
        for prefix in self._wanted:
            side = self.grid.shape[len(prefix)]
            alive = torch.zeros(side, dtype=torch.bool)
            alive[[c for c in children.get(prefix, ()) if 0 <= c < side]] = True
            self._children[prefix] = alive
        self._advance()

    def best(self) -> Tensor:
        """Flat numbers of the experts, best first, [U, k]; -1 where there are fewer. RuntimeError while something is wanted."""
        if self._wanted:
            raise RuntimeError("the search still wants to know children of prefixes")
        return self._best_UK

    def _advance(self) -> None:
        """Descend as far as what is known allows; widen and start again where that may help."""
        while True:
            self._wanted = self._descend()
            self.prefixes_asked += len(self._wanted)
            if self._wanted:
                return
            self._open_U = (~self.exact).nonzero()[:, 0]
            if not len(self._open_U) or self._width >= self.config.width_max:
                return
            self._width = min(4 * self._width, self.config.width_max)

    def _descend(self) -> list[Coordinates]:
        rows, rest = len(self._open_U), self._rest[:, self._open_U]
        numbers_UW = torch.zeros(rows, 1, dtype=torch.int64)  # of the prefix, row-major in the dimensions so far
        scores_UW = rest.new_zeros(rows, 1)
        dropped_U = torch.full((rows,), -torch.inf, dtype=scores_UW.dtype)  # the most that dropped prefixes could reach
        for d, side in enumerate(self.grid.shape):
            scores_UW, lost_U = self._limit_prefixes(d, numbers_UW, scores_UW)
            dropped_U = torch.maximum(dropped_U, lost_U + rest[d])
            distinct_P, inverse = numbers_UW[scores_UW > -torch.inf].unique(return_inverse=True)
            prefixes = [self._coordinates(number, d) for number in distinct_P.tolist()]
            if missing := [p for p in prefixes if p not in self._children]:
                return missing
            alive_UWS = torch.zeros(*numbers_UW.shape, side, dtype=torch.bool)
            if prefixes:
                alive_UWS[scores_UW > -torch.inf] = torch.stack([self._children[p] for p in prefixes])[inverse]
            candidates_UC = (
                (scores_UW[:, :, None] + self._scores[d][self._open_U][:, None, :]).masked_fill(~alive_UWS, -torch.inf).flatten(1)
            )
            width = min(self._width, candidates_UC.shape[1])
            top = candidates_UC.topk(min(width + 1, candidates_UC.shape[1]), dim=1)
            if top.values.shape[1] > width:
                dropped_U = torch.maximum(dropped_U, top.values[:, width] + rest[d + 1])
            scores_UW, index_UW = top.values[:, :width], top.indices[:, :width]
            numbers_UW = numbers_UW.gather(1, index_UW // side) * side + index_UW % side
        self._finish(numbers_UW, scores_UW, dropped_U)
        return []

    def _finish(self, numbers_UC: Tensor, scores_UC: Tensor, dropped_U: Tensor) -> None:
        if self._excluded_UM is not None:
            unwanted_UC = (numbers_UC[:, :, None] == self._excluded_UM[self._open_U][:, None, :]).any(dim=2)
            scores_UC = scores_UC.masked_fill(unwanted_UC, -torch.inf)
        self._best_UK[self._open_U] = take_best(scores_UC, numbers_UC, self.k)
        found = min(self.k, scores_UC.shape[1])
        worst_U = scores_UC.topk(found, dim=1).values[:, -1] if found == self.k else torch.full_like(dropped_U, -torch.inf)
        self.exact[self._open_U] = (worst_U >= dropped_U) | (dropped_U == -torch.inf)

    def _limit_prefixes(self, d: int, numbers_UW: Tensor, scores_UW: Tensor) -> tuple[Tensor, Tensor]:
        """Drop the beams on all but the `prefixes_max` best distinct prefixes; also what each row lost by that."""
        none_U = torch.full((len(scores_UW),), -torch.inf, dtype=scores_UW.dtype)
        alive_UW = scores_UW > -torch.inf
        distinct_P, inverse = numbers_UW[alive_UW].unique(return_inverse=True)
        if len(distinct_P) <= self.config.prefixes_max:
            return scores_UW, none_U
        # Compare rows by how far a prefix stands below the row's best, since rows differ in scale.
        distance_UW = scores_UW - scores_UW.amax(dim=1, keepdim=True)
        value_P = torch.full((len(distinct_P),), -torch.inf, dtype=scores_UW.dtype)
        value_P.scatter_reduce_(0, inverse, distance_UW[alive_UW], "amax")
        kept_P = torch.zeros(len(distinct_P), dtype=torch.bool)
        kept_P[value_P.topk(self.config.prefixes_max).indices] = True
        dropped_UW = torch.zeros_like(alive_UW)
        dropped_UW[alive_UW] = ~kept_P[inverse]
        lost_U = scores_UW.masked_fill(~dropped_UW, -torch.inf).amax(dim=1)
        return scores_UW.masked_fill(dropped_UW, -torch.inf), lost_U

    def _coordinates(self, number: int, dimensions: int) -> Coordinates:
        shape = self.grid.shape[:dimensions]
        return tuple(number // stride % side for stride, side in zip(strides(shape), shape, strict=True))
