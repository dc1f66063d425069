from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.experts import capacity
from agent.experts.backend import expert_factory
from agent.experts.capacity import (
    MEASURE_S,
    ROUNDS_MAX,
    ROWS,
    ROWS_PER_S_WANTED,
    Machine,
    expert_bytes,
    free_memory_bytes,
    measure,
)
from agent.grid import ExpertId
from agent.manifest import GPTModel, Manifest, Rules


def manifest(experts_per_agent_max: int = 4096, **model: int) -> Manifest:
    small = GPTModel(**{"d_model": 8, "heads": 2, "expert_hidden": 16, **model})  # type: ignore[arg-type]
    return Manifest(name="t", revision=1, title="t", model=small, rules=Rules(experts_per_agent_max=experts_per_agent_max))


@dataclass(frozen=True)
class Wish:
    role: frozenset[str] | None = None
    max_experts: int | None = None


def ticking(step_s: float) -> Callable[[], float]:
    times = itertools.count()
    return lambda: next(times) * step_s


def machine(experts_that_fit: float = 1e6, round_s: float = 0.05) -> Machine:
    return Machine(clock=ticking(round_s), free_bytes=lambda: int(2 * experts_that_fit * expert_bytes(manifest())))


def test_what_an_expert_needs_is_what_it_takes() -> None:
    assert expert_bytes(manifest()) == expert_factory(manifest())(ExpertId("ffn0", (0, 0))).nbytes


def test_speed_decides() -> None:
    round_s = ROWS / (5.5 * ROWS_PER_S_WANTED)
    assert measure(manifest(), Wish(), machine(round_s=round_s)) == 5


def test_memory_decides() -> None:
    assert measure(manifest(), Wish(), machine(experts_that_fit=3.5)) == 3


def test_a_slow_machine_takes_one_and_a_full_one_none() -> None:
    assert measure(manifest(), Wish(), machine(round_s=1e6)) == 1
    assert measure(manifest(), Wish(), machine(experts_that_fit=0.9)) == 0


def test_never_more_than_there_are_or_the_rules_allow() -> None:
    assert measure(manifest(), Wish(), machine()) == 32
    assert measure(manifest(experts_per_agent_max=7), Wish(), machine()) == 7
    assert measure(manifest(experts_per_agent_max=0), Wish(), machine()) == 0


def test_a_volunteer_may_say() -> None:
    assert measure(manifest(), Wish(max_experts=3), machine(experts_that_fit=0)) == 3
    assert measure(manifest(), Wish(max_experts=0), machine()) == 0
    assert measure(manifest(), Wish(max_experts=1000), machine()) == 32
    assert measure(manifest(), Wish(role=frozenset({"trainer"}), max_experts=9), machine()) == 0
    assert measure(manifest(), Wish(role=frozenset({"host"}), max_experts=9), machine()) == 9


def test_an_expert_that_cannot_fit_is_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "rows_per_s", None)
    assert measure(manifest(d_model=16_384, expert_hidden=131_072), Wish(), machine()) == 0


def test_the_measurement_ends_even_if_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "ROUNDS_MAX", 3)
    assert capacity.rows_per_s(manifest(), lambda: 5.0) > 0
    assert ROUNDS_MAX * MEASURE_S > 0


def test_this_machine() -> None:
    assert measure(manifest(), Wish()) >= 1


def test_memory_of_a_container(tmp_path: Path) -> None:
    whole = free_memory_bytes(tmp_path)
    assert whole > 0
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(tmp_path) > 10_000
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory_bytes(tmp_path) == 4000
    (tmp_path / "memory.max").write_text("900\n")
    assert free_memory_bytes(tmp_path) == 0
