"""The coordinator dies and comes back, twice, while a real agent trains: nothing that the agent told is lost or counted twice.

What the agent recorded on its own disk is held against what the site has stored, report by report.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.reports import Report
from tests.integration.crowd import EXPERIMENT, Agent, Site

pytestmark = [pytest.mark.demo, pytest.mark.slow]

AWAY_S = 12.0
"""More than the 10 s from which on a page calls it an outage."""
LATE_S = 30.0


class Play:
    """A site that is killed and started again on the same port and state, and one agent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "site"
        self.site = Site(self.directory)
        self.agent = Agent(directory / "alice", self.site.url)
        self.away: list[tuple[float, float]] = []

    def kill(self) -> None:
        """As a power cut does: in the middle of whatever it was doing."""
        self.site.send(signal.SIGKILL)
        self.site.wait()
        self.site.close()
        self.away.append((time.time(), 0.0))

    def back(self) -> None:
        self.site = Site(self.directory, self.site.port)
        self.away[-1] = (self.away[-1][0], time.time())

    def get(self, path: str) -> Any:
        url = f"{self.site.url}/api/v1/experiments/{EXPERIMENT}{path}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.loads(answer.read())

    def stored(self, kind: str) -> list[int]:
        """Sequences of this agent's reports or events at the site, as often as they are there."""
        table = {"report": "telemetry_rawreport", "event": "telemetry_event"}[kind]
        query = f"SELECT sequence FROM {table} WHERE sequence IS NOT NULL"
        with closing(sqlite3.connect(f"file:{self.directory}/state/hive.sqlite3?mode=ro", uri=True)) as database:
            return [int(row[0]) for row in database.execute(query)]

    def close(self) -> None:
        self.agent.close()
        self.site.close()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    play = Play(tmp_path)
    yield play
    play.close()


def test_buffered_telemetry_arrives_exactly_once(play: Play) -> None:
    agent = play.agent
    agent.until_trains()
    play.site.look_until(lambda: len(play.stored("report")) >= 3, "the first reports")

    play.kill()
    agent.until(lambda r: r.at > play.away[0][0] + AWAY_S, "reports while the site is away", AWAY_S + LATE_S)
    told_while_away = [r.sequence for r in agent.reports if r.at > play.away[0][0]]
    assert len(told_while_away) > AWAY_S / 2, "the agent went on, and told itself so"
    play.back()
    play.site.look_until(lambda: set(told_while_away) <= set(play.stored("report")), "what was buffered arrives", LATE_S)

    play.kill()  # while it takes reports in
    play.back()
    seen = agent.until_trains(tokens=1).sequence
    play.site.look_until(lambda: seen in play.stored("report"), "what came after the second death", LATE_S)
    agent.send(signal.SIGINT)
    agent.wait()
    agent.read()

    told = {
        kind: [i.sequence for i in agent.items if isinstance(i, Report) is (kind == "report")] for kind in ("report", "event")
    }
    last = max(told["report"])
    assert last > seen
    play.site.look_until(lambda: last in play.stored("report"), "the last report", LATE_S)
    for kind, sequences in told.items():
        counts = Counter(play.stored(kind))
        assert not [n for n, times in counts.items() if times > 1], f"{kind}s that count twice"
        if kind == "report":
            assert sorted(counts) == sorted(sequences), "every report of the agent's own record is there, and no other"

    total = max(r.tokens for r in agent.reports)
    play.site.look_until(lambda: sum(play.get("/series?resolution=1")["tokens"]) == total, "every token, in the points", LATE_S)
    assert play.get("")["summary"]["tokens"] == total
    the_chart_shows_it(play)


def the_chart_shows_it(play: Play) -> None:
    """The outage is marked, at its time, and the curve goes through it: its points came later."""
    series = play.get("/series?resolution=1")
    killed, came_back = play.away[0]
    (outage,) = [(a, b) for a, b in series["outages"] if b > killed]
    assert killed - 5 < outage[0] <= killed + 1 and abs(outage[1] - came_back) < 5, (outage, play.away)
    within = [at for at, loss in zip(series["at"], series["loss"], strict=True) if outage[0] + 2 < at < outage[1] - 2 and loss]
    assert len(within) > (outage[1] - outage[0]) / 3, "the gap is filled"
