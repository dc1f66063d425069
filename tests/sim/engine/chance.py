"""Randomness for a simulation: one generator per concern, so that a change in one does not disturb the others."""

from __future__ import annotations

import hashlib
import random


def fork(seed: int, concern: str) -> random.Random:
    """A generator that depends on nothing but the seed and the concern's name; not on PYTHONHASHSEED."""
    return random.Random(int.from_bytes(hashlib.sha256(f"{seed}/{concern}".encode()).digest()[:8], "big"))
