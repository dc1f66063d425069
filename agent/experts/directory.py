"""Which experts are alive, and where: a cached view of the leases in the DHT.

(API first: bodies follow.)
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.grid import ExpertId
from agent.identity import PeerId


@dataclass(frozen=True, slots=True)
class Located:
    """Where an expert is. `sequence` is the record's: it grows with each renewal."""

    uid: ExpertId
    host: PeerId
    epoch: int
    version: int
    sequence: int


class Directory:
    """Cached view of live experts. `alive`, `locate`, `children`, `mark_dead` and `mark_alive` are thread-safe."""

    def alive(self) -> frozenset[ExpertId]:
        raise NotImplementedError

    def locate(self, uid: ExpertId) -> Located | None:
        raise NotImplementedError

    def children(self, prefix: str) -> tuple[int, ...]:
        """Coordinates that lead to live experts below `prefix` (`ffn0.` or `ffn0.3.`), ascending."""
        raise NotImplementedError

    def mark_dead(self, uid: ExpertId, host: PeerId) -> None: ...
    def mark_alive(self, uid: ExpertId, host: PeerId) -> None: ...
    async def refresh(self) -> None: ...
    async def run(self) -> None: ...
