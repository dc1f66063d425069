from __future__ import annotations

import asyncio
import logging
import os
import signal
from types import TracebackType

import pytest

from agent.cli.attend import Attendance
from agent.errors import JoinError
from agent.reports import Report


class FakeMember:
    """Takes part until it is told to leave; draining ends it only when `left` is set."""

    def __init__(self) -> None:
        self.latest: Report | None = None
        self.units = "images"
        self.said: list[str] = []
        self.joined = asyncio.Event()
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    async def run(self) -> None:
        self.joined.set()
        await self.ended.wait()
        if self.error:
            raise self.error

    def drain(self) -> None:
        self.said.append("drain")
        self.changed.set()

    def stop(self) -> None:
        self.said.append("stop")
        self.ended.set()


class FakeScreen:
    def __init__(self) -> None:
        self.handler: logging.Handler = logging.NullHandler()
        self.units = "tokens"
        self.shown: list[int] = []

    def show(self, report: Report) -> None:
        self.shown.append(report.sequence)

    def __enter__(self) -> FakeScreen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return


async def test_ends_with_the_member_and_shows_its_last_report() -> None:
    member, screen = FakeMember(), FakeScreen()
    run = asyncio.create_task(Attendance(member, screen).run())
    await member.joined.wait()
    member.latest = Report(sequence=9, at=1.0, stage="stopped")
    member.ended.set()
    assert await run == 0
    assert screen.shown[-1] == 9 and screen.units == "images"


async def test_first_ctrl_c_drains_second_stops() -> None:
    member = FakeMember()
    run = asyncio.create_task(Attendance(member, FakeScreen()).run())
    await member.joined.wait()
    os.kill(os.getpid(), signal.SIGINT)
    await member.changed.wait()
    assert member.said == ["drain"] and not run.done()
    os.kill(os.getpid(), signal.SIGINT)
    assert await run == 130
    assert member.said == ["drain", "stop"]


async def test_draining_to_the_end_is_success() -> None:
    member = FakeMember()
    run = asyncio.create_task(Attendance(member, FakeScreen()).run())
    await member.joined.wait()
    os.kill(os.getpid(), signal.SIGHUP)
    await member.changed.wait()
    member.ended.set()
    assert await run == 0
    os.kill(os.getpid(), signal.SIGINT)  # pressed once more when it has left: neither a traceback nor another exit code


async def test_sigterm_stops_at_once() -> None:
    member = FakeMember()
    run = asyncio.create_task(Attendance(member, FakeScreen()).run())
    await member.joined.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await run == 130
    assert member.said == ["stop"]


async def test_leaves_after_the_given_time() -> None:
    member = FakeMember()
    run = asyncio.create_task(Attendance(member, FakeScreen()).run(for_s=0.01))
    await member.changed.wait()
    member.ended.set()
    assert await run == 0 and member.said == ["drain"]


async def test_errors_pass_through_and_handlers_are_removed() -> None:
    member = FakeMember()
    member.error = JoinError("nobody answers")
    member.ended.set()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(JoinError):
        await Attendance(member, FakeScreen()).run()
    assert signal.getsignal(signal.SIGTERM) == before


async def test_stopping_twice_stops_once() -> None:
    member = FakeMember()
    attendance = Attendance(member, FakeScreen())
    attendance.terminate()
    attendance.terminate()
    attendance.interrupt()
    assert member.said == ["stop", "drain"]
