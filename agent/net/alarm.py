"""One timer that is moved earlier as deadlines come up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Calls `ring` once, at the earliest of the times that it was set to since it last rang. Belongs to one event loop.

    The time is kept here because uvloop's handle does not know it when it has passed already.
    """

    def __init__(self, ring: Callable[[], None], *, slack_s: float = 1e-3) -> None:
        """`slack_s`: a new time that is earlier by less than this does not move the timer."""
        self._ring = ring
        self._slack_s = slack_s
        self._handle: asyncio.Handle | None = None
        self._when = 0.0

    def set(self, when: float) -> None:
        """Ring at `when` on the loop's clock, at the latest."""
        if self._handle is not None:
            if self._when <= when + self._slack_s:
                return
            self._handle.cancel()
        self._when = when
        self._handle = asyncio.get_running_loop().call_at(when, self._rang)

    def cancel(self) -> None:
        """Not ring any more, until set again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rang(self) -> None:
        self._handle = None
        self._ring()
