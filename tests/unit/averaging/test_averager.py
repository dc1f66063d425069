"""Trunk exchanges between trainers, over fakes of the network and the overlay."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
import torch
from torch import nn

from agent.averaging.averager import Averager
from agent.averaging.gossip import GossipConfig
from agent.averaging.source import TRAINERS_NAME, TrainerRecord, TrunkMessage
from agent.averaging.trunk import Trunk, TrunkConfig
from agent.errors import CallRefused, NotReachable, ProtocolViolation
from agent.identity import Identity, PeerId
from agent.net.network import Handler, Reply, Request
from agent.tensors import TensorSpec, pack


@dataclass
class World:
    """Everybody's handlers, and one dictionary record."""

    handlers: dict[tuple[PeerId, str], Handler] = field(default_factory=dict)
    trainers: dict[PeerId, bytes] = field(default_factory=dict)
    dead: set[PeerId] = field(default_factory=set)


@dataclass
class FakeNetwork:
    world: World
    peer_id: PeerId

    def register(self, method: str, handler: Handler) -> None:
        self.world.handlers[self.peer_id, method] = handler

    async def call(
        self, peer: PeerId, method: str, header: bytes = b"", buffers: Sequence[memoryview] = (), *, timeout_s: float
    ) -> Reply:
        if peer in self.world.dead:
            raise NotReachable("dead")
        copies = [memoryview(bytes(b)) for b in buffers]
        request = Request(peer=self.peer_id, method=method, header=header, buffers=copies, deadline=timeout_s)
        return await self.world.handlers[peer, method](request)


@dataclass
class Found:
    owner: PeerId
    value: bytes


@dataclass
class FakeOverlay:
    world: World
    peer_id: PeerId

    async def get(self, name: str) -> list[Found]:
        assert name == TRAINERS_NAME
        return [Found(owner, value) for owner, value in self.world.trainers.items()]

    async def put(self, name: str, value: bytes, *, ttl_s: float, subkey: str = "") -> int:
        assert name == TRAINERS_NAME and subkey == str(self.peer_id)
        self.world.trainers[self.peer_id] = value
        return 1


def trainer(world: World, number: int, *, width: int = 4) -> tuple[Averager, Trunk, PeerId]:
    torch.manual_seed(number)
    trunk = Trunk(dict(nn.Linear(width, width).named_parameters()), TrunkConfig(warmup_steps=0))
    peer = Identity.from_seed(bytes([number]) * 32).peer_id
    averager = Averager(
        trunk,
        FakeNetwork(world, peer),  # type: ignore[arg-type]
        FakeOverlay(world, peer),  # type: ignore[arg-type]
        GossipConfig(),
        rng=random.Random(number),
    )
    return averager, trunk, peer


async def test_two_trainers_meet_at_the_mean() -> None:
    world = World()
    a, trunk_a, _ = trainer(world, 1)
    _, trunk_b, peer_b = trainer(world, 2)
    mean = (trunk_a.snapshot() + trunk_b.snapshot()) / 2
    await a._exchange(peer_b)
    assert torch.allclose(trunk_a.snapshot(), mean, atol=1e-6) and torch.allclose(trunk_b.snapshot(), mean, atol=1e-6)
    assert a.exchanges == 1 and a.exchanges_failed == 0


async def test_who_learnt_more_weighs_more_and_nobody_more_than_the_cap() -> None:
    world = World()
    a, trunk_a, _ = trainer(world, 1)
    _, trunk_b, peer_b = trainer(world, 2)
    for _ in range(3):
        trunk_b.apply(torch.ones(trunk_b.size))
    before_a, before_b = trunk_a.snapshot(), trunk_b.snapshot()
    await a._exchange(peer_b)
    assert torch.allclose(trunk_a.snapshot(), before_a * 0.25 + before_b * 0.75, atol=1e-6)
    for _ in range(1000):
        trunk_b.apply(torch.ones(trunk_b.size))
    c, trunk_c, _ = trainer(world, 3)
    before_c, before_b = trunk_c.snapshot(), trunk_b.snapshot()
    await c._exchange(peer_b)
    assert torch.allclose(trunk_c.snapshot(), before_c * 0.25 + before_b * 0.75, atol=1e-6)


async def test_a_newcomer_takes_the_most_advanced_trunk_that_answers() -> None:
    world = World()
    newcomer, trunk, _ = trainer(world, 1)
    assert not await newcomer.fetch()
    trunks = {}
    for number, step in ((2, 5), (3, 50), (4, 500)):
        averager, other, peer = trainer(world, number)
        other.step = step
        await averager._announce()
        trunks[step] = other
        if step == 500:
            world.dead.add(peer)
    assert sorted((await newcomer.trainers()).values()) == [5, 50, 500]
    assert await newcomer.fetch()
    assert torch.equal(trunk.snapshot(), trunks[50].snapshot()) and trunk.step == 50


async def test_a_dead_partner_costs_nothing() -> None:
    world = World()
    a, trunk, _ = trainer(world, 1)
    _, _, peer_b = trainer(world, 2)
    world.dead.add(peer_b)
    before = trunk.snapshot()
    await a._exchange(peer_b)
    assert torch.equal(trunk.snapshot(), before) and a.exchanges_failed == 1


async def test_other_layouts_and_hostile_trunks_are_refused() -> None:
    world = World()
    a, trunk, peer_a = trainer(world, 1)
    b, _, peer_b = trainer(world, 2, width=5)
    await a._exchange(peer_b)
    assert a.exchanges_failed == 1 and not b.exchanges
    with pytest.raises(CallRefused, match="other-layout"):
        await b._network.call(peer_a, "trunk.fetch", b"x" * 32, timeout_s=1)
    serve = world.handlers[peer_a, "trunk.exchange"]
    spec, nan = pack(torch.full((trunk.size,), float("nan")))
    before = trunk.snapshot()
    good = TrunkMessage(trunk.layout, 1, 1.0, spec)
    for i, (header, buffers) in enumerate(
        [
            (b"garbage", [nan]),
            (msgspec.msgpack.encode(good), [nan]),
            (msgspec.msgpack.encode(good), []),
            (msgspec.msgpack.encode(TrunkMessage(trunk.layout, 1, -1.0, spec)), [nan]),
            (msgspec.msgpack.encode(TrunkMessage(trunk.layout, 1, 1.0, TensorSpec("float32", (3,)))), [memoryview(bytes(12))]),
        ]
    ):
        stranger = Identity.from_seed(bytes([50 + i]) * 32).peer_id
        with pytest.raises(ProtocolViolation):
            await serve(Request(peer=stranger, method="trunk.exchange", header=header, buffers=buffers, deadline=1))
    assert torch.equal(trunk.snapshot(), before)


async def test_a_peer_may_not_exchange_all_the_time() -> None:
    world = World()
    a, _, _ = trainer(world, 1)
    _, _, peer_b = trainer(world, 2)
    await a._exchange(peer_b)
    await a._exchange(peer_b)
    assert (a.exchanges, a.exchanges_failed) == (1, 1)


async def test_records_that_do_not_parse_are_passed_over() -> None:
    world = World()
    a, _, _ = trainer(world, 1)
    other = Identity.from_seed(b"\7" * 32).peer_id
    world.trainers[other] = msgspec.msgpack.encode(TrainerRecord(9))
    world.trainers[Identity.from_seed(b"\x08" * 32).peer_id] = b"\xc1"
    assert await a.trainers() == {other: 9}
