"""What the demo's processes are told by their environment, and what a person is told of them."""

from __future__ import annotations

from agent.reports import Event
from deploy.demo.run import child_environment, told


def test_the_channel_reaches_the_agents_and_other_settings_do_not() -> None:
    child = child_environment(
        {"PATH": "/bin", "HIVE_CHANNEL": "stock", "HIVE_COORDINATOR": "http://elsewhere", "OMP_NUM_THREADS": "8"}
    )
    assert child["HIVE_CHANNEL"] == "stock"
    assert child["PATH"] == "/bin"
    assert "HIVE_COORDINATOR" not in child
    assert child["OMP_NUM_THREADS"] == "1"


def event(name: str, **detail: str) -> Event:
    return Event(sequence=1, at=0.0, name=name, detail=dict(detail))


def test_many_losses_for_one_reason_are_one_line() -> None:
    lost = [event("expert-lost", uid=f"ffn0.{i}", reason="lost") for i in range(11)]
    assert told([*lost, event("expert-lost", uid="ffn1.0", reason="lapsed"), event("averaged", peer="x")]) == [
        "lost 11 experts: another agent hosts the same, and its lease counts",
        "lost ffn1.0: the lease ran out",
    ]


def test_leaving_and_errors_are_said_and_what_goes_with_leaving_is_not() -> None:
    events = [event("expert-lost", uid="ffn0.0", reason="left"), event("error", why="another agent has this key"), event("left")]
    assert told(events) == ["another agent has this key", "left"]
    assert told([]) == []
