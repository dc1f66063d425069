"""Which keys had nothing a moment ago, so that a beam search need not ask for the same empty prefixes again and again.

Only eager reads are answered from it; a careful one always asks. An entry is good for `nothing_s`, so that nothing new stays
hidden for longer, and is forgotten as soon as this node writes or keeps a record of that key.
"""

from __future__ import annotations

from agent.dht.config import DhtConfig


class Nothing:
    """At most `nothing_max` keys; the oldest is forgotten first."""

    __slots__ = ("_config", "_until", "spared")

    def __init__(self, config: DhtConfig) -> None:
        self._config = config
        self._until: dict[bytes, float] = {}
        self.spared = 0  # keys that were not asked for again

    def __len__(self) -> int:
        return len(self._until)

    def note(self, key: bytes, now: float) -> None:
        """Nothing was found under `key`."""
        self._until.pop(key, None)
        if len(self._until) >= self._config.nothing_max:
            del self._until[next(iter(self._until))]
        self._until[key] = now + self._config.nothing_s

    def forget(self, key: bytes) -> None:
        """Something is there now."""
        self._until.pop(key, None)

    def holds(self, key: bytes, now: float) -> bool:
        """True if there was nothing a moment ago."""
        until = self._until.get(key)
        if until is None or until <= now:
            self._until.pop(key, None)
            return False
        self.spared += 1
        return True
