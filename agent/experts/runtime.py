"""The compute threads: batches run here, off the event loop (torch releases the interpreter lock while it computes).

The Batcher decides what runs; this module holds the tensors, performs its effects and hands the results back.

Shapes: R rows, D d_model.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from agent.errors import CallRefused
from agent.experts.backend import ExpertBackend
from agent.experts.batching import (
    Batcher,
    BatchingConfig,
    Cancelled,
    Dropped,
    Effect,
    Finished,
    Item,
    Kind,
    Refuse,
    Start,
    Submitted,
)
from agent.experts.messages import NOT_FINITE, OVERLOADED
from agent.grid import ExpertId

log = logging.getLogger(__name__)
T = TypeVar("T")
RATE_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What one request asks: rows [R, D] of any floating dtype, and for a backward the gradients [R, D]."""

    backend: ExpertBackend
    uid: ExpertId
    kind: Kind
    caller: bytes
    rows_RD: Tensor
    gradients_RD: Tensor | None
    deadline: float

    @property
    def dtype(self) -> torch.dtype:
        """Of the result: that of the tensor that the request came with."""
        return self.rows_RD.dtype if self.gradients_RD is None else self.gradients_RD.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    tensor_RD: Tensor
    version: int


@dataclass(frozen=True, slots=True)
class Load:
    """What waits, all experts together, and how long it should take."""

    queue_rows: int
    queue_s: float


class Runtime:
    """Belongs to one event loop. Must be closed."""

    def __init__(self, config: BatchingConfig, torch_threads: int | None = None) -> None:
        """`torch_threads`: threads that one batch may use inside torch; None leaves the process's setting."""
        self._batcher = Batcher(config)
        initializer = functools.partial(torch.set_num_threads, torch_threads) if torch_threads else None
        self._pool = ThreadPoolExecutor(config.slots, thread_name_prefix="hive-expert", initializer=initializer)
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[Work, asyncio.Future[Computed]]] = {}
        self._running: set[asyncio.Future[_Outcome]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._row_s = 0.0
        self._closed = False

    @property
    def load(self) -> Load:
        rows = self._batcher.queued_rows
        return Load(rows, rows * self._row_s)

    async def compute(self, work: Work) -> Computed:
        """Queue, compute, and return the result. Raises CallRefused. Cancelling takes it out of the queue if it still waits."""
        if self._closed:
            raise CallRefused(OVERLOADED, "this host is closing")
        loop = asyncio.get_running_loop()
        item = Item(next(self._ids), work.uid, work.kind, work.caller, len(work.rows_RD), work.deadline)
        future: asyncio.Future[Computed] = loop.create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())  # a waiter that was cancelled never reads it
        self._waiting[item.id] = work, future
        self._perform(self._batcher.handle(Submitted(item), loop.time()))
        try:
            return await future
        except asyncio.CancelledError:
            self._perform(self._batcher.handle(Cancelled(item.id), loop.time()))
            self._waiting.pop(item.id, None)
            raise

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on a compute thread, after what runs there already."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def drop(self, uid: ExpertId) -> None:
        """Refuse what waits for `uid`. A batch that computes already goes on to its end."""
        self._perform(self._batcher.handle(Dropped(uid), asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Refuse what waits, let what computes come to its end, and stop the threads."""
        self._closed = True
        for uid in {work.uid for work, _ in self._waiting.values()}:
            self.drop(uid)
        while self._running:
            await asyncio.wait(self._running)
        if self._timer is not None:
            self._timer.cancel()
        self._pool.shutdown(wait=True)

    def _perform(self, effects: list[Effect]) -> None:
        loop = asyncio.get_running_loop()
        for effect in effects:
            match effect:
                case Refuse(item, code, message):
                    _, future = self._waiting.pop(item.id)
                    if not future.done():
                        future.set_exception(CallRefused(code, message))
                case Start(_, kind, items):
                    entries = [self._waiting.pop(item.id) for item in items]
                    works = [work for work, _ in entries]
                    running = loop.run_in_executor(self._pool, _compute, kind, works)
                    self._running.add(running)
                    running.add_done_callback(functools.partial(self._finished, effect, [future for _, future in entries]))
        self._set_timer(loop)

    def _finished(self, start: Start, futures: list[asyncio.Future[Computed]], done: asyncio.Future[_Outcome]) -> None:
        self._running.discard(done)
        failure = done.exception()
        if failure is not None:
            log.error("a batch of %s failed", start.uid, exc_info=failure)
            results: list[Computed | CallRefused] = [CallRefused(OVERLOADED, "the computation failed")] * len(futures)
        else:
            results, seconds = done.result().results, done.result().seconds
            row_s = seconds / start.rows
            self._row_s += RATE_SMOOTHING * (row_s - self._row_s) if self._row_s else row_s
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, CallRefused):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._perform(self._batcher.handle(Finished(start.uid), asyncio.get_running_loop().time()))

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._batcher.next_deadline()
        self._timer = None if due is None else loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._perform(self._batcher.tick(asyncio.get_running_loop().time()))


@dataclass(frozen=True, slots=True, eq=False)
class _Outcome:
    results: list[Computed | CallRefused]
    seconds: float


def _compute(kind: Kind, works: list[Work]) -> _Outcome:
    """One batch, on a compute thread. If the whole is not finite, each request is computed by itself: one bad caller
    does not spoil the others' work."""
    started = time.perf_counter()
    with works[0].backend.lock:
        try:
            results: list[Computed | CallRefused] = list(_batch(kind, works))
        except CallRefused as refused:
            if refused.code != NOT_FINITE or len(works) == 1:
                results = [refused] * len(works)
            else:
                results = [_alone(kind, work) for work in works]
    return _Outcome(results, time.perf_counter() - started)


def _alone(kind: Kind, work: Work) -> Computed | CallRefused:
    try:
        return _batch(kind, [work])[0]
    except CallRefused as refused:
        return refused


def _batch(kind: Kind, works: list[Work]) -> list[Computed]:
    backend = works[0].backend
    rows_RD = torch.cat([w.rows_RD.to(torch.float32) for w in works]) if len(works) > 1 else works[0].rows_RD.to(torch.float32)
    if kind is Kind.FORWARD:
        out_RD = backend.forward(rows_RD)
    else:
        gradients_RD = torch.cat([w.gradients_RD.to(torch.float32) for w in works if w.gradients_RD is not None])
        out_RD = backend.backward(rows_RD, gradients_RD, step=kind is Kind.BACKWARD)
    parts = out_RD.split([len(w.rows_RD) for w in works])
    # Parts are copied, so that a kept answer does not keep the whole batch in memory.
    return [
        Computed(_saturating(part.clone() if len(works) > 1 else part, work.dtype), backend.version)
        for part, work in zip(parts, works, strict=True)
    ]


def _saturating(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast; what the narrower dtype cannot hold becomes its largest value instead of infinity."""
    if tensor.dtype == dtype:
        return tensor
    limit = torch.finfo(dtype).max
    return tensor.clamp(-limit, limit).to(dtype)
