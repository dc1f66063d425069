from __future__ import annotations

from pathlib import Path

import pytest

from agent.reports import Event, Item, Report, encode
from deploy.demo import records
from deploy.demo.records import RecordTail


def report(sequence: int) -> Report:
    return Report(sequence=sequence, at=float(sequence), stage="training")


def write(path: Path, *items: Item, end: bytes = b"\n") -> None:
    with path.open("ab") as file:
        for item in items:
            file.write(encode(item) + end)


def test_follows_what_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tail = RecordTail(path)
    assert tail.read() == []
    write(path, report(1), Event(sequence=2, at=2.0, name="joined"))
    assert tail.read() == [report(1), Event(sequence=2, at=2.0, name="joined")]
    assert tail.read() == []
    write(path, report(3))
    assert tail.read() == [report(3)]


def test_what_an_earlier_run_left_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, report(1))
    tail = RecordTail(path)
    write(path, report(2))
    assert tail.read() == [report(2)]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tail = RecordTail(path)
    line = encode(report(1)) + b"\n"
    path.write_bytes(line[:20])
    assert tail.read() == []
    with path.open("ab") as file:
        file.write(line[20:])
    assert tail.read() == [report(1)]


def test_lines_that_are_no_items_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tail = RecordTail(path)
    path.write_bytes(b'{"kind":"report"}\n\xff\n\n' + encode(report(1)) + b"\n")
    assert tail.read() == [report(1)]
    assert tail.unreadable == 2


def test_a_new_generation_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    tail = RecordTail(path)
    write(path, report(1))
    assert tail.read() == [report(1)]
    path.rename(tmp_path / "records.jsonl.1")
    write(path, report(2))
    assert tail.read() == [report(2)]


def test_a_read_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    tail = RecordTail(path)
    write(path, report(1), report(2))
    monkeypatch.setattr(records, "READ_BYTES_MAX", len(encode(report(1))) + 5)
    assert tail.read() == [report(1)]
    assert tail.read() == [report(2)]
