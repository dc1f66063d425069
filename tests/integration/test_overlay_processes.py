"""The overlay in real processes over real WebRTC, one of which is killed with SIGKILL."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).with_name("overlay_agent.py")


class Agent:
    def __init__(self, seed: int, *contacts: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(seed), *contacts],
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        line = self._read()
        self.address: str = line["address"]
        self.id: str = line["id"]
        self.join_s: float = line["seconds"]

    def ask(self, **command: Any) -> tuple[Any, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self._read()
        return line["result"], line["seconds"]

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the agent ended with {self.process.wait(10)}"
        return json.loads(line)


@pytest.fixture
def agents() -> Iterator[list[Agent]]:
    started: list[Agent] = []
    yield started
    for agent in started:
        agent.process.kill()
        agent.process.wait(10)
        for pipe in (agent.process.stdin, agent.process.stdout):
            assert pipe is not None
            pipe.close()


def test_when_the_first_of_four_is_killed_the_others_go_on_and_a_fifth_joins(agents: list[Agent]) -> None:
    agents.append(Agent(1))
    agents[0].ready()
    for seed in (2, 3, 4):
        agents.append(Agent(seed, agents[0].address))
    for agent in agents[1:]:
        agent.ready()
    for i in range(8):
        stored, _ = agents[i % 4].ask(do="put", name=f"k{i}", value=f"v{i}")
        assert stored >= 2
    agents[0].process.kill()
    agents[0].process.wait(10)
    slowest = 0.0
    for i in range(8):
        survivor = agents[1 + i % 3]
        found, read_s = survivor.ask(do="get", name=f"k{i}")
        assert found == [f"v{i}"]
        stored, write_s = survivor.ask(do="put", name=f"after{i}", value="v")
        assert stored >= 1
        slowest = max(slowest, read_s, write_s)
    assert slowest < 8
    fifth = Agent(5, agents[0].address, agents[2].address)
    agents.append(fifth)
    fifth.ready()
    found, _ = fifth.ask(do="get", name="k0")
    assert found == ["v0"]
    print(f"joins {[round(a.join_s, 2) for a in agents]} s, slowest operation after the kill {slowest:.2f} s")
