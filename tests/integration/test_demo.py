"""The whole system, once, in processes of its own: `./hive demo` trains, loses its coordinator and an agent, and goes on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent.reports import Event, Report
from deploy.demo import processes
from tests.integration.crowd import EXPERIMENT, Ended, processes_of, run_to_end

pytestmark = [pytest.mark.demo, pytest.mark.slow]

KEYS = set(
    "experiment agents seconds tokens tokens_per_s loss_first loss_last loss_validation experts_total experts_alive connections "
    "bytes_p2p bytes_coordinator calls calls_failed backtracks setup_seconds".split()
)
"""What issue 2 promises of the summary."""
SURVIVORS = (1, 2)
RECOVERY_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Demo:
    """One demo that has ended."""

    ended: Ended
    summary: dict[str, object]
    reports: dict[int, list[Report]]
    """By the agent's number."""
    events: dict[int, list[Event]]
    left_over: list[str]
    """Processes that were still there afterwards."""

    @property
    def whole(self) -> dict[int, Report]:
        """Each survivor's last report before the first of them was told to stop."""
        leaving_at = min(r.at for n in SURVIVORS for r in self.reports[n] if r.stage in ("draining", "stopped"))
        return {n: [r for r in self.reports[n] if r.at < leaving_at][-1] for n in SURVIVORS}

    @property
    def killed_at(self) -> float:
        """Unix time of the last that the killed agent wrote."""
        return self.reports[3][-1].at


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    state = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "deploy.demo", "--agents", "3", "--for", "85", "--headless", "--json"]
    command += ["--chaos", "coordinator@30", "--chaos", "agent@52", "--state-dir", str(state)]
    command += ["--port", str(processes.choose_port(None, None))]
    ended = run_to_end(command, within_s=200)
    assert ended.stdout, ended.stderr
    items = {number: recorded(state / f"agent-{number}" / EXPERIMENT / "records.jsonl") for number in (1, 2, 3)}
    yield Demo(
        ended=ended,
        summary=json.loads(ended.stdout.splitlines()[-1]),
        reports={number: [i for i in found if isinstance(i, Report)] for number, found in items.items()},
        events={number: [i for i in found if isinstance(i, Event)] for number, found in items.items()},
        left_over=processes_of(state),
    )


def recorded(path: Path) -> list[Report | Event]:
    decoder = msgspec.json.Decoder(Report | Event)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def test_it_ends_well_and_alone(demo: Demo) -> None:
    assert demo.ended.returncode == 0, demo.ended.stderr
    assert demo.summary["problems"] == []
    assert demo.left_over == []
    assert "Traceback" not in demo.ended.stderr


def test_the_summary_is_whole_and_agrees_with_the_records(demo: Demo) -> None:
    assert demo.summary.keys() >= KEYS
    last = [reports[-1] for reports in demo.reports.values()]
    # The survivors wrote a report or two more after the summary was made.
    for key, total in (("tokens", sum(r.tokens for r in last)), ("calls", sum(r.calls for r in last))):
        told = demo.summary[key]
        assert isinstance(told, int) and 0.8 * total <= told <= total, key
    assert demo.summary["connections"] == [
        {"a": f"agent-{a}", "b": f"agent-{b}", "kind": "direct"} for a, b in ((1, 2), (1, 3), (2, 3))
    ]
    kills = demo.summary["kills"]
    assert isinstance(kills, list) and [kill["target"] for kill in kills] == ["coordinator", "agent-3"]


def test_the_loss_falls_from_that_of_an_untrained_model(demo: Demo) -> None:
    first, last, validation = (demo.summary[f"loss_{name}"] for name in ("first", "last", "validation"))
    assert isinstance(first, float) and isinstance(last, float) and isinstance(validation, float)
    assert first > 5 > 3 > last and validation < 3.5
    losses = [x for reports in demo.reports.values() for r in reports for x in (r.loss, r.loss_validation) if x is not None]
    assert losses and all(map(math.isfinite, losses))


def test_every_survivor_goes_on_training(demo: Demo) -> None:
    for number in SURVIVORS:
        reports = demo.reports[number]
        assert demo.killed_at + RECOVERY_S < reports[-1].at
        at_kill, recovered = (next(r for r in reports if r.at > t) for t in (demo.killed_at, demo.killed_at + RECOVERY_S))
        assert 0 < at_kill.tokens < recovered.tokens < reports[-1].tokens, f"agent-{number}"


def test_calls_recover(demo: Demo) -> None:
    for number in SURVIVORS:
        after = [r for r in demo.reports[number] if r.at > demo.killed_at + RECOVERY_S and r.stage == "training"]
        made, failed = after[-1].calls - after[0].calls, after[-1].calls_failed - after[0].calls_failed
        assert made > 0 and failed <= 0.02 * made, f"agent-{number}"


def test_the_killed_agents_experts_are_taken_over(demo: Demo) -> None:
    before = {e.uid for e in demo.reports[3][-1].experts}
    assert before, "it hosted none: the experts were not shared"
    for report in demo.whole.values():
        assert report.stage == "training" and report.experts_alive == report.experts_total == 32
    held = [{e.uid for e in report.experts} for report in demo.whole.values()]
    assert len(held[0]) + len(held[1]) == len(held[0] | held[1]) == 32
    claims = {e.detail["uid"] for n in SURVIVORS for e in demo.events[n] if e.name == "expert-claimed" and e.at > demo.killed_at}
    assert before <= claims


def test_training_traffic_goes_from_peer_to_peer(demo: Demo) -> None:
    p2p, coordinator = demo.summary["bytes_p2p"], demo.summary["bytes_coordinator"]
    assert isinstance(p2p, int) and isinstance(coordinator, int) and 0 < coordinator < 0.02 * p2p


def test_agents_had_nothing_to_complain_about(demo: Demo) -> None:
    for number, events in demo.events.items():
        assert not [e for e in events if e.name == "error"], f"agent-{number}"
        lost = [e for e in events if e.name == "expert-lost" and e.detail["reason"] != "left"]
        assert not lost, f"agent-{number}"
