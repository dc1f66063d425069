"""Peers without a network: real messages, real asyncio, experts as modules, and failures on demand."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from agent.errors import CallRefused, RemoteError
from agent.experts import messages
from agent.experts.directory import Located
from agent.experts.server import Answer
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.net.network import Reply
from agent.tensors import pack, unpack

ME, ALICE, BOB = (PeerId(bytes([i]) * 32) for i in (1, 2, 3))


class LoopThread:
    """An event loop in a thread of its own, as in an agent."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        return self.loop

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class FakeDirectory:
    """Who is where. `dead` and `revived` record what it was told."""

    places: dict[ExpertId, PeerId]
    dead: list[tuple[ExpertId, PeerId]] = field(default_factory=list)
    revived: list[tuple[ExpertId, PeerId]] = field(default_factory=list)
    forgets: bool = False
    """If set, an expert that was marked dead is no longer alive."""

    is_whole: bool = True
    explored: list[str] = field(default_factory=list)
    """If it is not whole, only these prefixes have children."""

    def alive(self) -> frozenset[ExpertId]:
        return frozenset(self.places)

    def unknown(self, prefixes: Iterable[str]) -> list[str]:
        return [] if self.is_whole else [p for p in prefixes if p not in self.explored]

    async def explore(self, prefixes: Sequence[str]) -> None:
        self.explored += prefixes

    def locate(self, uid: ExpertId) -> Located | None:
        host = self.places.get(uid)
        return None if host is None else Located(uid=uid, host=host, epoch=1, version=0, sequence=1)

    def children(self, prefix: str) -> tuple[int, ...]:
        if not self.is_whole and prefix not in self.explored:
            return ()
        below = (str(uid).removeprefix(prefix) for uid in self.places if str(uid).startswith(prefix))
        return tuple(sorted({int(rest.split(".")[0]) for rest in below}))

    def mark_dead(self, uid: ExpertId, host: PeerId) -> None:
        self.dead.append((uid, host))
        if self.forgets:
            self.places.pop(uid, None)

    def mark_alive(self, uid: ExpertId, host: PeerId) -> None:
        self.revived.append((uid, host))


Fault = Callable[[str, ExpertId], RemoteError | str | None]
"""Given "forward" or "backward" and an expert: an error to raise, "hang" to never answer, or None."""


class FakeExperts:
    """Serves modules as hosts do: keeps inputs by call, recomputes in backward, adds to the modules' gradients.

    `call` is `Network.call`; `forward` and `backward` are those of this agent's own `ExpertServer`.
    """

    def __init__(self, modules: Mapping[ExpertId, nn.Module], fault: Fault = lambda way, uid: None) -> None:
        self.modules = modules
        self.fault = fault
        self.kept: dict[bytes, Tensor] = {}
        self.calls: Counter[tuple[PeerId, str]] = Counter()
        self.timeouts: list[float] = []
        self.concurrent = self.concurrent_max = 0
        self.wire: list[str] = []

    async def call(
        self, peer: PeerId, method: str, header: bytes = b"", buffers: Sequence[messages.Buffer] = (), *, timeout_s: float
    ) -> Reply:
        self.calls[peer, method] += 1
        self.timeouts.append(timeout_s)
        if method == messages.FORWARD:
            request = messages.decode(header, messages.ForwardRequest)
            self.wire.append(request.tensor.dtype)
            inputs = unpack(request.tensor, memoryview(buffers[0]))
            tensor = await self._forward(messages.parse_uid(request.uid), request.call, inputs, request.keep)
        else:
            back = messages.decode(header, messages.BackwardRequest)
            self.wire.append(back.gradient.dtype)
            again = None if back.inputs is None else unpack(back.inputs, memoryview(buffers[1]))
            gradient = unpack(back.gradient, memoryview(buffers[0]))
            tensor = await self._backward(messages.parse_uid(back.uid), back.call, gradient, again)
        spec, buffer = pack(tensor, self.wire[-1])
        return Reply(messages.encode(messages.ExpertReply(spec, 1, 0, 0.0)), [buffer])

    async def forward(self, uid: ExpertId, call: bytes, inputs_RD: Tensor, *, deadline: float, keep: bool = True) -> Answer:
        self.calls[ME, "own"] += 1
        return Answer(await self._forward(uid, call, inputs_RD, keep), 1, 0, 0.0)

    async def backward(
        self, uid: ExpertId, call: bytes, gradients_RD: Tensor, inputs_RD: Tensor | None = None, *, deadline: float
    ) -> Answer:
        self.calls[ME, "own"] += 1
        return Answer(await self._backward(uid, call, gradients_RD, inputs_RD), 1, 0, 0.0)

    async def _forward(self, uid: ExpertId, call: bytes, inputs: Tensor, keep: bool) -> Tensor:
        await self._meet("forward", uid)
        if keep:
            self.kept[call] = inputs
        with torch.no_grad():
            output: Tensor = self.modules[uid](inputs)
        return output

    async def _backward(self, uid: ExpertId, call: bytes, gradient: Tensor, again: Tensor | None) -> Tensor:
        await self._meet("backward", uid)
        inputs = self.kept.pop(call, None) if again is None else again
        if inputs is None:
            raise CallRefused(messages.INPUTS_GONE)
        inputs = inputs.detach().clone().requires_grad_()
        torch.autograd.backward(self.modules[uid](inputs), gradient)
        assert inputs.grad is not None
        return inputs.grad

    async def _meet(self, way: str, uid: ExpertId) -> None:
        """Let the other calls of the same layer arrive, then fail if told to."""
        self.concurrent += 1
        self.concurrent_max = max(self.concurrent_max, self.concurrent)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.concurrent -= 1
        fault = self.fault(way, uid)
        if isinstance(fault, RemoteError):
            raise fault
        if fault == "hang":
            await asyncio.get_running_loop().create_future()
