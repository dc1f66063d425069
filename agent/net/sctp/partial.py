"""One message while its fragments arrive, numbered, in any order (RFC 8260 section 2.2.3).

The beginning without a hole is a list of payloads. What lies behind a hole is kept in *strays*, each a run of consecutive
fragments, sorted by number: a run of any length costs one look-up, and is moved once when the hole before it closes.

A peer chooses how its messages are cut. What it makes us keep is therefore counted as the memory that it takes, not as the
payload: a fragment of one byte, a hole and a message begun are objects of ours.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from agent.errors import ProtocolViolation

FRAGMENT_BYTES_MIN = 512
"""A fragment counts as at least so much: full ones as their payload, one of a byte as several times what it takes."""
STRAY_BYTES, MESSAGE_BYTES = 384, 768
"""What a run behind a hole, and a message, count for beside their fragments."""


class Stray(msgspec.Struct, gc=False):
    """Consecutive fragments behind a hole."""

    stop: int
    """Number of the fragment that would be next."""
    payloads: list[bytes | memoryview]
    ends: bool
    """Whether the last of them ends the message."""


class Partial:
    """Give it every fragment once, in runs; `take` says when the message is whole."""

    __slots__ = ("_count", "_firsts", "_strays", "next", "payloads", "protocol", "size")

    def __init__(self) -> None:
        self.payloads: list[bytes | memoryview] = []
        """The beginning, in order."""
        self.next = 0
        """Number of the fragment that follows it."""
        self.protocol = 0
        self.size = 0
        """Bytes taken so far; the owner counts them."""
        self._count = 0
        self._firsts: list[int] = []
        self._strays: list[Stray] = []

    @property
    def held_bytes(self) -> int:
        """What this message counts for until it is whole."""
        return max(self.size, FRAGMENT_BYTES_MIN * self._count) + STRAY_BYTES * len(self._firsts) + MESSAGE_BYTES

    def take(self, number: int, payloads: list[bytes | memoryview], *, ends: bool) -> bool:
        """Take consecutive fragments from `number` on; True once the message is whole. The list is ours from now on.

        Raises ProtocolViolation if one of them has come before, or lies beyond the end.
        """
        self._count += len(payloads)
        if number != self.next:
            self._keep(number, payloads, ends=ends)
            return False
        self.payloads += payloads
        self.next = number + len(payloads)
        return self._join(ends=ends) if self._firsts else ends

    def _join(self, *, ends: bool) -> bool:
        """Append the strays that are not behind a hole any more."""
        firsts, strays, count = self._firsts, self._strays, 0
        while count < len(firsts) and firsts[count] == self.next and not ends:
            stray = strays[count]
            self.payloads += stray.payloads
            self.next, ends = stray.stop, stray.ends
            count += 1
        del firsts[:count], strays[:count]
        if firsts and (ends or firsts[0] < self.next):
            raise _contradiction()
        return ends

    def _keep(self, number: int, payloads: list[bytes | memoryview], *, ends: bool) -> None:
        firsts, strays, stop = self._firsts, self._strays, number + len(payloads)
        if number < self.next:
            raise _contradiction()
        at = bisect_right(firsts, number)
        before = strays[at - 1] if at else None
        if before is not None and (before.stop > number or before.ends):
            raise _contradiction()
        if at < len(firsts) and (firsts[at] < stop or ends):
            raise _contradiction()
        if before is not None and before.stop == number:
            before.payloads += payloads
            before.stop, before.ends = stop, ends
        else:
            firsts.insert(at, number)
            strays.insert(at, Stray(stop, payloads, ends))


def _contradiction() -> ProtocolViolation:
    return ProtocolViolation("sctp: two different fragments in one place, or one beyond the end of its message")
