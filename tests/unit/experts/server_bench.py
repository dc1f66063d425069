"""What tests of the ExpertServer share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest
import torch
from torch import Tensor, nn

from agent.errors import CallRefused
from agent.experts import messages
from agent.experts.backend import ExpertBackend, OptimizerConfig
from agent.experts.server import Answer, ExpertConfig, ExpertServer
from agent.grid import ExpertId
from agent.identity import Identity
from agent.manifest import GPTModel, Manifest
from agent.net.network import Reply

A, B = ExpertId("ffn0", (0, 0)), ExpertId("ffn0", (0, 1))
MANIFEST = Manifest(name="t", revision=1, title="t", model=GPTModel(d_model=8, heads=2, expert_hidden=16))
ALICE, BOB = (Identity.from_seed(bytes([i]) * 32).peer_id for i in (1, 2))
D = 8


def call(i: int) -> bytes:
    return i.to_bytes(16, "big")


def rows(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def soon(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


class Gate(nn.Module):
    """The identity, once it is let through: holds a compute thread for as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(D))
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.batches: list[int] = []

    def forward(self, x_RD: Tensor) -> Tensor:
        self.batches.append(len(x_RD))
        self.entered.release()
        assert self.open.wait(30)
        return x_RD * self.scale


class Bench:
    """A server whose experts are Gates, and their names."""

    def __init__(self, config: ExpertConfig) -> None:
        self.gates: dict[ExpertId, Gate] = {}
        self.server = ExpertServer(config, self._make)

    def _make(self, uid: ExpertId) -> ExpertBackend:
        gate = self.gates[uid] = Gate()
        return ExpertBackend(gate, OptimizerConfig(), width=D)

    async def entered(self, uid: ExpertId) -> None:
        """Wait until a batch of `uid` is on the compute thread."""
        await asyncio.to_thread(self.gates[uid].entered.acquire)


async def refused(awaitable: Awaitable[Answer | Reply]) -> str:
    with pytest.raises(CallRefused) as caught:
        await awaitable
    assert caught.value.code in messages.REFUSALS
    return caught.value.code
