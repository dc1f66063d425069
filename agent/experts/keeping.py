"""What is kept for callers for a while: inputs of forwards, answers of backwards, names of finished backwards. Sans-IO."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.grid import ExpertId

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CallKey:
    """One call: who made it (a PeerId's bytes, or empty for this process), of which expert, and its id."""

    caller: bytes
    uid: ExpertId
    call: bytes


@dataclass(frozen=True, kw_only=True)
class KeptLimits:
    """How much is kept, and how long."""

    bytes_max: int
    entries_max: int
    age_s: float
    caller_share: float = 0.5
    """Of bytes and entries, at most this part is one caller's, so that nobody pushes out all that others rely on."""

    def __post_init__(self) -> None:
        if not (self.bytes_max > 0 and self.entries_max > 0 and self.age_s > 0 and 0 < self.caller_share <= 1):
            raise ValueError(f"unusable limits: {self}")


@dataclass(slots=True)
class _Entry(Generic[V]):
    value: V
    nbytes: int
    until: float


class Kept(Generic[V]):
    """Values by call, bounded in age, number and bytes; the oldest go first, a greedy caller's own before others'."""

    def __init__(self, limits: KeptLimits) -> None:
        self._limits = limits
        self._caller_bytes_max = int(limits.bytes_max * limits.caller_share)
        self._caller_entries_max = max(1, int(limits.entries_max * limits.caller_share))
        self._entries: OrderedDict[CallKey, _Entry[V]] = OrderedDict()
        self._callers: dict[bytes, OrderedDict[CallKey, int]] = {}
        self._caller_bytes: dict[bytes, int] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: CallKey, value: V, nbytes: int, now: float) -> bool:
        """Keep `value`, in place of what was kept under `key`. False, and nothing is kept, if it alone is over the limit."""
        self.pop(key, now)
        if nbytes > self._caller_bytes_max:
            return False
        own: OrderedDict[CallKey, int] = self._callers.get(key.caller, OrderedDict())
        while own and (len(own) >= self._caller_entries_max or self._caller_bytes[key.caller] + nbytes > self._caller_bytes_max):
            self._remove(next(iter(own)))
        while self._entries and (len(self) >= self._limits.entries_max or self.nbytes + nbytes > self._limits.bytes_max):
            self._remove(next(iter(self._entries)))
        self._entries[key] = _Entry(value, nbytes, now + self._limits.age_s)
        self._callers.setdefault(key.caller, OrderedDict())[key] = nbytes
        self._caller_bytes[key.caller] = self._caller_bytes.get(key.caller, 0) + nbytes
        self.nbytes += nbytes
        return True

    def get(self, key: CallKey, now: float) -> V | None:
        """What is kept under `key`, or None."""
        self.expire(now)
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def pop(self, key: CallKey, now: float) -> V | None:
        """Like get, and it is kept no longer."""
        self.expire(now)
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._remove(key)
        return entry.value

    def expire(self, now: float) -> None:
        """Forget what is too old. Done by every other method as well; call it now and then where none is called."""
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.until > now:
                return
            self._remove(key)

    def drop(self, matches: Callable[[CallKey], bool]) -> None:
        """Forget whatever `matches`."""
        for key in [key for key in self._entries if matches(key)]:
            self._remove(key)

    def _remove(self, key: CallKey) -> None:
        entry = self._entries.pop(key)
        own = self._callers[key.caller]
        del own[key]
        self.nbytes -= entry.nbytes
        self._caller_bytes[key.caller] -= entry.nbytes
        if not own:
            del self._callers[key.caller], self._caller_bytes[key.caller]
