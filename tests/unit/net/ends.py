"""One end of a link, recorded, with events to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.net.transport import Lane, Link, Transport

WAIT_S = 10


class End:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.messages: list[tuple[Lane, memoryview]] = []
        self.rooms = 0
        self.closed: list[str] = []
        self.ended = asyncio.Event()
        self._changed = asyncio.Event()
        link.start(self._on_message, self._on_room, self._on_closed)

    async def count(self, messages: int) -> None:
        """Wait until that many messages came."""
        await self.until(lambda: len(self.messages) >= messages)

    async def drained(self) -> None:
        """Wait until everything sent is acknowledged."""
        await self.until(lambda: self.link.buffered() == 0)

    async def until(self, true: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait for a condition that messages or acknowledgements bring about."""
        async with asyncio.timeout(timeout_s):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    def _on_message(self, lane: Lane, data: memoryview) -> None:
        self.messages.append((lane, data))
        self._changed.set()

    def _on_room(self) -> None:
        self.rooms += 1
        self._changed.set()

    def _on_closed(self, reason: str) -> None:
        self.closed.append(reason)
        self.ended.set()


async def open_pair(x: Transport, y: Transport) -> tuple[End, End]:
    """Open a link; the offerer's end first."""
    offered = await x.offer()
    answered = await y.answer(offered.description)
    a, b = await asyncio.gather(offered.accept(answered.description, WAIT_S), answered.open(WAIT_S))
    return End(a), End(b)
