"""However often backwards are repeated, at once or later, given up or with their inputs, each steps once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CallRefused
from agent.experts.backend import expert_factory
from agent.experts.batching import BatchingConfig
from agent.experts.keeping import KeptLimits
from agent.experts.server import Answer, ExpertConfig, ExpertServer
from tests.unit.experts.server_bench import ALICE, BOB, MANIFEST, A, call, rows, soon

CALLERS = (b"", ALICE.raw, BOB.raw)

actions = st.tuples(
    st.sampled_from(["forward", "backward", "backward", "resend", "give-up"]), st.integers(0, 3), st.sampled_from(CALLERS)
)


async def play(story: Sequence[Sequence[tuple[str, int, bytes]]], answers: KeptLimits) -> None:
    # A batch has room for one call only: merged calls would share a step, and could not be counted.
    batching = BatchingConfig(batch_rows_max=2, expert_rows_max=200)
    server = ExpertServer(ExpertConfig(answers=answers, batching=batching), expert_factory(MANIFEST))
    await server.host(A)
    answered: set[tuple[int, bytes]] = set()
    begun: set[tuple[int, bytes]] = set()

    async def act(what: str, which: int, caller: bytes) -> None:
        try:
            if what == "forward":
                await server.forward(A, call(which), rows(2, seed=which), deadline=soon(), caller=caller)
                return
            inputs = rows(2, seed=which) if what != "backward" else None
            back = server.backward(A, call(which), rows(2, seed=which + 9), inputs, deadline=soon(), caller=caller)
            if what == "give-up":
                task = asyncio.create_task(back)
                await asyncio.sleep(0)
                begun.add((which, caller))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                return
            answer: Answer = await back
            answered.add((which, caller))
            assert answer.tensor.shape == (2, 8)
        except CallRefused as refused:
            assert refused.code == "inputs-gone"

    for together in story:
        await asyncio.gather(*(act(*action) for action in together))
    for which, caller in begun:  # what was given up has stepped, or does now
        await act("resend", which, caller)
    steps = server.hosted()[A].version
    await server.close()
    assert steps == len(answered)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(actions, min_size=1, max_size=6), max_size=6), st.sampled_from([1, 200, 1 << 20]))
def test_each_backward_steps_once(story: list[list[tuple[str, int, bytes]]], answer_bytes: int) -> None:
    asyncio.run(play(story, KeptLimits(bytes_max=answer_bytes, entries_max=100, age_s=60.0, caller_share=1.0)))
