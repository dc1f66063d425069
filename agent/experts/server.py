"""The host role: serves experts to callers near (this process) and far (the network).

Both paths meet in `forward` and `backward`, which validate, queue and compute the same way.

Exactly once: a backward is known by (caller, expert, call id). While it runs, a repetition waits for the same answer; afterwards
it gets the kept answer; when that is no longer kept, the gradient is computed again without a step. `done` outlives both.

Shapes: R rows, D d_model.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agent.errors import CallRefused, LocalError, ProtocolViolation
from agent.experts import messages
from agent.experts.backend import ExpertBackend, ExpertFactory
from agent.experts.batching import BatchingConfig, Kind
from agent.experts.keeping import CallKey, Kept, KeptLimits
from agent.experts.messages import (
    BAD_TENSOR,
    CALL_BYTES,
    INPUTS_GONE,
    NOT_HOSTED,
    OVERLOADED,
    BackwardRequest,
    ExpertReply,
    ForwardRequest,
    WeightsRequest,
)
from agent.experts.runtime import Computed, Load, Runtime, Work
from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.manifest import Manifest
from agent.net.network import Network, Reply, Request
from agent.tensors import DTYPES, TensorSpec, pack, unpack

log = logging.getLogger(__name__)
LOCAL = b""
"""The caller's name on the path that does not cross the network."""
MiB = 1 << 20
SWEEP_S = 5.0
DONE_BYTES = 128
"""What the name of a finished backward is counted as."""
FLOATS = frozenset(d for d in DTYPES.values() if d.is_floating_point)


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Limits of one host."""

    batching: BatchingConfig = field(default_factory=BatchingConfig)
    torch_threads: int | None = None
    """Threads that one batch may use inside torch; None leaves the process's setting."""
    experts_max: int = 4096
    inputs: KeptLimits = field(default_factory=lambda: KeptLimits(bytes_max=512 * MiB, entries_max=16_384, age_s=60.0))
    """What is kept of forwards, so that backwards need send no inputs."""
    answers: KeptLimits = field(default_factory=lambda: KeptLimits(bytes_max=128 * MiB, entries_max=4096, age_s=60.0))
    """Answers of backwards, for callers that lost them."""
    done: KeptLimits = field(
        default_factory=lambda: KeptLimits(bytes_max=32 * MiB, entries_max=131_072, age_s=900.0, caller_share=0.25)
    )
    """Names of backwards that have stepped, DONE_BYTES each."""
    given: KeptLimits = field(default_factory=lambda: KeptLimits(bytes_max=8 * MiB, entries_max=65_536, age_s=2.0))
    """Who was given a copy of which expert's weights, DONE_BYTES each: the next one only after `age_s`."""

    @classmethod
    def of(cls, manifest: Manifest, *, torch_threads: int | None = None) -> ExpertConfig:
        rows = manifest.rules.batch_rows_max
        batching = BatchingConfig(batch_rows_max=rows, expert_rows_max=8 * rows)
        return cls(batching=batching, torch_threads=torch_threads, experts_max=max(1, manifest.rules.experts_per_agent_max))


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an expert computed, [R, D], in the dtype of the request; and the other fields of messages.ExpertReply."""

    tensor: Tensor
    version: int
    queue_rows: int
    queue_s: float


@dataclass(frozen=True, slots=True)
class HostedInfo:
    """One expert of this host: optimizer steps taken, rows served since it came here (forward, backward)."""

    version: int
    rows_forward: int
    rows_backward: int


@dataclass(slots=True, eq=False)
class _Hosted:
    backend: ExpertBackend
    rows_forward: int = 0
    rows_backward: int = 0


@dataclass(slots=True)
class ServerStats:
    """Cumulative since the server was made."""

    forwards: int = 0
    backwards: int = 0
    rows: int = 0
    """Forward and backward, far and near callers."""
    refused: dict[str, int] = field(default_factory=dict)


class ExpertServer:
    """Serves experts. All methods belong to one event loop; computing happens on other threads.

    forward and backward raise CallRefused with a code of messages.REFUSALS. `deadline` is on the loop's clock; `caller` is a
    PeerId's bytes, or LOCAL. Tensors that are passed in must not be changed afterwards.
    """

    def __init__(self, config: ExpertConfig, factory: ExpertFactory) -> None:
        self._config = config
        self._factory = factory
        self._runtime = Runtime(config.batching, config.torch_threads)
        self._hosted: dict[ExpertId, _Hosted] = {}
        self._inputs: Kept[Tensor] = Kept(config.inputs)
        self._answers: Kept[Computed] = Kept(config.answers)
        self._done: Kept[bool] = Kept(config.done)
        self._given: Kept[bool] = Kept(config.given)
        self._backwards: dict[CallKey, asyncio.Task[Computed]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self.stats = ServerStats()

    def register(self, network: Network) -> None:
        """Answer the calls of other peers."""
        network.register(messages.FORWARD, self._on_forward)
        network.register(messages.BACKWARD, self._on_backward)
        network.register(messages.WEIGHTS, self._on_weights)

    def hosted(self) -> Mapping[ExpertId, HostedInfo]:
        """What is served now."""
        return {
            uid: HostedInfo(hosted.backend.version, hosted.rows_forward, hosted.rows_backward)
            for uid, hosted in self._hosted.items()
        }

    @property
    def load(self) -> Load:
        return self._runtime.load

    async def host(self, uid: ExpertId, state: ExpertState | None = None) -> None:
        """Serve `uid` from now on, as it is in `state` or else untrained. Nothing happens if it is served already.

        Raises ValueError for a name outside the model's grids, LocalError past experts_max, ProtocolViolation for a state
        that does not fit.
        """
        if uid in self._hosted:
            return
        if len(self._hosted) >= self._config.experts_max:
            raise LocalError(f"this host already serves {len(self._hosted)} experts, the most that it may")

        def make() -> ExpertBackend:
            backend = self._factory(uid)
            if state is not None:
                backend.load(state)
            return backend

        backend = await self._runtime.run(make)
        self._hosted.setdefault(uid, _Hosted(backend))

    async def drop(self, uid: ExpertId) -> ExpertState | None:
        """Serve `uid` no longer, and return what it had learned; None if it was not served. What waits is refused."""
        hosted = self._hosted.pop(uid, None)
        if hosted is None:
            return None
        self._runtime.drop(uid)
        self._inputs.drop(lambda key: key.uid == uid)
        self._answers.drop(lambda key: key.uid == uid)
        return await self._runtime.run(functools.partial(_export, hosted.backend))

    async def forward(
        self, uid: ExpertId, call: bytes, inputs_RD: Tensor, *, deadline: float, keep: bool = True, caller: bytes = LOCAL
    ) -> Answer:
        """The expert's outputs [R, D]. With `keep` the inputs are kept for a backward of the same `call`."""
        hosted = self._find(uid, call)
        self._check(hosted, inputs_RD)
        work = Work(hosted.backend, uid, Kind.FORWARD, caller, inputs_RD.detach(), None, deadline)
        computed = await self._counted(self._runtime.compute(work))
        if keep and self._hosted.get(uid) is hosted:
            self._inputs.put(CallKey(caller, uid, call), work.rows_RD, work.rows_RD.nbytes, self._now())
            self._sweep_later()
        hosted.rows_forward += len(inputs_RD)
        self.stats.forwards += 1
        self.stats.rows += len(inputs_RD)
        return self._answer(computed)

    async def backward(
        self,
        uid: ExpertId,
        call: bytes,
        gradients_RD: Tensor,
        inputs_RD: Tensor | None = None,
        *,
        deadline: float,
        caller: bytes = LOCAL,
    ) -> Answer:
        """dL/d(inputs) [R, D] of `call`, given dL/d(outputs). The expert takes one optimizer step, however often this is asked.

        Refused with INPUTS_GONE if the forward's inputs are neither kept nor given. Cancelling the wait does not undo the step.
        """
        hosted = self._find(uid, call)
        key = CallKey(caller, uid, call)
        kept = self._answers.get(key, self._now())
        if kept is not None:
            return self._answer(kept)
        running = self._backwards.get(key)
        if running is None:
            rows_RD = self._inputs.get(key, self._now()) if inputs_RD is None else inputs_RD
            if rows_RD is None:
                raise self._refusal(CallRefused(INPUTS_GONE, "send the inputs along"))
            if inputs_RD is not None:
                self._check(hosted, inputs_RD)
            self._check(hosted, gradients_RD)
            if gradients_RD.shape != rows_RD.shape:
                shapes = f"{list(gradients_RD.shape)} against {list(rows_RD.shape)}"
                raise self._refusal(CallRefused(BAD_TENSOR, f"the gradient's shape is not the inputs': {shapes}"))
            kind = Kind.BACKWARD if self._done.get(key, self._now()) is None else Kind.REPLAY
            work = Work(hosted.backend, uid, kind, caller, rows_RD.detach(), gradients_RD.detach(), deadline)
            running = asyncio.create_task(self._backward(hosted, key, work))
            self._backwards[key] = running
            running.add_done_callback(functools.partial(self._backward_done, key))
        return self._answer(await self._counted(asyncio.shield(running)))

    async def weights(self, uid: ExpertId) -> ExpertState:
        """A copy of its weights, without the optimizer's state. Raises CallRefused."""
        return await self._runtime.run(functools.partial(_export, self._hosted_as(uid).backend, optimizer=False))

    async def close(self) -> None:
        """Refuse what waits, finish what computes. The experts' states are lost unless they were dropped first."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._runtime.close()
        if self._backwards:
            await asyncio.wait(list(self._backwards.values()))
        self._hosted.clear()

    async def _backward(self, hosted: _Hosted, key: CallKey, work: Work) -> Computed:
        computed = await self._runtime.compute(work)
        now = self._now()
        self._done.put(key, True, DONE_BYTES, now)
        self._sweep_later()
        self._inputs.pop(key, now)
        if self._hosted.get(key.uid) is hosted:
            self._answers.put(key, computed, computed.tensor_RD.nbytes, now)
        if work.kind is Kind.BACKWARD:
            hosted.rows_backward += len(work.rows_RD)
            self.stats.backwards += 1
            self.stats.rows += len(work.rows_RD)
        return computed

    def _backward_done(self, key: CallKey, task: asyncio.Task[Computed]) -> None:
        del self._backwards[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; if nobody waits any more, it was told to nobody

    async def _on_forward(self, request: Request) -> Reply:
        message = messages.decode(request.header, ForwardRequest)
        inputs_RD = self._tensor(message.tensor, request, 0, 1)
        uid = messages.parse_uid(message.uid)
        caller = request.peer.raw
        answer = await self.forward(uid, message.call, inputs_RD, deadline=request.deadline, keep=message.keep, caller=caller)
        return _reply(answer)

    async def _on_backward(self, request: Request) -> Reply:
        message = messages.decode(request.header, BackwardRequest)
        tensors = 1 if message.inputs is None else 2
        gradients_RD = self._tensor(message.gradient, request, 0, tensors)
        inputs_RD = None if message.inputs is None else self._tensor(message.inputs, request, 1, tensors)
        uid = messages.parse_uid(message.uid)
        caller = request.peer.raw
        answer = await self.backward(uid, message.call, gradients_RD, inputs_RD, deadline=request.deadline, caller=caller)
        return _reply(answer)

    async def _on_weights(self, request: Request) -> Reply:
        uid = messages.parse_uid(messages.decode(request.header, WeightsRequest).uid)
        self._hosted_as(uid)
        key = CallKey(request.peer.raw, uid, b"")
        if self._given.get(key, self._now()):  # a small request, a large answer
            period_s = self._config.given.age_s
            raise self._refusal(CallRefused(OVERLOADED, f"at most one copy of an expert per peer and {period_s:g} s"))
        self._given.put(key, True, DONE_BYTES, self._now())
        self._sweep_later()
        return Reply(*(await self.weights(uid)).encode())

    def _tensor(self, spec: TensorSpec, request: Request, index: int, expected: int) -> Tensor:
        if len(request.buffers) != expected:
            raise ProtocolViolation(f"{request.method} came with {len(request.buffers)} tensors, not {expected}")
        try:
            return unpack(spec, memoryview(request.buffers[index]), dtype=None)
        except ProtocolViolation as e:
            raise self._refusal(CallRefused(BAD_TENSOR, str(e))) from None

    def _find(self, uid: ExpertId, call: bytes) -> _Hosted:
        if len(call) != CALL_BYTES:
            raise ValueError(f"a call id has {CALL_BYTES} bytes")
        return self._hosted_as(uid)

    def _hosted_as(self, uid: ExpertId) -> _Hosted:
        hosted = self._hosted.get(uid)
        if hosted is None:
            raise self._refusal(CallRefused(NOT_HOSTED, f"{uid} is not here"))
        return hosted

    def _check(self, hosted: _Hosted, tensor: Tensor) -> None:
        width, rows_max = hosted.backend.width, self._config.batching.batch_rows_max
        problem = ""
        if tensor.dtype not in FLOATS:
            problem = f"dtype {tensor.dtype} is not a floating one that travels"
        elif tensor.dim() != 2 or tensor.shape[1] != width or not 1 <= tensor.shape[0] <= rows_max:
            problem = f"expected [1 to {rows_max}, {width}], not {list(tensor.shape)}"
        elif not bool(torch.isfinite(tensor).all()):
            problem = "a value is not finite"
        if problem:
            raise self._refusal(CallRefused(BAD_TENSOR, problem))

    async def _counted(self, computing: Awaitable[Computed]) -> Computed:
        try:
            return await computing
        except CallRefused as refused:
            raise self._refusal(refused)

    def _refusal(self, refused: CallRefused) -> CallRefused:
        self.stats.refused[refused.code] = self.stats.refused.get(refused.code, 0) + 1
        return refused

    def _answer(self, computed: Computed) -> Answer:
        load = self._runtime.load
        return Answer(computed.tensor_RD, computed.version, load.queue_rows, load.queue_s)

    def _sweep_later(self) -> None:
        """What is kept goes in time also where nobody calls any more."""
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        kept: list[Kept[Tensor] | Kept[Computed] | Kept[bool]] = [self._inputs, self._answers, self._done, self._given]
        for store in kept:
            store.expire(self._now())
        if any(map(len, kept)):
            self._sweep_later()

    @property
    def kept_bytes(self) -> int:
        """Of inputs and answers that are kept for callers."""
        return self._inputs.nbytes + self._answers.nbytes

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _export(backend: ExpertBackend, *, optimizer: bool = True) -> ExpertState:
    with backend.lock:
        return backend.export(optimizer=optimizer)


def _reply(answer: Answer) -> Reply:
    spec, buffer = pack(answer.tensor)
    header = messages.encode(ExpertReply(spec, answer.version, answer.queue_rows, min(answer.queue_s, 86_400.0)))
    return Reply(header, [buffer])
