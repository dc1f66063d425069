"""The buffer in front of the database: batches together, bounded, and told the truth."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from django.db import DatabaseError, InterfaceError, OperationalError

from coordinator.telemetry.intake import Intake, IntakeConfig, Submission

from .conftest import NOW, report


class Store:
    """Remembers flushes; can be told to fail."""

    def __init__(self) -> None:
        self.flushes: list[int] = []
        self.broken = False

    def __call__(self, batch: Sequence[Submission], now: float) -> None:
        if self.broken:
            raise DatabaseError("disk full")
        self.flushes.append(sum(len(s.items) for s in batch))


class Desk:
    """An intake with a store, and what came of each submission."""

    def __init__(self, items_max: int = 100, flush_period_s: float = 0.0) -> None:
        self.store = Store()
        self.settled: list[bool] = []
        self.changed: list[set[str]] = []
        self.done = asyncio.Event()
        config = IntakeConfig(flush_period_s=flush_period_s, items_max=items_max)
        self.intake = Intake(config, self.store, self._changed)

    async def _changed(self, names: set[str]) -> None:
        self.changed.append(names)
        self.done.set()

    def _settle(self, stored: bool) -> None:
        self.settled.append(stored)
        if not stored:
            self.done.set()

    def submission(self, items: int) -> Submission:
        reports = [report(i) for i in range(1, items + 1)]
        return Submission(session_id=1, experiment="gpt-crowd", items=reports, received_at=NOW, settle=self._settle)


async def test_batches_of_one_period_are_stored_together_and_told_once() -> None:
    desk = Desk()
    for items in (1, 2, 3):
        await desk.intake.put(desk.submission(items))
    assert desk.intake.items == 6
    await desk.done.wait()
    assert desk.store.flushes == [6]
    assert desk.settled == [True] * 3
    assert desk.changed == [{"gpt-crowd"}]
    assert desk.intake.items == 0


async def test_a_failure_is_told_and_the_next_batch_is_tried_again() -> None:
    desk = Desk()
    desk.store.broken = True
    await desk.intake.put(desk.submission(1))
    await desk.done.wait()
    assert desk.settled == [False] and not desk.changed
    desk.store.broken = False
    desk.done.clear()
    await desk.intake.put(desk.submission(1))
    await desk.done.wait()
    assert desk.settled == [False, True]


async def test_a_full_buffer_makes_the_next_one_wait() -> None:
    desk = Desk(items_max=10, flush_period_s=0.01)
    await desk.intake.put(desk.submission(6))
    await desk.intake.put(desk.submission(4))  # exactly full
    assert desk.intake.items == 10
    one_more = asyncio.create_task(desk.intake.put(desk.submission(1)))
    await asyncio.sleep(0)
    assert not one_more.done() and desk.intake.items == 10
    await one_more
    assert desk.store.flushes[0] == 10
    while sum(desk.store.flushes) < 11:
        desk.done.clear()
        await desk.done.wait()
    assert desk.settled == [True] * 3


class Troubled:
    """A database that fails as it is told to, once for each error."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    def __call__(self, batch: Sequence[Submission], now: float) -> None:
        if self.errors:
            raise self.errors.pop(0)


async def settled_with(*errors: Exception) -> list[bool]:
    """What a batch is told, and one after it."""
    desk = Desk()
    desk.intake = Intake(IntakeConfig(flush_period_s=0.0), Troubled(*errors), desk._changed)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    for _ in range(2):
        desk.done.clear()
        await desk.intake.put(desk.submission(2))
        await desk.done.wait()
        assert desk.intake.items == 0
    return desk.settled


async def test_what_is_over_at_the_second_attempt_is_no_failure() -> None:
    for error in (OperationalError("deadlock detected"), InterfaceError("connection already closed")):
        assert await settled_with(error) == [True, True]
        assert await settled_with(error, error) == [False, True]


async def test_whatever_goes_wrong_agents_hear_of_it_and_the_next_batch_is_stored() -> None:
    assert await settled_with(RuntimeError("no idea")) == [False, True]
