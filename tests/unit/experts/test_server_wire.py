"""The ExpertServer as other peers see it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import torch
from torch import nn

from agent.errors import ProtocolViolation
from agent.experts import messages
from agent.experts.backend import ExpertBackend, OptimizerConfig, expert_factory
from agent.experts.messages import pack_backward, pack_forward, unpack_reply
from agent.experts.server import ExpertConfig, ExpertServer
from agent.identity import PeerId
from agent.net.network import Reply, Request
from tests.unit.experts.server_bench import ALICE, MANIFEST, A, B, D, call, refused, rows, soon


class PlainNetwork:
    """Carries calls from any peer to the handlers that were registered."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Request], Awaitable[Reply]]] = {}

    def register(self, method: str, handler: Callable[[Request], Awaitable[Reply]]) -> None:
        self.handlers[method] = handler

    async def call(self, peer: PeerId, method: str, packed: tuple[bytes, list[memoryview]], deadline: float) -> Reply:
        header, buffers = packed
        request = Request(peer=peer, method=method, header=header, buffers=[bytes(b) for b in buffers], deadline=deadline)
        return await self.handlers[method](request)


@pytest.fixture
async def server() -> AsyncIterator[ExpertServer]:
    server = ExpertServer(ExpertConfig(torch_threads=1), expert_factory(MANIFEST))
    await server.host(A)
    yield server
    await server.close()


@pytest.fixture
def network(server: ExpertServer) -> PlainNetwork:
    network = PlainNetwork()
    server.register(network)  # type: ignore[arg-type]
    return network


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
async def test_the_wire_carries_both_ways_in_the_callers_dtype(network: PlainNetwork, dtype: str) -> None:
    reference = expert_factory(MANIFEST)(A)
    x, g = rows(), rows(seed=1)
    narrow = getattr(torch, dtype)
    reply = await network.call(ALICE, messages.FORWARD, pack_forward(A, call(1), x, wire_dtype=dtype), soon())
    info, y = unpack_reply(reply.header, reply.buffers, shape=(4, D))
    assert info.tensor.dtype == dtype
    assert torch.equal(y, reference.forward(x.to(narrow).float()).to(narrow).float())
    reply = await network.call(ALICE, messages.BACKWARD, pack_backward(A, call(1), g, wire_dtype=dtype), soon())
    info, back = unpack_reply(reply.header, reply.buffers, shape=(4, D))
    assert (info.tensor.dtype, info.version) == (dtype, 1)
    assert torch.equal(back, reference.backward(x.to(narrow).float(), g.to(narrow).float()).to(narrow).float())


async def test_what_a_narrow_dtype_cannot_hold_saturates() -> None:
    server = ExpertServer(ExpertConfig(), lambda uid: ExpertBackend(nn.Linear(D, D), OptimizerConfig(), width=D))
    await server.host(A)
    answer = await server.forward(A, call(1), torch.full((1, D), 6e4, dtype=torch.float16) * 1, deadline=soon())
    assert bool(torch.isfinite(answer.tensor).all())
    assert answer.tensor.dtype == torch.float16
    await server.close()


async def test_bad_tensors_over_the_wire_are_refused(network: PlainNetwork) -> None:
    nan = torch.full((4, D), float("nan"))
    assert await refused(network.call(ALICE, messages.FORWARD, pack_forward(A, call(1), nan), soon())) == "bad-tensor"
    header, buffers = pack_forward(A, call(1), rows())
    assert await refused(network.call(ALICE, messages.FORWARD, (header, [buffers[0][:-4]]), soon())) == "bad-tensor"
    whole = torch.zeros(4, D, dtype=torch.int64)
    assert await refused(network.call(ALICE, messages.FORWARD, pack_forward(A, call(1), whole), soon())) == "bad-tensor"


async def test_broken_messages_are_violations(network: PlainNetwork) -> None:
    good, buffers = pack_forward(A, call(1), rows())
    back, _ = pack_backward(A, call(1), rows(), rows())
    for method, packed in (
        (messages.FORWARD, (b"\xc1", buffers)),
        (messages.FORWARD, (good, [])),
        (messages.FORWARD, (good, buffers * 2)),
        (messages.BACKWARD, (back, buffers)),
        (messages.BACKWARD, (good, buffers)),
        (
            messages.FORWARD,
            (messages.encode(messages.ForwardRequest("../x", call(1), messages.TensorSpec("float32", (4, D)))), buffers),
        ),
    ):
        with pytest.raises(ProtocolViolation):
            await network.call(ALICE, method, packed, soon())


async def test_an_expert_that_is_elsewhere(network: PlainNetwork) -> None:
    assert await refused(network.call(ALICE, messages.FORWARD, pack_forward(B, call(1), rows()), soon())) == "not-hosted"
    assert await refused(network.call(ALICE, messages.BACKWARD, pack_backward(B, call(1), rows()), soon())) == "not-hosted"
