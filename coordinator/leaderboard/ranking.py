"""Ranks by one number. There is no score that mixes them: nobody could say what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K", str, int)


def counted(sums: Mapping[str, int], kind: str) -> int:
    """What a peer stands with: its own word, or what others signed for if that is more."""
    return max(sums[kind], sums[f"verified_{kind}"])


def ranks(totals: Mapping[K, Mapping[str, int]], kind: str) -> dict[K, int]:
    """Who → rank, 1 for the most; equals share a rank, and whoever has none has no rank."""
    amounts = sorted(((counted(sums, kind), who) for who, sums in totals.items()), reverse=True)
    found: dict[K, int] = {}
    former, rank = -1, 0
    for place, (amount, who) in enumerate(amounts, 1):
        if amount <= 0:
            break
        rank = rank if amount == former else place
        found[who], former = rank, amount
    return found
