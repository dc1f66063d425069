"""Stands beside a running peer: shows its reports, and turns signals and `--for` into leaving.

The first Ctrl-C (SIGINT) or a closed terminal (SIGHUP) lets the peer leave in good order; a second one, or SIGTERM, stops it now.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Protocol

from agent.cli.screen import Screen
from agent.reports import Report

log = logging.getLogger(__name__)

SHOW_PERIOD_S = 0.5
EXIT_STOPPED = 130


class Member(Protocol):
    """What agent.peer.Peer offers."""

    @property
    def units(self) -> str:
        """What its model learns from, in the plural: tokens, images."""
        ...

    @property
    def latest(self) -> Report | None:
        """The latest report."""
        ...

    async def run(self) -> None:
        """Take part until drained, stopped, or failed. Raises HiveError for what ends this agent."""
        ...

    def drain(self) -> None:
        """Begin to leave in good order; `run` then returns. Calling it again changes nothing."""
        ...

    def stop(self) -> None:
        """Leave at once: `run` returns as soon as files are closed."""
        ...


class Attendance:
    """Watches one run of one member."""

    def __init__(self, member: Member, screen: Screen) -> None:
        self._member = member
        self._screen = screen
        screen.units = member.units
        self._draining = False
        self._stopped = False

    async def run(self, for_s: float | None = None) -> int:
        """Run the member to its end, leaving after `for_s` seconds if given; returns the exit code."""
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGINT: self.interrupt, signal.SIGHUP: self.interrupt, signal.SIGTERM: self.terminate}
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
        limit = loop.call_later(for_s, self._leave, f"{for_s:g} s are over (--for)") if for_s else None
        watcher = asyncio.create_task(self._watch(), name="screen")
        try:
            await self._member.run()
        finally:
            watcher.cancel()
            if limit:
                limit.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)
                if self._draining:  # it has left: one key press more would only spoil the exit code
                    signal.signal(number, signal.SIG_IGN)
            self._show()
        return EXIT_STOPPED if self._stopped else 0

    def interrupt(self) -> None:
        """Ctrl-C: leave, and when already leaving, stop."""
        if self._draining:
            self.terminate()
        else:
            self._leave("leaving in good order; Ctrl-C again stops at once")

    def terminate(self) -> None:
        if not self._stopped:
            self._stopped = True
            log.info("stopping at once")
            self._member.stop()

    def _leave(self, why: str) -> None:
        if not self._draining:
            self._draining = True
            log.info("%s", why)
            self._member.drain()

    async def _watch(self) -> None:
        while True:
            self._show()
            await asyncio.sleep(SHOW_PERIOD_S)

    def _show(self) -> None:
        if (report := self._member.latest) is not None:
            self._screen.show(report)
