from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from agent.cli import logs, screen, view
from agent.cli.screen import LINE_PERIOD_S, Follow, PanelScreen, PlainScreen
from agent.errors import StorageError
from agent.reports import Connection, HostedExpert, Report

FULL = Report(
    sequence=7,
    at=100.0,
    stage="training",
    step=12,
    tokens=24_576,
    loss=3.25,
    loss_validation=3.5,
    tokens_per_s=1234.5,
    calls=100,
    calls_failed=2,
    bytes_p2p_sent=10_000_000,
    bytes_p2p_received=5_000_000,
    experts_total=32,
    experts_alive=31,
    connections=(Connection(peer="a" * 52, kind="direct"), Connection(peer="b" * 52, kind="relayed")),
    experts=(HostedExpert(uid="ffn0.0.1", epoch=1, version=5, rows=10),),
)


def after(report: Report, seconds: float, **changes: object) -> Report:
    body = {f: getattr(report, f) for f in report.__struct_fields__}
    return Report(**{**body, "sequence": report.sequence + 1, "at": report.at + seconds, **changes})  # type: ignore[arg-type]


def test_rates_are_differences() -> None:
    later = after(FULL, 2.0, bytes_p2p_sent=14_000_000)
    assert view.rates(later, FULL) == view.Rates(up=2_000_000.0, down=0.0)
    assert view.rates(FULL, None) == view.rates(FULL, FULL) == view.Rates()


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e6, "1.5 MB"), (2e9, "2.0 GB"), (1e16, "10000.0 TB")]
)
def test_amounts(value: float, text: str) -> None:
    assert view.amount(value, "B") == text


def test_plain_line_says_everything() -> None:
    line = view.plain_line(FULL, view.Rates(up=2e6, down=1e6), 3.25)
    for part in (
        "training",
        "loss 3.250",
        "validation 3.500",
        "tokens/s",
        "1 direct, 1 relayed",
        "hosts 1",
        "31/32",
        "up 2.0 MB/s",
        "failed 2 of 100",
    ):
        assert part in line


def test_a_classifier_learns_from_images() -> None:
    assert "1234 images/s" in view.plain_line(FULL, view.Rates(), 3.25, "images")
    assert dict(view.rows(FULL, view.Rates(), 3.25, "images"))["trained"] == "24,576 images in 12 batches, 1,234 images/s"


def test_it_says_why_nothing_happens() -> None:
    waiting = Report(sequence=1, at=0.0, stage="waiting", why="nobody else is in this experiment yet")
    assert view.doing(waiting) == "waiting: nobody else is in this experiment yet"
    assert "loss not yet" in view.plain_line(waiting, view.Rates(), None)


def test_loss_is_kept_through_reports_without_batches() -> None:
    follow = Follow()
    assert follow.take(FULL) and not follow.take(FULL)
    assert follow.take(after(FULL, 1.0, loss=None))
    assert follow.loss == 3.25


def test_plain_screen_says_changes_at_once_and_the_rest_rarely(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    shown = PlainScreen()
    report = FULL
    shown.show(report)
    for _ in range(int(LINE_PERIOD_S) - 1):
        report = after(report, 1.0)
        shown.show(report)
    assert len(caplog.records) == 1
    shown.show(after(report, 1.0))
    assert len(caplog.records) == 2
    shown.show(after(report, 2.0, sequence=99, stage="waiting", why="no expert answers"))
    assert len(caplog.records) == 3 and "no expert answers" in caplog.text


def test_panel_shows_figures_and_log_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    panel = PanelScreen("hive-agent · gpt-crowd", console)
    panel.handler.setFormatter(logs.PlainLines())
    with panel:
        panel.show(FULL)
        panel.show(after(FULL, 1.0, bytes_p2p_sent=11_000_000))
        panel.handler.emit(logging.LogRecord("x", logging.INFO, "", 0, "joined peers=2", None, None))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("gpt-crowd", "24,576 tokens", "3.250 training", "31 of 32", "up 1.0 MB/s", "joined peers=2", "Ctrl-C"):
        assert part in text


def test_a_pipe_gets_plain_lines() -> None:
    assert isinstance(screen.choose("x", panel=True), PlainScreen)


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.raiseExceptions = raising


def test_json_lines_go_to_file_and_console(tmp_path: Path, root_logger: None) -> None:
    console = io.StringIO()
    logs.start(tmp_path, "json", logging.StreamHandler(console))
    logging.getLogger("agent.x").warning("hello %s", "you")
    body = json.loads(console.getvalue())
    assert (body["level"], body["logger"], body["message"]) == ("warning", "agent.x", "hello you")
    assert json.loads((tmp_path / "agent.log").read_text()) == body


def test_log_file_that_cannot_be_opened(tmp_path: Path, root_logger: None) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        logs.start(tmp_path / "missing", "text", logging.NullHandler())
