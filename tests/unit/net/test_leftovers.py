"""Telemetry that outlives its run: kept when the coordinator is away, delivered once by the next run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.net import leftovers as module
from agent.net.leftovers import Delivery, Leftovers, Spool
from agent.net.telemetry_socket import TelemetrySocket
from agent.reports import Report, encode
from tests.unit.net.coordinators import FakeCoordinator, badge, event, patience
from tests.unit.net.peers import ALICE

FORMER, OLDER = "f" * 16, "e" * 16


def socket_of(coordinator: FakeCoordinator, session: str) -> TelemetrySocket:
    return TelemetrySocket(coordinator.url, badge(ALICE, session), patience())


def delivery(coordinator: FakeCoordinator, leftovers: Leftovers) -> Delivery:
    return Delivery(leftovers, lambda session: socket_of(coordinator, session))


def keep(leftovers: Leftovers, session: str, *sequences: int) -> None:
    leftovers.keep(session, [encode(event(i)) for i in sequences])


async def test_a_run_that_ends_while_the_site_is_away_loses_nothing(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path / "unsent")
    await coordinator.stop()
    sink = socket_of(coordinator, FORMER)
    sink.start()
    sink.submit(event(1))
    sink.submit(Report(sequence=2, at=1.0, stage="stopped", tokens=7))
    await sink.close()
    leftovers.keep(FORMER, sink.unsent())
    await coordinator.start()
    sender = delivery(coordinator, leftovers)
    sender.start()
    await sender.done()
    assert coordinator.items == [1, 2] and coordinator.hellos[-1].session == FORMER
    assert leftovers.sessions() == [] and sender.bytes_total > 100
    await sender.close()


async def test_what_could_not_be_delivered_stays_for_the_run_after(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path)
    keep(leftovers, FORMER, 1, 2)
    coordinator.acknowledge = False
    sender = delivery(coordinator, leftovers)
    sender.start()
    await coordinator.until(lambda: coordinator.items == [1, 2])
    await sender.close()
    await sender.close()
    assert leftovers.sessions() == [FORMER]


async def test_what_the_coordinator_cannot_read_does_not_stand_in_the_way(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path)
    keep(leftovers, OLDER, 1)
    os.utime(tmp_path / f"{OLDER}.jsonl", (1, 1))
    keep(leftovers, FORMER, 2)
    coordinator.close_code = 4400
    sender = delivery(coordinator, leftovers)
    sender.start()
    await sender.done()
    assert coordinator.items == [2] and leftovers.sessions() == []


async def test_a_run_that_is_killed_while_the_site_is_away_loses_little(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path / "unsent")
    await coordinator.stop()
    sink = socket_of(coordinator, FORMER)
    sink.submit(event(1))
    for sequence in range(2, 200):
        sink.submit(Report(sequence=sequence, at=1.0, stage="training", tokens=sequence))
    spool = Spool(leftovers, FORMER, sink.outline)
    await spool.look()
    assert leftovers.sessions() == [], "it may just be late"
    await spool.look()  # and then the power goes
    await coordinator.start()
    sender = delivery(coordinator, leftovers)
    sender.start()
    await sender.done()
    assert coordinator.items == [1, 59, 119, 179, 199]
    await sender.close()


async def test_what_is_delivered_after_all_is_not_left_for_the_next_run(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path / "unsent")
    await coordinator.stop()
    sink = socket_of(coordinator, FORMER)
    spool = Spool(leftovers, FORMER, sink.outline)
    sink.submit(event(1))
    await spool.look()
    await spool.look()
    assert leftovers.sessions() == [FORMER]
    await coordinator.start()
    sink.start()
    await sink.settled()
    sink.submit(event(2))
    await spool.look()
    assert leftovers.sessions() == []
    await sink.close()


async def test_whoever_ends_in_good_order_keeps_everything(coordinator: FakeCoordinator, tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path / "unsent")
    await coordinator.stop()
    sink = socket_of(coordinator, FORMER)
    spool = Spool(leftovers, FORMER, sink.outline)
    spool.start()
    for sequence in range(1, 10):
        sink.submit(Report(sequence=sequence, at=1.0, stage="training"))
    await spool.look()
    await spool.look()
    assert [item.sequence for item in leftovers.read(FORMER)] == [9]
    await spool.close()
    await spool.close()
    assert leftovers.sessions() == []
    leftovers.keep(FORMER, sink.unsent())
    assert len(leftovers.read(FORMER)) == 9


async def test_a_disk_that_takes_nothing_does_not_stop_the_agent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "unsent").write_text("a file where the directory should be")
    spool = Spool(Leftovers(tmp_path / "unsent"), FORMER, lambda: [encode(event(1))])
    await spool.look()
    await spool.look()
    assert "are lost" in caplog.text


def test_nothing_to_keep_leaves_no_file(tmp_path: Path) -> None:
    leftovers = Leftovers(tmp_path / "unsent")
    leftovers.keep(FORMER, [])
    assert not (tmp_path / "unsent").exists() and leftovers.sessions() == []


def test_only_so_many_runs_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_MAX", 2)
    leftovers = Leftovers(tmp_path)
    for i in range(3):
        keep(leftovers, f"{i:016x}", 1)
        os.utime(tmp_path / f"{i:016x}.jsonl", (i, i))
    keep(leftovers, FORMER, 1)
    assert leftovers.sessions() == [f"{2:016x}", FORMER]


def test_files_that_are_damaged_or_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leftovers = Leftovers(tmp_path)
    (tmp_path / "notes.jsonl").write_text("mine")
    keep(leftovers, FORMER, 2, 1)
    with (tmp_path / f"{FORMER}.jsonl").open("ab") as file:
        file.write(b'\xff\n{"half')
    assert leftovers.sessions() == [FORMER]
    assert [item.sequence for item in leftovers.read(FORMER)] == [1, 2]
    monkeypatch.setattr(module, "FILE_BYTES_MAX", len(encode(event(2))) + 1)
    assert [item.sequence for item in leftovers.read(FORMER)] == [2]
    assert leftovers.read(OLDER) == [] and "cannot be read" in caplog.text


def test_a_disk_that_cannot_take_it_is_said_and_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "unsent").write_text("in the way")
    keep(Leftovers(tmp_path / "unsent"), FORMER, 1, 2, 3)
    assert "3 telemetry items that were not delivered are lost" in caplog.text
