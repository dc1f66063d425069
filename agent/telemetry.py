"""An agent's account of itself: every report and event goes to its local record and, where there is one, to the coordinator.

The local record (`records.jsonl`, one JSON item a line) is complete whether or not the coordinator is reachable; `status.json` is
the latest report for `hive-agent status`, replaced atomically. A full disk stops the record, never the training.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from agent.errors import StorageError
from agent.identity import PeerId
from agent.manifest import GPTModel
from agent.reports import Event, Item, Report

log = logging.getLogger(__name__)

RECORD_BYTES_MAX = 64 << 20
"""The local record is started afresh (one old generation kept) when it grows past this."""

Detail = str | int | float | bool | None


class Sink(Protocol):
    """Where items go besides the local record (agent/net/coordinator.py's TelemetrySocket)."""

    def submit(self, item: Item) -> None:
        """Take one item; never blocks and never raises."""
        ...


class LocalRecord:
    """Appends items to `records.jsonl` and keeps `status.json` in `directory`."""

    def __init__(self, directory: Path) -> None:
        """Raises StorageError if the directory cannot be written."""
        self._records = directory / "records.jsonl"
        self._status = directory / "status.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._records.open("ab")
            self._file.write(b"")
            self._probe(directory / ".probe")
        except OSError as e:
            raise StorageError(
                f"cannot write to {directory}: {e.strerror}. Free some space there, or choose another --state-dir."
            ) from e
        self._broken = False

    def append(self, item: Item) -> None:
        self._guarded(lambda: self._append(msgspec.json.encode(item) + b"\n"))

    def status(self, body: dict[str, object]) -> None:
        """Replace `status.json`."""
        self._guarded(lambda: self._replace(msgspec.json.encode(body)))

    def close(self) -> None:
        self._guarded(self._file.close)

    def _append(self, line: bytes) -> None:
        if self._file.tell() > RECORD_BYTES_MAX:
            self._file.close()
            self._records.replace(self._records.with_suffix(".jsonl.1"))
            self._file = self._records.open("ab")
        self._file.write(line)
        self._file.flush()

    def _replace(self, body: bytes) -> None:
        temporary = self._status.with_suffix(".json.tmp")
        temporary.write_bytes(body)
        os.replace(temporary, self._status)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as e:
            if not self._broken:
                log.warning(
                    "the local record in %s is interrupted: %s. Training goes on; free some space.",
                    self._records.parent,
                    e.strerror,
                )
            self._broken = True
        else:
            self._broken = False

    @staticmethod
    def _probe(path: Path) -> None:
        path.write_bytes(b"\0" * 4096)
        path.unlink()


class Telemetry:
    """Numbers items and hands them to the local record and the sink. One per run of an agent."""

    def __init__(
        self, peer: PeerId, record: LocalRecord, *, units: str = GPTModel.units, clock: Callable[[], float] = time.time
    ) -> None:
        self.session = secrets.token_hex(8)
        self.peer = peer
        self._record = record
        self._units = units
        self._clock = clock
        self._sequence = 0
        self._sink: Sink | None = None
        self.latest: Report | None = None

    def attach(self, sink: Sink) -> None:
        """Send items to the coordinator too, from now on."""
        self._sink = sink

    def event(self, name: str, **detail: Detail) -> None:
        """Record that something happened; `name` as in reports.Event."""
        log.info("%s %s", name, " ".join(f"{k}={v if str(v).isprintable() else repr(v)}" for k, v in detail.items()))
        self._emit(Event(sequence=self._next(), at=self._clock(), name=name, detail=dict(detail)))

    def report(self, make: Callable[[int, float], Report]) -> Report:
        """Record the agent's state: `make(sequence, at)` builds the report."""
        report = make(self._next(), self._clock())
        self.latest = report
        self._emit(report)
        status = {"pid": os.getpid(), "session": self.session, "peer": str(self.peer), "units": self._units, "report": report}
        self._record.status(status)
        return report

    def close(self) -> None:
        self._record.close()

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _emit(self, item: Item) -> None:
        self._record.append(item)
        if self._sink is not None:
            self._sink.submit(item)
