from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import torch

from agent.errors import CallRefused, CallTimeout, LinkClosed, NotReachable, ProtocolViolation, RemoteError
from agent.grid import ExpertId, Grid
from agent.moe.beam_search import BeamConfig
from agent.moe.deadlines import DeadlineConfig
from agent.moe.experts_api import BackwardCall, ForwardCall, new_call_id
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.prefix_search import PrefixSearchConfig
from agent.moe.remote import RemoteConfig, RemoteExperts
from agent.net.network import Reply
from tests.unit.moe.fakes import ALICE, BOB, ME, FakeDirectory, FakeExperts, LoopThread
from tests.unit.moe.reference import brute_force, make_experts

GRID = Grid("ffn0", (2, 2))
FIRST, SECOND, THIRD, FOURTH = GRID
FLOAT32 = RemoteConfig(wire_dtype="float32")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with LoopThread() as running:
        yield running


class World:
    def __init__(self, loop: asyncio.AbstractEventLoop, config: RemoteConfig = FLOAT32) -> None:
        self.modules = make_experts(GRID, 4)
        self.hosts = FakeExperts(self.modules)
        self.directory = FakeDirectory(dict(zip(GRID, [ME, ALICE, ALICE, BOB], strict=True)))
        self.experts = RemoteExperts(self.hosts.call, self.directory, loop=loop, peer_id=ME, own=self.hosts, config=config)

    def forward(self, *uids: ExpertId) -> list[torch.Tensor | None]:
        return self.experts.forward([ForwardCall(uid=u, call=new_call_id(), inputs=torch.ones(3, 4)) for u in uids])

    def backward(self, uid: ExpertId, call: bytes) -> torch.Tensor | None:
        call_ = BackwardCall(uid=uid, call=call, gradient=torch.ones(3, 4), inputs=torch.ones(3, 4))
        return self.experts.backward([call_])[0]


def test_calls_of_one_layer_go_out_together_and_own_experts_need_no_network(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop)
    answers = world.forward(*GRID)
    for uid, answer in zip(GRID, answers, strict=True):
        assert answer is not None and torch.allclose(answer, world.modules[uid](torch.ones(3, 4)))
    assert world.hosts.concurrent_max == 4
    assert world.hosts.calls == {(ME, "own"): 1, (ALICE, "expert.forward"): 2, (BOB, "expert.forward"): 1}
    counters = world.experts.counters()
    assert (counters.calls, counters.calls_own, counters.calls_failed) == (4, 1, 0)
    assert (SECOND, ALICE) in world.directory.revived


def test_the_wire_carries_the_configured_dtype(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, RemoteConfig())
    (answer,) = world.forward(SECOND)
    assert answer is not None and answer.dtype == torch.float32
    assert world.hosts.wire == ["bfloat16"]


@pytest.mark.parametrize(
    ("error", "dead"),
    [
        (CallTimeout("late"), True),
        (LinkClosed("gone"), True),
        (NotReachable("no way"), True),
        (ProtocolViolation("rubbish"), True),
        (CallRefused("not-hosted"), True),
        (CallRefused("overloaded"), False),
        (CallRefused("bad-tensor"), False),
        (CallRefused("not-finite"), False),
    ],
)
def test_a_failed_call_is_none_and_the_directory_hears_of_the_dead(
    loop: asyncio.AbstractEventLoop, error: RemoteError, dead: bool
) -> None:
    world = World(loop)
    world.hosts.fault = lambda way, uid: error if uid in (FIRST, SECOND) else None
    answers = world.forward(FIRST, SECOND, FOURTH)
    assert answers[0] is None and answers[1] is None and answers[2] is not None
    assert world.directory.dead == ([(FIRST, ME), (SECOND, ALICE)] if dead else [])
    assert world.experts.counters().calls_failed == 2


def test_an_expert_that_nobody_hosts_fails_without_a_call(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop)
    del world.directory.places[SECOND]
    assert world.forward(SECOND) == [None]
    assert not world.hosts.calls and world.experts.counters().calls_failed == 1


def test_own_experts_have_deadlines_too(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, RemoteConfig(deadlines=DeadlineConfig(floor_s=0.01, ceiling_s=0.01)))
    world.hosts.fault = lambda way, uid: "hang"
    assert world.forward(FIRST) == [None]
    assert world.directory.dead == [(FIRST, ME)]


def test_without_a_server_of_its_own(loop: asyncio.AbstractEventLoop) -> None:
    hosts = FakeExperts(make_experts(GRID, 4))
    experts = RemoteExperts(hosts.call, FakeDirectory({FIRST: ME}), loop=loop, peer_id=ME)
    assert experts.forward([ForwardCall(uid=FIRST, call=new_call_id(), inputs=torch.ones(1, 4))]) == [None]


@pytest.mark.parametrize("uid", [FIRST, SECOND])
def test_inputs_that_are_gone_are_sent_again(loop: asyncio.AbstractEventLoop, uid: ExpertId) -> None:
    world = World(loop)
    call = new_call_id()
    assert world.backward(uid, call) is not None
    counters = world.experts.counters()
    assert (counters.calls, counters.resends, counters.calls_failed) == (1, 1, 0)


def test_deadlines_follow_what_a_host_has_shown(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop, RemoteConfig(deadlines=DeadlineConfig(floor_s=0.5, ceiling_s=8.0)))
    world.forward(SECOND)
    world.forward(SECOND)
    world.hosts.fault = lambda way, uid: CallTimeout("late")
    world.forward(SECOND)
    world.forward(SECOND)
    assert world.hosts.timeouts[0] == 8.0 and world.hosts.timeouts[1:3] == [0.5, 0.5] and world.hosts.timeouts[3] == 1.0
    world.directory.places[SECOND] = BOB
    world.forward(SECOND)
    assert world.hosts.timeouts[-1] == 8.0


class Liar:
    """A host that answers with whatever it was made with."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply

    async def call(self, *args: object, **kwargs: object) -> Reply:
        return self.reply


@pytest.mark.parametrize(
    "reply", [Reply(), Reply(b"\xc1", [b""]), Reply(b"\x94\x92\xa7float32\x92\x03\x04\x01\x00\xcb" + bytes(8), [b"1"])]
)
def test_rubbish_answers_fail(loop: asyncio.AbstractEventLoop, reply: Reply) -> None:
    directory = FakeDirectory({SECOND: ALICE})
    experts = RemoteExperts(Liar(reply).call, directory, loop=loop, peer_id=ME)
    assert experts.forward([ForwardCall(uid=SECOND, call=new_call_id(), inputs=torch.ones(3, 4))]) == [None]
    assert directory.dead == [(SECOND, ALICE)]


def test_backtracks_are_counted_and_lead_to_live_experts(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop)
    world.hosts.fault = lambda way, uid: LinkClosed("gone") if uid in (FIRST, SECOND, THIRD) else None
    layer = MixtureOfExperts(4, GRID, 1, experts=world.experts, config=MixtureConfig(rounds=4))
    x = torch.randn(2, 3, 4, requires_grad=True)
    y, _ = layer(x)
    y.sum().backward()
    assert torch.allclose(y, world.modules[FOURTH](x), atol=1e-5)
    assert world.experts.counters().backtracks > 0


def test_whoever_was_found_dead_in_one_round_is_not_asked_in_the_next(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop)
    world.directory.forgets = True
    world.hosts.fault = lambda way, uid: LinkClosed("gone") if uid != FOURTH else None
    layer = MixtureOfExperts(4, GRID, 2, experts=world.experts, config=MixtureConfig(rounds=4))
    y, _ = layer(torch.randn(1, 40, 4))
    assert y.any(dim=-1).all()
    asked = [uid for uid, _ in world.directory.dead]
    assert len(asked) == len(set(asked))


def test_a_large_grid_uses_the_beam(loop: asyncio.AbstractEventLoop) -> None:
    grid = Grid("ffn0", (17, 256))
    live = {uid for i, uid in enumerate(grid) if i % 97 == 0}
    directory = FakeDirectory(dict.fromkeys(live, ALICE))
    config = RemoteConfig(search=PrefixSearchConfig(beam=BeamConfig(width=17, width_max=17)))
    experts = RemoteExperts(FakeExperts({}).call, directory, loop=loop, peer_id=ME, config=config)
    logits = torch.randn(5, 273)
    choice = experts.choose(grid, logits, 2)
    assert choice.live_E is None
    assert choice.chosen_UK.tolist() == brute_force(logits, grid, 2, live, [set()] * 5)


def test_calling_from_the_loops_own_thread_is_a_mistake(loop: asyncio.AbstractEventLoop) -> None:
    world = World(loop)

    async def wrong() -> None:
        world.forward(FIRST)

    with pytest.raises(RuntimeError, match="thread"):
        asyncio.run_coroutine_threadsafe(wrong(), loop).result(5)


def test_a_closed_loop_means_no_answers() -> None:
    with LoopThread() as short_lived:
        world = World(short_lived)
    assert world.forward(FIRST, SECOND) == [None, None]


def test_no_calls() -> None:
    with LoopThread() as short_lived:
        assert World(short_lived).experts.forward([]) == []
