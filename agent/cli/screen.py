"""Where a joined agent shows what it does: a live panel on a terminal, plain lines on a pipe."""

from __future__ import annotations

import collections
import logging
import sys
from types import TracebackType
from typing import Protocol

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live

from agent.cli import view
from agent.reports import Report

log = logging.getLogger(__name__)

LINE_PERIOD_S = 10.0
REFRESHES_PER_S = 2


class Screen(Protocol):
    """Shows reports between `__enter__` and `__exit__`; `handler` takes the log lines."""

    handler: logging.Handler
    units: str
    """What the model learns from, in the plural."""

    def show(self, report: Report) -> None: ...

    def __enter__(self) -> Screen: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Follow:
    """The last two reports and the latest loss: what lines and panel are made of."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.speed = view.Rates()
        self.loss: float | None = None

    def take(self, report: Report) -> bool:
        """True if this report is a new one."""
        if self.report is not None and report.sequence == self.report.sequence:
            return False
        self.speed = view.rates(report, self.report)
        self.loss = report.loss if report.loss is not None else self.loss
        self.report = report
        return True


class PlainScreen:
    """A line when the stage or its reason changes, and every LINE_PERIOD_S."""

    def __init__(self) -> None:
        self.handler: logging.Handler = logging.StreamHandler(sys.stdout)
        self.units = view.TOKENS
        self._follow = Follow()
        self._said = ""
        self._said_at = 0.0

    def show(self, report: Report) -> None:
        if not self._follow.take(report):
            return
        doing = view.doing(report)
        if doing == self._said and report.at - self._said_at < LINE_PERIOD_S:
            return
        self._said, self._said_at = doing, report.at
        line = view.plain_line(report, self._follow.speed, self._follow.loss, self.units)
        log.info("%s", line, extra={"report": msgspec.to_builtins(report)})

    def __enter__(self) -> PlainScreen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.handler.flush()


class PanelScreen:
    """A panel that stays in place; the last few log lines stand below its figures."""

    def __init__(self, title: str, console: Console) -> None:
        self._title = title
        self._follow = Follow()
        self._lines: collections.deque[str] = collections.deque(maxlen=view.EVENTS_SHOWN)
        self.handler: logging.Handler = _Lines(self._lines)
        self.units = view.TOKENS
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=REFRESHES_PER_S)

    def show(self, report: Report) -> None:
        self._follow.take(report)

    def _render(self) -> RenderableType:
        follow = self._follow
        return view.panel(self._title, follow.report, follow.speed, follow.loss, list(self._lines), self.units)

    def __enter__(self) -> PanelScreen:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)


class _Lines(logging.Handler):
    def __init__(self, lines: collections.deque[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record).partition("\n")[0])


def choose(title: str, *, panel: bool) -> Screen:
    """The panel if it is wanted and standard output is a terminal that can show one."""
    console = Console()
    if panel and console.is_terminal and not console.is_dumb_terminal:
        return PanelScreen(title, console)
    return PlainScreen()
