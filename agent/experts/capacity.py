"""How many experts this machine takes: a short measurement of its speed, and its free memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil
import torch

from agent.experts.backend import expert_factory
from agent.grid import ExpertId
from agent.manifest import Manifest

log = logging.getLogger(__name__)

MEASURE_S = 0.2
ROUNDS_MAX = 10_000
ROWS = 256
"""Rows of one measured batch."""
ROWS_PER_S_WANTED = 50.0
"""What an expert should get through, forward and backward, while all of them are busy. Low on purpose: a slow host is better
than a vacant expert, and callers' deadlines find the slow ones."""
MEMORY_SHARE = 0.5
"""Of the memory that is free now; the rest is for the trunk, for kept inputs, and for others."""
CGROUP = Path("/sys/fs/cgroup")


def free_memory_bytes(cgroup: Path = CGROUP) -> int:
    """What this process may still take: of the machine's memory, and of its control group's (Linux containers)."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2 here, or no limit ("max")
        return free
    return max(0, min(free, limit - used))


class Wishes(Protocol):
    """The part of agent.config.AgentConfig that matters here."""

    @property
    def role(self) -> Collection[str] | None: ...
    @property
    def max_experts(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the measurement comes from; tests give their own."""

    clock: Callable[[], float] = time.perf_counter
    free_bytes: Callable[[], int] = free_memory_bytes


def measure(manifest: Manifest, wishes: Wishes, machine: Machine | None = None) -> int:
    """Experts that this agent should host at most. Takes about MEASURE_S of one core; call it before the event loop is busy.

    0 without the host role; the volunteer's own number where there is one; otherwise what speed and memory allow, at least 1
    if a single expert fits. Never more than the experiment's rules or its number of experts.
    """
    if wishes.role is not None and "host" not in wishes.role:
        return 0
    most = min(manifest.rules.experts_per_agent_max, sum(len(grid) for grid in manifest.model.grids()))
    if wishes.max_experts is not None:
        return min(wishes.max_experts, most)
    machine = machine or Machine()
    size = expert_bytes(manifest)
    fitting = int(machine.free_bytes() * MEMORY_SHARE) // size
    if min(fitting, most) <= 0:
        log.warning("an expert of %s needs %d MiB, which is not free: hosting none", manifest.name, size >> 20)
        return 0
    rate = rows_per_s(manifest, machine.clock)
    capacity = min(most, fitting, max(1, int(rate / ROWS_PER_S_WANTED)))
    log.info("room for %d experts: %d fit in memory, %.0f rows/s", capacity, fitting, rate)
    return capacity


def expert_bytes(manifest: Manifest) -> int:
    """Memory of one expert that has learned: weights, gradients and two moments, float32."""
    model = manifest.model
    parameters = 2 * model.d_model * model.expert_hidden + model.d_model + model.expert_hidden
    return 4 * 4 * parameters


def rows_per_s(manifest: Manifest, clock: Callable[[], float]) -> float:
    """Rows per second, each forward and backward with its share of a step, through one expert on this thread."""
    grid = manifest.model.grids()[0]
    uid = ExpertId(grid.layer, (0,) * len(grid.shape))
    backend = expert_factory(manifest)(uid)
    generator = torch.Generator().manual_seed(0)
    rows_RD = torch.randn(ROWS, manifest.model.d_model, generator=generator)
    backend.backward(rows_RD, rows_RD)  # the first one also sets things up
    started = clock()
    rounds, elapsed = 0, 0.0
    while elapsed < MEASURE_S and rounds < ROUNDS_MAX:
        backend.forward(rows_RD)
        backend.backward(rows_RD, rows_RD)
        rounds, elapsed = rounds + 1, clock() - started
    return rounds * ROWS / max(elapsed, 1e-9)
