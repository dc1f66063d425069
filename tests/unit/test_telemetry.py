"""An agent's own record."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from agent.errors import StorageError
from agent.identity import Identity
from agent.reports import Event, Item, Report
from agent.telemetry import LocalRecord, Telemetry

PEER = Identity.from_seed(b"\1" * 32).peer_id


class Collected:
    def __init__(self) -> None:
        self.items: list[Item] = []

    def submit(self, item: Item) -> None:
        self.items.append(item)


def items_in(directory: Path) -> list[Item]:
    lines = (directory / "records.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Item) for line in lines]


def test_items_are_numbered_recorded_and_sent(tmp_path: Path) -> None:
    sink = Collected()
    telemetry = Telemetry(PEER, LocalRecord(tmp_path), units="images", clock=lambda: 12.5)
    telemetry.event("joined", contacts=2)
    telemetry.attach(sink)
    telemetry.report(lambda sequence, at: Report(sequence=sequence, at=at, stage="training", tokens=7))
    telemetry.close()
    event, report = items_in(tmp_path)
    assert isinstance(event, Event) and event.detail == {"contacts": 2} and event.at == 12.5
    assert isinstance(report, Report) and report.sequence == 2 and sink.items == [report]
    status = msgspec.json.decode((tmp_path / "status.json").read_bytes())
    assert status["pid"] == os.getpid() and status["peer"] == str(PEER) and status["report"]["tokens"] == 7
    assert status["units"] == "images"


def test_a_directory_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="choose another --state-dir"):
        LocalRecord(tmp_path / "file" / "state")


def test_a_full_disk_stops_the_record_and_not_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry(PEER, LocalRecord(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for _ in range(3):
        telemetry.report(lambda sequence, at: Report(sequence=sequence, at=at, stage="training"))
    assert len(items_in(tmp_path)) == 3
    assert "No space left on device" in caplog.text
    telemetry.close()


def test_the_record_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.telemetry.RECORD_BYTES_MAX", 200)
    telemetry = Telemetry(PEER, LocalRecord(tmp_path))
    for i in range(20):
        telemetry.event("tick", i=i)
    telemetry.close()
    assert (tmp_path / "records.jsonl").stat().st_size < 400
    assert (tmp_path / "records.jsonl.1").stat().st_size < 400
    assert items_in(tmp_path)[-1].sequence == 20
