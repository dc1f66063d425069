"""What receive windows may grow by, all connections of a process together.

Each connection may make us hold twice its window. A few that need a large one get it; hundreds of peers that only pretend to
cannot take the machine's memory.
"""

from __future__ import annotations


class WindowBudget:
    """Bytes that windows have beyond what they begin with. Whoever took some gives them back."""

    def __init__(self, bytes_max: int) -> None:
        self.left = bytes_max

    def take(self, amount: int) -> bool:
        """False, and nothing is taken, if there is not so much left."""
        if amount > self.left:
            return False
        self.left -= amount
        return True

    def give_back(self, amount: int) -> None:
        self.left += amount
