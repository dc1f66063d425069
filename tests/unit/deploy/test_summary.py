from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from agent.reports import Connection, Event, Report
from deploy.demo.summary import STALLED_AFTER_S, AgentStory, Facts, Killed, summarize

PEERS = ["a" * 52, "b" * 52, "c" * 52]
KEYS = (
    "experiment agents seconds tokens tokens_per_s loss_first loss_last loss_validation experts_total experts_alive connections "
    "bytes_p2p bytes_coordinator calls calls_failed backtracks setup_seconds"
).split()


def story(number: int, seconds: Sequence[float], **changes: Any) -> AgentStory:
    """An agent that starts at 1000 + 2 and trains 100 tokens a second with a falling loss."""
    made = AgentStory(number=number, peer=PEERS[number - 1])
    others = tuple(Connection(peer=p, kind="direct") for p in PEERS if p != made.peer)
    made.take(Report(sequence=1, at=1001.0, stage="joining"))
    made.take(Event(sequence=1, at=1000.5 + seconds[0], name="first-batch", detail={"loss": changes.pop("first", 5.5)}))
    for i, second in enumerate(seconds):
        body: dict[str, Any] = {
            "sequence": i + 2,
            "at": 1000 + second,
            "stage": "training",
            "tokens": int(100 * second),
            "loss": 5.5 - i / 100,
            "loss_validation": 3.0 if second >= 30 else None,
            "calls": int(10 * second),
            "bytes_p2p_sent": int(1000 * second),
            "bytes_coordinator": 7,
            "experts_total": 32,
            "experts_alive": 32,
            "connections": others,
        }
        made.take(Report(**{**body, **{k: v(second) if callable(v) else v for k, v in changes.items()}}))
    return made


def facts(**changes: Any) -> Facts:
    return Facts(**{"experiment": "gpt-crowd", "seconds": 60.0, "ended_at": 1060.0, "started_at": 998.0, **changes})


SECONDS = [float(s) for s in range(2, 61)]


def test_every_key_of_the_contract_is_measured() -> None:
    summary = summarize([story(n, SECONDS) for n in (1, 2, 3)], facts())
    assert set(KEYS) <= set(summary)
    json.dumps(summary)
    assert summary["problems"] == []
    assert summary["agents"] == 3 and summary["seconds"] == 60.0
    assert summary["tokens"] == 18_000
    assert summary["tokens_per_s"] == pytest.approx(18_000 / 58, abs=0.1)
    assert summary["loss_first"] == 5.5 and summary["loss_last"] == pytest.approx(5.5 - 58 / 100)
    assert summary["loss_validation"] == 3.0
    assert (summary["experts_total"], summary["experts_alive"]) == (32, 32)
    assert summary["bytes_p2p"] == 180_000 and summary["bytes_coordinator"] == 21
    assert summary["calls"] == 1800
    assert summary["setup_seconds"] == 4.0, "from the command to the first trained batch"
    assert summary["connections"] == [
        {"a": "agent-1", "b": "agent-2", "kind": "direct"},
        {"a": "agent-1", "b": "agent-3", "kind": "direct"},
        {"a": "agent-2", "b": "agent-3", "kind": "direct"},
    ]


def test_nothing_measured_is_null_not_invented() -> None:
    summary = summarize([AgentStory(number=1)], facts())
    assert summary["loss_first"] is summary["loss_last"] is summary["loss_validation"] is summary["setup_seconds"] is None
    assert summary["tokens"] == 0 and summary["connections"] == []
    assert summary["problems"] == ["agent-1 never reported"]


def test_who_joins_later_is_measured_against_the_beginning() -> None:
    """It starts with a model that others have trained, so its own first loss says nothing."""
    late = story(2, [s for s in SECONDS if s >= 30], loss=2.5, first=2.4)
    summary = summarize([story(1, SECONDS), late], facts())
    assert summary["loss_first"] == 5.5 and summary["problems"] == []


def test_relayed_if_either_side_says_so() -> None:
    one = story(1, SECONDS, connections=(Connection(peer=PEERS[1], kind="direct"),))
    two = story(2, SECONDS, connections=(Connection(peer=PEERS[0], kind="relayed"), Connection(peer="d" * 52, kind="direct")))
    assert summarize([one, two], facts())["connections"] == [
        {"a": "agent-1", "b": "agent-2", "kind": "relayed"},
        {"a": "agent-2", "b": "d" * 52, "kind": "direct"},
    ]


@pytest.mark.parametrize(
    ("changes", "seconds", "said"),
    [
        ({"loss": float("nan")}, SECONDS, "not finite"),
        ({"loss_validation": float("inf")}, SECONDS, "not finite"),
        ({"loss": 5.6}, SECONDS, "did not fall: the run began with 5.500, and it is at 5.600"),
        ({"tokens": 0, "why": "no expert answers"}, SECONDS, "trained no token: no expert answers"),
        ({}, [s for s in SECONDS if s < 60 - STALLED_AFTER_S], "trained nothing in the last"),
        ({"tokens": lambda s: int(min(s, 30) * 100)}, SECONDS, "trained nothing in the last 30 s"),
    ],
)
def test_what_is_not_training_is_a_problem(changes: dict[str, Any], seconds: list[float], said: str) -> None:
    found = summarize([story(1, SECONDS), story(2, seconds, **changes)], facts())["problems"]
    assert isinstance(found, list) and any(said in p and p.startswith("agent-2") for p in found), found


def test_a_pause_within_the_limit_is_none() -> None:
    assert summarize([story(1, [s for s in SECONDS if s <= 60 - STALLED_AFTER_S])], facts())["problems"] == []


def test_the_killed_are_not_judged_but_the_dead_are() -> None:
    stories = [story(1, SECONDS), story(2, SECONDS[:20])]
    kill = Killed(target="agent-2", at=1022.0, agent=2)
    summary = summarize(stories, facts(kills=(kill,)))
    assert summary["problems"] == [] and summary["tokens"] == 6000 + 2100
    assert summarize(stories, facts(died=(2,)))["problems"] == ["agent-2 ended by itself"]


def test_recovery_is_the_end_of_the_disturbance() -> None:
    """Calls fail from 1020 to 1030; the window of five seconds sees the last of it at 1034."""
    failing = story(1, SECONDS, calls_failed=lambda s: int(10 * max(0, min(s, 30) - 20)))
    kills = (Killed(target="coordinator", at=1010.0), Killed(target="agent-2", at=1020.0, agent=2))
    summary = summarize([failing], facts(kills=kills))
    assert summary["kills"] == [
        {"target": "coordinator", "at": 10.0, "recovered_s": 0.0},
        {"target": "agent-2", "at": 20.0, "recovered_s": 14.0},
    ]


def test_what_never_recovers_is_null() -> None:
    failing = story(1, SECONDS, calls_failed=lambda s: int(10 * max(0, s - 20)))
    summary = summarize([failing], facts(kills=(Killed(target="agent-2", at=1020.0, agent=2),)))
    assert summary["kills"] == [{"target": "agent-2", "at": 20.0, "recovered_s": None}]


def test_errors_that_agents_report_are_kept_and_bounded() -> None:
    made = AgentStory(number=1)
    for i in range(30):
        made.take(Event(sequence=i + 1, at=0.0, name="error", detail={"what": f"e{i}"}))
    assert made.errors[0] == "e10" and len(made.errors) == 20
