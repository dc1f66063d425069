"""The door for telemetry: batches wait in a bounded buffer, are stored together, and are acknowledged only then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from channels.db import database_sync_to_async
from django.db import Error as DatabaseProblem

from agent.reports import Item

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A deadlock, or a connection that a restarted database has closed, is over at the second one, and no agent has to hear of it."""


@dataclass(frozen=True, kw_only=True)
class IntakeConfig:
    """Limits of the buffer."""

    flush_period_s: float = 0.5
    """How long items wait for company."""
    items_max: int = 20_000
    """Items in the buffer; whoever brings more waits, and stops reading from its agent."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One batch of one session, and whom to tell."""

    session_id: int
    experiment: str
    items: Sequence[Item]
    received_at: float
    """Unix time, seconds."""
    settle: Callable[[bool], None]
    """Called once, with whether the items are stored. It must not wait: a slow agent would hold up all others."""


class Intake:
    """One per process. `store` writes submissions in one transaction; `changed` hears which experiments have news."""

    def __init__(
        self,
        config: IntakeConfig,
        store: Callable[[Sequence[Submission], float], None],
        changed: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        self.config = config
        self._store, self._changed = store, changed
        self._buffer: list[Submission] = []
        self._items = 0
        self._room = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None

    @property
    def items(self) -> int:
        """Items in the buffer now."""
        return self._items

    async def put(self, submission: Submission) -> None:
        """Hand over a batch; waits while the buffer is full."""
        while self._items and self._items + len(submission.items) > self.config.items_max:
            self._room.clear()
            await self._room.wait()
        self._buffer.append(submission)
        self._items += len(submission.items)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        while self._buffer:
            await asyncio.sleep(self.config.flush_period_s)
            batch, self._buffer = self._buffer, []
            stored = False
            try:
                stored = await self._try_to_store(batch)
            finally:  # whatever went wrong: agents hear of it and send again, and the next batch starts a new flusher
                self._items -= sum(len(s.items) for s in batch)
                self._room.set()
                for submission in batch:
                    submission.settle(stored)
            if stored:
                await self._changed({s.experiment for s in batch})

    async def _try_to_store(self, batch: Sequence[Submission]) -> bool:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await database_sync_to_async(self._store)(batch, time.time())
            except DatabaseProblem as e:  # InterfaceError too, which is no DatabaseError: the connection is gone
                if attempt == ATTEMPTS:
                    log.exception("could not store %d telemetry batches; their agents will send them again", len(batch))
                else:
                    log.warning("storing %d telemetry batches once more: %s", len(batch), e)
            else:
                return True
        return False
