"""One mixture layer over real hosts: `Network` on in-memory links, `ExpertServer` with real optimizers, three agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import torch
from torch import Tensor

from agent.experts.backend import expert_factory
from agent.experts.modules import make_module
from agent.experts.server import ExpertConfig, ExpertServer
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.manifest import GPTModel, Manifest, Training
from agent.moe.deadlines import DeadlineConfig
from agent.moe.layer import MixtureConfig, MixtureOfExperts
from agent.moe.remote import RemoteConfig, RemoteExperts
from agent.net.network import Network
from tests.unit.moe.fakes import FakeDirectory
from tests.unit.moe.reference import brute_force, masked_mixture
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Town

MODEL = GPTModel(d_model=16, heads=2, layers=1, expert_hidden=32, grid=(3, 3), k_best=2)
MANIFEST = Manifest(name="gpt-crowd", revision=1, title="test", model=MODEL, training=Training(expert_learning_rate=1e-2))
(GRID,) = MODEL.grids()


class Agents:
    """Alice trains; the experts are spread over all three."""

    def __init__(self) -> None:
        self.town = Town()
        self.servers: dict[PeerId, ExpertServer] = {}
        self.networks: dict[PeerId, Network] = {}
        self.directory = FakeDirectory({})

    async def start(self) -> None:
        for identity in (ALICE, BOB, CHARLIE):
            network = self.town.join(identity)
            network.dialer = lambda peer, network=network: network.dial(peer, self.town.signaler, timeout_s=10)
            server = ExpertServer(ExpertConfig.of(MANIFEST), expert_factory(MANIFEST))
            server.register(network)
            self.networks[network.peer_id], self.servers[network.peer_id] = network, server
        for i, uid in enumerate(GRID):
            host = list(self.servers)[i % 3]
            await self.servers[host].host(uid)
            self.directory.places[uid] = host

    def experts(self) -> RemoteExperts:
        config = RemoteConfig(wire_dtype="float32", deadlines=DeadlineConfig(floor_s=5.0))
        return RemoteExperts(
            self.networks[ALICE.peer_id].call,
            self.directory,
            loop=asyncio.get_running_loop(),
            peer_id=ALICE.peer_id,
            own=self.servers[ALICE.peer_id],
            config=config,
        )

    async def close(self) -> None:
        for server in self.servers.values():
            await server.close()
        await self.town.close()


@pytest.fixture
async def agents() -> AsyncIterator[Agents]:
    agents = Agents()
    await agents.start()
    yield agents
    await agents.close()


async def gradients(layer: MixtureOfExperts, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and gradients with respect to the input and the gate, computed as trainers do: off the event loop."""

    def work() -> tuple[Tensor, Tensor, Tensor]:
        y, _ = layer(x)
        return y.detach(), *torch.autograd.grad((y * upstream).sum(), [x, layer.gate.weight])

    return await asyncio.to_thread(work)


def reference(layer: MixtureOfExperts, x: Tensor, upstream: Tensor, live: set[ExpertId]) -> tuple[Tensor, Tensor, Tensor]:
    modules = {uid: make_module(MANIFEST, uid) for uid in GRID}
    gate = layer.gate.weight.detach().clone().requires_grad_()
    x_UND = x.reshape(-1, 1, 16)
    logits_UG = x.reshape(-1, 16) @ gate.T
    chosen = brute_force(logits_UG, GRID, 2, live, [set()] * len(logits_UG))
    y = masked_mixture(x_UND, logits_UG, GRID, modules, chosen, set()).reshape(x.shape)
    return y.detach(), *torch.autograd.grad((y * upstream).sum(), [x, gate])


async def test_it_equals_the_same_mixture_computed_here_and_experts_learn(agents: Agents) -> None:
    layer = MixtureOfExperts(16, GRID, 2, experts=agents.experts())
    x, upstream = torch.randn(4, 10, 16, requires_grad=True), torch.randn(4, 10, 16)
    found = await gradients(layer, x, upstream)
    for mine, theirs in zip(found, reference(layer, x, upstream, set(GRID)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    steps = {uid: info.version for server in agents.servers.values() for uid, info in server.hosted().items()}
    assert set(steps.values()) == {1} and set(steps) == set(GRID)
    again, _, _ = await gradients(layer, x, upstream)
    assert not torch.allclose(again, found[0], atol=1e-5)


async def test_a_host_that_dies_is_masked_and_backtracked_around(agents: Agents) -> None:
    layer = MixtureOfExperts(16, GRID, 2, experts=agents.experts(), config=MixtureConfig(rounds=9))
    agents.directory.forgets = True
    x, upstream = torch.randn(4, 10, 16, requires_grad=True), torch.randn(4, 10, 16)
    bob = BOB.peer_id
    agents.town.signaler.broken.add(bob)
    await agents.networks[bob].close()
    y, to_x, to_gate = await gradients(layer, x, upstream)
    for value in (y, to_x, to_gate):
        assert torch.isfinite(value).all()
    assert y.any(dim=-1).all()
    # Now that the directory knows, the layer equals the mixture over the others.
    live = {uid for uid in GRID if agents.directory.places.get(uid) not in (None, bob)}
    assert len(live) == 6
    fresh = Agents()
    await fresh.start()
    fresh.directory.places = {uid: host for uid, host in fresh.directory.places.items() if uid in live}
    layer.experts = fresh.experts()
    for mine, theirs in zip(await gradients(layer, x, upstream), reference(layer, x, upstream, live), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    await fresh.close()


async def test_dropped_experts_are_reported_dead(agents: Agents) -> None:
    layer = MixtureOfExperts(16, GRID, 2, experts=agents.experts())
    x, upstream = torch.randn(4, 10, 16, requires_grad=True), torch.randn(4, 10, 16)
    charlie = CHARLIE.peer_id
    gone = set(agents.servers[charlie].hosted())
    for uid in gone:
        await agents.servers[charlie].drop(uid)
    y, _, _ = await gradients(layer, x, upstream)
    assert torch.isfinite(y).all()
    assert {uid for uid, _ in agents.directory.dead} == gone
