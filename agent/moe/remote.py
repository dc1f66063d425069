"""`Experts` that live with peers: calls over the network, and to this process's own `ExpertServer` without it.

Trainer threads block here; the calls of one layer go out together on the event loop, each with its own deadline.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from agent.errors import CallRefused, CallTimeout, HiveError, LinkClosed, NotReachable, ProtocolViolation
from agent.experts import messages
from agent.experts.directory import Located
from agent.experts.server import Answer
from agent.grid import ExpertId, Grid
from agent.identity import PeerId
from agent.manifest import Manifest, WireDtype
from agent.moe.deadlines import DeadlineConfig, Deadlines, Direction
from agent.moe.experts_api import DENSE_EXPERTS_MAX, BackwardCall, Choice, ForwardCall
from agent.moe.gating import best_live, flat_number
from agent.moe.prefix_search import PrefixSearch, PrefixSearchConfig
from agent.net.network import Reply

log = logging.getLogger(__name__)

STUCK_AFTER_S = 5.0
"""A trainer thread stops waiting this long after the last deadline has passed: then the event loop itself is gone."""


_Ask = Callable[[Located, float], Awaitable[Tensor]]
"""Asks a located expert, within a number of seconds."""


class NetworkCall(Protocol):
    """`Network.call`."""

    def __call__(
        self, peer: PeerId, method: str, header: bytes = b"", buffers: Sequence[messages.Buffer] = (), *, timeout_s: float
    ) -> Awaitable[Reply]: ...


class DirectoryView(Protocol):
    """What is needed of `experts.directory.Directory`. All of it is thread-safe and never blocks; `explore` is for its loop."""

    @property
    def is_whole(self) -> bool: ...
    def unknown(self, prefixes: Iterable[str]) -> list[str]: ...
    async def explore(self, prefixes: Sequence[str]) -> None: ...

    def alive(self) -> frozenset[ExpertId]: ...
    def locate(self, uid: ExpertId) -> Located | None: ...
    def children(self, prefix: str) -> tuple[int, ...]: ...
    def mark_dead(self, uid: ExpertId, host: PeerId) -> None: ...
    def mark_alive(self, uid: ExpertId, host: PeerId) -> None: ...


class OwnExperts(Protocol):
    """What is needed of `experts.server.ExpertServer`. It belongs to the event loop."""

    async def forward(self, uid: ExpertId, call: bytes, inputs_RD: Tensor, *, deadline: float, keep: bool = True) -> Answer: ...
    async def backward(
        self, uid: ExpertId, call: bytes, gradients_RD: Tensor, inputs_RD: Tensor | None = None, *, deadline: float
    ) -> Answer: ...


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """How remote experts are called."""

    wire_dtype: WireDtype = "bfloat16"
    """Activations and gradients travel as this. Calls to own experts are not rounded."""
    deadlines: DeadlineConfig = field(default_factory=DeadlineConfig)
    search: PrefixSearchConfig = field(default_factory=PrefixSearchConfig)
    explore_s: float = 10.0
    """How long a search in a large grid waits for prefixes to be read; what has not come by then counts as dead."""

    @classmethod
    def of(cls, manifest: Manifest) -> RemoteConfig:
        deadlines = DeadlineConfig(ceiling_s=max(1.0, manifest.rules.call_timeout_s))
        return cls(wire_dtype=manifest.training.wire_dtype, deadlines=deadlines)


@dataclass(frozen=True, kw_only=True)
class RemoteCounters:
    """Cumulative counts since the start."""

    calls: int = 0
    """Calls made, forward and backward, those to own experts included."""
    calls_own: int = 0
    calls_failed: int = 0
    """Of all calls: those without a usable answer in time."""
    resends: int = 0
    """Backward calls that had to send their inputs again."""
    backtracks: int = 0
    """Routing units (tokens or sequences) that asked further experts because none of theirs had answered."""


class RemoteExperts:
    """Blocking and thread-safe, for threads other than the event loop's; `experts_api.Experts` says what each method does.

    `peer_id` is this agent's own: experts that the directory places there are served by `own` without the network.
    A failed call is None in the answer; if the fault is the host's, the directory is told that the expert is dead there.
    """

    def __init__(
        self,
        call: NetworkCall,
        directory: DirectoryView,
        *,
        loop: asyncio.AbstractEventLoop,
        peer_id: PeerId,
        own: OwnExperts | None = None,
        config: RemoteConfig | None = None,
    ) -> None:
        self.config = config or RemoteConfig()
        self._network_call = call
        self._directory = directory
        self._loop = loop
        self._peer_id = peer_id
        self._own = own
        self._deadlines = Deadlines(self.config.deadlines)
        self._counters = RemoteCounters()
        self._lock = threading.Lock()
        self._live: dict[Grid, tuple[frozenset[ExpertId], Tensor]] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> RemoteExperts:
        return self

    def counters(self) -> RemoteCounters:
        """A snapshot."""
        with self._lock:
            return self._counters

    def choose(self, grid: Grid, logits_UG: Tensor, k: int, excluded_UM: Tensor | None = None) -> Choice:
        if excluded_UM is not None:
            self._count(backtracks=len(logits_UG))
        if len(grid) <= DENSE_EXPERTS_MAX and self._directory.is_whole:
            live_E = self._live_mask(grid)
            return Choice(chosen_UK=best_live(logits_UG, grid.shape, k, live_E, excluded_UM), live_E=live_E)
        search = PrefixSearch(grid, logits_UG, k, excluded_UM=excluded_UM, config=self.config.search)
        while names := search.names():
            self._explore(self._directory.unknown(names))
            search.supply({name: self._directory.children(name) for name in names})
        return Choice(chosen_UK=search.best(), live_E=None)

    def forward(self, calls: Sequence[ForwardCall]) -> list[Tensor | None]:
        return self._together([self._forward(c) for c in calls])

    def backward(self, calls: Sequence[BackwardCall]) -> list[Tensor | None]:
        return self._together([self._backward(c) for c in calls])

    def _explore(self, prefixes: list[str]) -> None:
        """Have them read, and wait for that. If it fails, the search goes on with what is known."""
        if not prefixes or self._loop.is_closed():
            return
        if _running_loop() is self._loop:
            raise RuntimeError("remote experts block: call them from a thread other than the event loop's")
        reading = asyncio.run_coroutine_threadsafe(self._directory.explore(prefixes), self._loop)
        try:
            reading.result(timeout=self.config.explore_s)
        except (HiveError, concurrent.futures.TimeoutError, concurrent.futures.CancelledError) as e:
            reading.cancel()
            log.info("%d prefixes could not be read: %s", len(prefixes), e or type(e).__name__)

    def _live_mask(self, grid: Grid) -> Tensor:
        alive = self._directory.alive()
        cached = self._live.get(grid)
        if cached is not None and cached[0] is alive:
            return cached[1]
        live_E = torch.zeros(len(grid), dtype=torch.bool)
        numbers = [flat_number(grid, uid) for uid in alive if uid in grid]
        live_E[numbers] = True
        self._live[grid] = (alive, live_E)
        return live_E

    def _together(self, calls: list[Coroutine[None, None, Tensor | None]]) -> list[Tensor | None]:
        """Run the calls at once on the event loop, and wait for all of them."""
        if not calls:
            return []
        if _running_loop() is self._loop or self._loop.is_closed():
            for coroutine in calls:
                coroutine.close()
            if self._loop.is_closed():
                return [None] * len(calls)
            raise RuntimeError("remote experts block: call them from a thread other than the event loop's")
        gathered = asyncio.run_coroutine_threadsafe(_gather(calls), self._loop)
        try:
            # A backward call that sends its inputs again has two deadlines one after the other.
            return gathered.result(timeout=2 * self.config.deadlines.ceiling_s + STUCK_AFTER_S)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            gathered.cancel()
            return [None] * len(calls)

    async def _forward(self, call: ForwardCall) -> Tensor | None:
        return await self._asked("forward", call.uid, len(call.inputs), partial(self._ask_forward, call))

    async def _backward(self, call: BackwardCall) -> Tensor | None:
        return await self._asked("backward", call.uid, len(call.gradient), partial(self._ask_backward, call))

    async def _asked(self, direction: Direction, uid: ExpertId, rows: int, ask: _Ask) -> Tensor | None:
        """Make one call with the expert's deadline, learn from how it went, and turn every failure into None."""
        located = self._directory.locate(uid)
        self._count(calls=1, calls_own=int(located is not None and located.host == self._peer_id))
        if located is None:
            self._count(calls_failed=1)
            return None
        timeout_s = self._deadlines.timeout_s((uid, located.host), direction, rows)
        started = self._loop.time()
        try:
            answer = await ask(located, timeout_s)
        except (HiveError, TimeoutError) as e:  # a LocalError too: without a free socket, say, the call has failed
            self._failed(direction, located, e)
            return None
        self._deadlines.answered((uid, located.host), direction, rows, self._loop.time() - started)
        self._directory.mark_alive(uid, located.host)
        return answer

    def _failed(self, direction: Direction, located: Located, error: HiveError | TimeoutError) -> None:
        self._count(calls_failed=1)
        late = isinstance(error, (CallTimeout, TimeoutError))
        if late:
            self._deadlines.missed((located.uid, located.host), direction)
        refused = isinstance(error, CallRefused) and error.code == messages.NOT_HOSTED
        if late or refused or isinstance(error, (LinkClosed, NotReachable, ProtocolViolation)):
            self._directory.mark_dead(located.uid, located.host)

    async def _ask_forward(self, call: ForwardCall, located: Located, timeout_s: float) -> Tensor:
        if located.host == self._peer_id:
            deadline = self._loop.time() + timeout_s
            async with asyncio.timeout(timeout_s):
                answer = await self._server().forward(call.uid, call.call, call.inputs, deadline=deadline, keep=call.keep)
            return answer.tensor
        header, buffers = messages.pack_forward(
            call.uid, call.call, call.inputs, keep=call.keep, wire_dtype=self.config.wire_dtype
        )
        return await self._over_network(located.host, messages.FORWARD, header, buffers, call.inputs, timeout_s)

    async def _ask_backward(self, call: BackwardCall, located: Located, timeout_s: float) -> Tensor:
        try:
            return await self._send_backward(call, located, None, timeout_s)
        except CallRefused as e:
            if e.code != messages.INPUTS_GONE:
                raise
        self._count(resends=1)
        return await self._send_backward(call, located, call.inputs, timeout_s)

    async def _send_backward(self, call: BackwardCall, located: Located, inputs: Tensor | None, timeout_s: float) -> Tensor:
        if located.host == self._peer_id:
            deadline = self._loop.time() + timeout_s
            async with asyncio.timeout(timeout_s):
                answer = await self._server().backward(call.uid, call.call, call.gradient, inputs, deadline=deadline)
            return answer.tensor
        header, buffers = messages.pack_backward(call.uid, call.call, call.gradient, inputs, wire_dtype=self.config.wire_dtype)
        return await self._over_network(located.host, messages.BACKWARD, header, buffers, call.gradient, timeout_s)

    async def _over_network(
        self, host: PeerId, method: str, header: bytes, buffers: list[memoryview], like: Tensor, timeout_s: float
    ) -> Tensor:
        reply = await self._network_call(host, method, header, buffers, timeout_s=timeout_s)
        _, tensor = messages.unpack_reply(reply.header, reply.buffers, shape=tuple(like.shape))
        return tensor

    def _server(self) -> OwnExperts:
        if self._own is None:
            raise CallRefused(messages.NOT_HOSTED, "this agent hosts no experts")
        return self._own

    def _count(self, **more: int) -> None:
        with self._lock:
            counters = self._counters
            self._counters = replace(counters, **{name: getattr(counters, name) + n for name, n in more.items()})


async def _gather(calls: list[Coroutine[None, None, Tensor | None]]) -> list[Tensor | None]:
    return list(await asyncio.gather(*calls))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
