from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec

from agent.grid import Grid
from agent.identity import Identity
from agent.reporter import Parts, Reporter
from agent.reports import Event, Report
from agent.telemetry import LocalRecord, Telemetry
from agent.trainer import Progress


class FakeTraining:
    """Hands out the progress that a test gives it."""

    def __init__(self) -> None:
        self.next = Progress(0, 0, 0, 0, (), None)

    def progress(self) -> Progress:
        return self.next

    def counters(self) -> None:
        return None


def test_the_first_batch_is_told_once(tmp_path: Path) -> None:
    telemetry = Telemetry(Identity.from_seed(b"\1" * 32).peer_id, LocalRecord(tmp_path), clock=lambda: 5.0)
    training = FakeTraining()
    reporter = Reporter(telemetry, Parts(grids=[Grid("ffn0", (2, 2))], training=cast(Any, training)))
    reporter.report("training")
    training.next = Progress(3, 3, 0, 300, (5.5, 4.5), None)
    report = reporter.report("training")
    assert report.loss == 5.0 and report.loss_batches == 2
    reporter.report("training")
    telemetry.close()
    decode = msgspec.json.Decoder(Report | Event).decode
    items = [decode(line) for line in (tmp_path / "records.jsonl").read_bytes().splitlines()]
    assert [type(item) for item in items] == [Report, Report, Event, Report]
    assert [item.sequence for item in items] == [1, 2, 3, 4]
    assert isinstance(items[2], Event) and items[2].name == "first-batch" and items[2].detail == {"loss": 5.5}
