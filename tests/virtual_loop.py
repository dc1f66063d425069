"""An asyncio event loop on a virtual clock: when nothing can run, time jumps to the next timer.

For tests whose I/O all stays in the process. `run` raises TimeoutError if the test takes more than `limit_s` of virtual time,
and AssertionError if everyone waits for something that nobody will do.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: instead of sleeping for `timeout` it adds it to `passed`."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everyone waits, and no timer is set"
            self.passed += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time()` starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed

    def stall(self, seconds: float) -> None:
        """Let time pass while nothing runs, as a blocking call does."""
        self._jumping.passed += seconds


def run(main: Coroutine[Any, Any, T], *, limit_s: float = 600.0) -> T:
    async def limited() -> T:
        async with asyncio.timeout(limit_s):
            return await main

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(limited())
