from __future__ import annotations

import pytest

from agent.errors import ConfigError
from deploy.demo.plan import AGENTS_MAX, CHAOS_MAX, Kill, Plan, check, parse, parse_kill, victim


def test_defaults() -> None:
    assert parse([]) == Plan(agents=3, for_s=None, port=None, headless=False, json=False, ephemeral=False, kills=())


def test_the_contracts_command_lines() -> None:
    assert parse("--agents 3 --for 180 --headless --json".split()) == Plan(agents=3, for_s=180.0, headless=True, json=True)
    plan = parse("--chaos agent@110 --chaos coordinator@60 --for 180 --ephemeral --port 9000".split())
    assert plan.kills == (Kill(at_s=60.0, target="coordinator"), Kill(at_s=110.0, target="agent"))
    assert plan.ephemeral and plan.port == 9000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--agents 0", "--agents must be a whole number from 1 to 32"),
        (f"--agents {AGENTS_MAX + 1}", "--agents"),
        ("--agents two", "--agents"),
        ("--for 9", "--for"),
        ("--for -5", "--for"),
        ("--for 1e9", "--for"),
        ("--port 0", "--port"),
        ("--port 65536", "--port"),
        ("--chaos coordinator", "coordinator@60"),
        ("--chaos frog@5", "coordinator@60"),
        ("--chaos agent@-1", "coordinator@60"),
        ("--chaos agent@nan", "coordinator@60"),
        ("--chaos agent-4@5", "agents 1 to 3"),
        ("--chaos agent-0@5", "agents 1 to 3"),
        ("--chaos agent@60 --for 60", "after the end"),
        ("--agents 2 --chaos agent@1 --chaos agent@2", "at least one must be left"),
        ("--chaos agent-1@1 --chaos agent-1@2", "same agent twice"),
        ("--chaos coordinator@1 --chaos coordinator@2", "coordinator twice"),
        ("--agnets 3", "did you mean --agents?"),
        ("--ephemeral --state-dir x", "contradict"),
        ("surprise", "not understood"),
    ],
)
def test_mistakes_are_one_sentence(words: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(words.split())
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_kills_are_bounded() -> None:
    kills = tuple(Kill(at_s=float(i), target="agent") for i in range(CHAOS_MAX + 1))
    check(Plan(agents=100, kills=kills[:-1]))
    with pytest.raises(ConfigError, match="at most 64"):
        check(Plan(agents=100, kills=kills))


def test_values_at_the_limits() -> None:
    assert parse(["--agents", str(AGENTS_MAX), "--for", "10", "--port", "65535"]).agents == AGENTS_MAX
    assert parse_kill("agent-3@0.5", 3) == Kill(at_s=0.5, target="agent-3")


def test_victims() -> None:
    assert victim("agent", [1, 2, 3]) == 3, "the last, so that the bootstrap peer stays"
    assert victim("agent", [1]) == 1
    assert victim("agent", []) is None
    assert victim("agent-2", [1, 2]) == 2
    assert victim("agent-2", [1, 3]) is None
