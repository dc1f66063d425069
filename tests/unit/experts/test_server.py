from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import torch
from torch import Tensor

from agent.errors import CallRefused, LocalError
from agent.experts.backend import expert_factory
from agent.experts.batching import BatchingConfig
from agent.experts.keeping import KeptLimits
from agent.experts.server import DONE_BYTES, Answer, ExpertConfig, ExpertServer
from agent.grid import ExpertId
from agent.manifest import Manifest, Rules
from tests.unit.experts.server_bench import ALICE, BOB, MANIFEST, A, B, Bench, D, call, refused, rows, soon


@pytest.fixture
async def server() -> AsyncIterator[ExpertServer]:
    server = ExpertServer(ExpertConfig(torch_threads=1), expert_factory(MANIFEST))
    await server.host(A)
    yield server
    await server.close()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench(ExpertConfig(batching=BatchingConfig(batch_rows_max=100, expert_rows_max=200, requests_max=8)))
    await bench.server.host(A)
    yield bench
    for gate in bench.gates.values():
        gate.open.set()
    await bench.server.close()


async def test_forward_and_backward_compute_what_the_expert_computes(server: ExpertServer) -> None:
    reference = expert_factory(MANIFEST)(A)
    x, g = rows(), rows(seed=1)
    answer = await server.forward(A, call(1), x, deadline=soon())
    assert torch.equal(answer.tensor, reference.forward(x))
    assert not answer.tensor.requires_grad
    back = await server.backward(A, call(1), g, deadline=soon())
    assert torch.equal(back.tensor, reference.backward(x, g))
    assert (answer.version, back.version) == (0, 1)
    info = server.hosted()[A]
    assert (info.version, info.rows_forward, info.rows_backward) == (1, 4, 4)
    assert (server.stats.forwards, server.stats.backwards, server.stats.rows) == (1, 1, 8)


async def test_a_repeated_backward_gives_the_same_answer_and_steps_once(server: ExpertServer) -> None:
    await server.forward(A, call(1), rows(), deadline=soon())
    first, second = await asyncio.gather(*(server.backward(A, call(1), rows(seed=1), deadline=soon()) for _ in range(2)))
    third = await server.backward(A, call(1), rows(seed=1), rows(), deadline=soon())
    assert torch.equal(first.tensor, second.tensor)
    assert torch.equal(first.tensor, third.tensor)
    assert server.hosted()[A].version == 1


async def test_a_repeated_backward_whose_answer_is_gone_does_not_step_again() -> None:
    limits = KeptLimits(bytes_max=64, entries_max=4, age_s=60.0)  # an answer does not fit
    server = ExpertServer(ExpertConfig(answers=limits), expert_factory(MANIFEST))
    await server.host(A)
    await server.forward(A, call(1), rows(), deadline=soon())
    await server.backward(A, call(1), rows(seed=1), deadline=soon())
    assert await refused(server.backward(A, call(1), rows(seed=1), deadline=soon())) == "inputs-gone"
    again = await server.backward(A, call(1), rows(seed=1), rows(), deadline=soon())
    assert again.tensor.shape == (4, D)
    assert server.hosted()[A].version == 1
    await server.close()


@pytest.mark.parametrize(("others", "remembered"), [(3, True), (4, False)])
async def test_finished_backwards_are_remembered_up_to_a_limit(others: int, remembered: bool) -> None:
    tiny = KeptLimits(bytes_max=64, entries_max=1, age_s=60.0)
    done = KeptLimits(bytes_max=4 * DONE_BYTES, entries_max=4, age_s=60.0, caller_share=1.0)
    server = ExpertServer(ExpertConfig(answers=tiny, done=done), expert_factory(MANIFEST))
    await server.host(A)
    for i in range(1 + others):
        await server.backward(A, call(i), rows(seed=i), rows(), deadline=soon())
    await server.backward(A, call(0), rows(), rows(), deadline=soon())
    assert server.hosted()[A].version == 1 + others + (not remembered)
    await server.close()


async def test_a_backward_that_nobody_waits_for_still_steps_once(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.server.backward(A, call(1), rows(seed=1), rows(), deadline=soon()))
    await bench.entered(A)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    retry = asyncio.create_task(bench.server.backward(A, call(1), rows(seed=1), deadline=soon()))
    await asyncio.sleep(0)
    bench.gates[A].open.set()
    answer = await retry
    assert answer.version == 1
    assert bench.gates[A].batches == [4]


async def test_inputs_that_are_gone_are_sent_again(server: ExpertServer) -> None:
    assert await refused(server.backward(A, call(1), rows(), deadline=soon())) == "inputs-gone"
    await server.forward(A, call(2), rows(), deadline=soon(), keep=False)
    assert await refused(server.backward(A, call(2), rows(), deadline=soon())) == "inputs-gone"
    assert (await server.backward(A, call(2), rows(), rows(), deadline=soon())).version == 1
    assert server.stats.refused == {"inputs-gone": 2}


async def test_inputs_are_the_callers_own(server: ExpertServer) -> None:
    await server.forward(A, call(1), rows(), deadline=soon(), caller=ALICE.raw)
    assert await refused(server.backward(A, call(1), rows(), deadline=soon(), caller=BOB.raw)) == "inputs-gone"
    await server.backward(A, call(1), rows(), deadline=soon(), caller=ALICE.raw)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(4, D + 1),
        torch.zeros(4, D, 1),
        torch.zeros(D),
        torch.zeros(0, D),
        torch.zeros(4, D, dtype=torch.int64),
        torch.zeros(4, D, dtype=torch.float64),
        torch.full((4, D), float("nan")),
        torch.full((4, D), float("inf")),
        torch.zeros(BatchingConfig().batch_rows_max + 1, D),
    ],
    ids=lambda t: f"{t.dtype}{list(t.shape)}",
)
async def test_bad_tensors(server: ExpertServer, bad: Tensor) -> None:
    assert await refused(server.forward(A, call(1), bad, deadline=soon())) == "bad-tensor"
    assert await refused(server.backward(A, call(1), bad, rows(), deadline=soon())) == "bad-tensor"
    assert await refused(server.backward(A, call(1), rows(), bad, deadline=soon())) == "bad-tensor"
    assert server.hosted()[A].version == 0


async def test_a_gradient_has_the_shape_of_the_inputs(server: ExpertServer) -> None:
    assert await refused(server.backward(A, call(1), rows(3), rows(4), deadline=soon())) == "bad-tensor"


async def test_a_batch_at_the_limit_of_rows(server: ExpertServer) -> None:
    answer = await server.forward(A, call(1), torch.zeros(BatchingConfig().batch_rows_max, D), deadline=soon())
    assert len(answer.tensor) == BatchingConfig().batch_rows_max


async def test_a_gradient_that_is_not_finite_does_not_spoil_the_others_in_its_batch(bench: Bench) -> None:
    """Three callers' backwards merge; one overflows. It alone is refused, the others step."""
    server = bench.server
    blocker = asyncio.create_task(server.forward(A, call(9), rows(), deadline=soon()))
    await bench.entered(A)
    gradients = {1: rows(seed=1), 2: rows(seed=2) * 1e30, 3: rows(seed=3)}
    backs = [asyncio.create_task(server.backward(A, call(i), g, rows(), deadline=soon())) for i, g in gradients.items()]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert server.load.queue_rows == 12
    bench.gates[A].open.set()
    await blocker
    good, bad, good_too = await asyncio.gather(*backs, return_exceptions=True)
    assert isinstance(good, Answer)
    assert isinstance(good_too, Answer)
    assert isinstance(bad, CallRefused)
    assert bad.code == "not-finite"
    assert bench.gates[A].batches == [4, 12, 4, 4, 4]
    assert server.hosted()[A].version == 2
    assert await refused(server.backward(A, call(2), gradients[2], rows(), deadline=soon())) == "not-finite"


async def test_callers_are_merged_into_one_batch_and_one_step(bench: Bench) -> None:
    server = bench.server
    blocker = asyncio.create_task(server.forward(A, call(9), rows(), deadline=soon()))
    await bench.entered(A)
    backs = [
        asyncio.create_task(server.backward(A, call(1), rows(n, seed=n), rows(n), deadline=soon(), caller=peer.raw))
        for n, peer in ((3, ALICE), (5, BOB))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.gates[A].open.set()
    first, second = await asyncio.gather(*backs)
    await blocker
    assert bench.gates[A].batches == [4, 8]
    assert first.version == second.version == 1
    assert torch.equal(first.tensor, rows(3, seed=3))
    assert torch.equal(second.tensor, rows(5, seed=5))
    assert first.tensor.untyped_storage().nbytes() == 3 * D * 4  # not the whole batch


async def test_a_full_queue_refuses(bench: Bench) -> None:
    server = bench.server
    tasks = [asyncio.create_task(server.forward(A, call(0), rows(), deadline=soon()))]
    await bench.entered(A)
    tasks += [asyncio.create_task(server.forward(A, call(i), rows(), deadline=soon(), keep=False)) for i in range(1, 9)]
    await asyncio.sleep(0)
    assert await refused(server.forward(A, call(10), rows(), deadline=soon())) == "overloaded"
    assert server.load.queue_rows == 32
    bench.gates[A].open.set()
    await asyncio.gather(*tasks)
    assert server.load.queue_rows == 0


async def test_a_deadline_passes_in_the_queue(bench: Bench) -> None:
    server = bench.server
    blocker = asyncio.create_task(server.forward(A, call(0), rows(), deadline=soon()))
    await bench.entered(A)
    assert await refused(server.forward(A, call(1), rows(), deadline=soon(0.01))) == "overloaded"
    assert await refused(server.forward(A, call(2), rows(), deadline=soon(-1.0))) == "overloaded"
    bench.gates[A].open.set()
    await blocker
    assert bench.gates[A].batches == [4]


async def test_dropping_refuses_what_waits_and_gives_the_state(bench: Bench) -> None:
    server = bench.server
    running = asyncio.create_task(server.backward(A, call(1), rows(), rows(), deadline=soon()))
    await bench.entered(A)
    waiting = asyncio.create_task(server.forward(A, call(2), rows(), deadline=soon()))
    await asyncio.sleep(0)
    dropping = asyncio.create_task(server.drop(A))
    assert await refused(waiting) == "not-hosted"
    assert await refused(server.forward(A, call(3), rows(), deadline=soon())) == "not-hosted"
    bench.gates[A].open.set()
    assert (await running).version == 1
    state = await dropping
    assert state is not None
    assert state.version == 1
    assert await server.drop(A) is None
    await server.host(A, state)
    assert server.hosted()[A].version == 1
    assert await refused(server.backward(A, call(2), rows(), deadline=soon())) == "inputs-gone"


async def test_two_experts_do_not_mix(server: ExpertServer) -> None:
    await server.host(B)
    await server.host(B)
    a, b = await asyncio.gather(*(server.forward(uid, call(1), rows(), deadline=soon()) for uid in (A, B)))
    assert not torch.equal(a.tensor, b.tensor)
    await server.backward(A, call(1), rows(), deadline=soon())
    assert [server.hosted()[uid].version for uid in (A, B)] == [1, 0]


async def test_a_host_has_room_for_experts_max() -> None:
    server = ExpertServer(ExpertConfig(experts_max=1), expert_factory(MANIFEST))
    await server.host(A)
    with pytest.raises(LocalError, match="the most"):
        await server.host(B)
    await server.close()


async def test_an_expert_outside_the_model_is_not_hosted(server: ExpertServer) -> None:
    with pytest.raises(ValueError, match="has no expert"):
        await server.host(ExpertId("ffn7", (0, 0)))
    assert list(server.hosted()) == [A]


async def test_closing_refuses_and_stops(bench: Bench) -> None:
    server = bench.server
    running = asyncio.create_task(server.forward(A, call(1), rows(), deadline=soon()))
    await bench.entered(A)
    waiting = asyncio.create_task(server.forward(A, call(2), rows(), deadline=soon()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(server.close())
    assert await refused(waiting) == "not-hosted"
    bench.gates[A].open.set()
    assert (await running).tensor.shape == (4, D)
    await closing
    assert await refused(server.forward(A, call(3), rows(), deadline=soon())) == "not-hosted"
    assert not [t for t in threading.enumerate() if t.name.startswith("hive-expert")]


async def test_what_is_kept_goes_in_time_though_nobody_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.experts.server.SWEEP_S", 0.001)
    brief = KeptLimits(bytes_max=10_000, entries_max=10, age_s=0.02)
    server = ExpertServer(ExpertConfig(inputs=brief, answers=brief, done=brief), expert_factory(MANIFEST))
    await server.host(A)
    await server.forward(A, call(1), rows(), deadline=soon())
    await server.backward(A, call(2), rows(), rows(), deadline=soon())
    async with asyncio.timeout(30):
        while server.kept_bytes or server._sweeping:  # noqa: ASYNC110 - timers of the server itself, nothing to wait on
            await asyncio.sleep(0)
    await server.close()


async def test_limits_come_from_the_manifest() -> None:
    rules = Rules(batch_rows_max=16, experts_per_agent_max=3)
    config = ExpertConfig.of(Manifest(name="t", revision=1, title="t", rules=rules), torch_threads=1)
    assert (config.batching.batch_rows_max, config.experts_max, config.torch_threads) == (16, 3, 1)
