"""Hosts agree on experts over the real DHT, overlay and network; links are in memory and time is virtual."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from agent.errors import NotReachable
from agent.experts.custodian import Clocks, Custodian
from agent.experts.directory import Directory
from agent.identity import Identity, PeerId
from agent.manifest import GPTModel, Manifest
from agent.net.memory import MemoryConfig, MemoryFabric
from agent.net.network import Network, Surroundings
from agent.net.overlay import Overlay
from tests.unit.experts.test_custodian import FakeServer
from tests.virtual_loop import run

UNIX = 1_800_000_000.0
MANIFEST = Manifest(name="t", revision=1, title="t", model=GPTModel(layers=2, grid=(4, 4)))
TOTAL = 32


def monotonic() -> float:
    return asyncio.get_running_loop().time()


def unix() -> float:
    return UNIX + monotonic()


class Agent:
    def __init__(self, world: World, seed: int) -> None:
        identity = Identity.from_seed(bytes([seed]) * 32)
        self.transport = world.fabric.transport(f"agent{seed}")
        self.network = Network(identity=identity, experiment="t", transport=self.transport, surroundings=Surroundings(clock=unix))
        self.overlay = Overlay(self.network, identity, experiment="t", rng=random.Random(seed), clock=unix)
        self.server = FakeServer()
        self.directory = Directory(self.overlay, MANIFEST.model.grids(), clock=monotonic, unix=unix)
        clocks = Clocks(monotonic=monotonic, unix=unix)
        self.custodian = Custodian(self.overlay, self.server, MANIFEST, capacity=32, directory=self.directory, clocks=clocks)
        self.running: asyncio.Task[None] | None = None
        self.alive = True

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)

    async def vanish(self) -> None:
        """As a killed process does: nobody is told."""
        self.alive = False
        await self.stop()
        for link in self.transport.links:
            link.cut()


class World:
    """`exchange` carries first offers, as a bootstrap server would."""

    def __init__(self) -> None:
        self.fabric = MemoryFabric(MemoryConfig(delay_s=0.02))
        self.agents: dict[PeerId, Agent] = {}

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        agent = self.agents.get(peer)
        if agent is None or not agent.alive:
            raise NotReachable("gone")
        return await agent.network.answer(sealed_offer)

    async def start(self) -> Agent:
        contacts = [(peer, self) for peer, agent in self.agents.items() if agent.alive][:1]
        agent = Agent(self, len(self.agents) + 1)
        self.agents[agent.network.peer_id] = agent
        await agent.overlay.join(contacts)
        agent.running = asyncio.create_task(agent.custodian.run())
        return agent

    async def pass_until(self, moment: float) -> None:
        loop = asyncio.get_running_loop()
        passed = loop.create_future()
        loop.call_at(moment, passed.set_result, None)
        await passed

    def loads(self) -> list[int]:
        return [len(a.server.versions) for a in self.agents.values() if a.alive]

    def hosted(self) -> int:
        return len({uid for a in self.agents.values() if a.alive for uid in a.server.versions})

    async def close(self) -> None:
        for agent in self.agents.values():
            await agent.stop()
            await agent.overlay.close()
            await agent.network.close()


def in_world(story: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        try:
            await story(world)
        finally:
            await world.close()

    run(main())


def test_three_agents_share_lose_one_and_go_on() -> None:
    async def story(world: World) -> None:
        agents = []
        for start in (0.0, 2.0, 4.0):
            await world.pass_until(start)
            agents.append(await world.start())
        await world.pass_until(10.0)
        assert world.hosted() == TOTAL
        await world.pass_until(20.0)
        assert sum(world.loads()) == TOTAL
        assert min(world.loads()) >= 8, world.loads()
        assert all(len(a.directory.alive()) == TOTAL for a in agents)

        await agents[1].vanish()
        await world.pass_until(20.0 + 12.0 + 5.0)
        assert sum(world.loads()) == world.hosted() == TOTAL
        await world.pass_until(42.0)
        assert all(len(a.directory.alive()) == TOTAL for a in agents if a.alive)

        late = await world.start()
        await world.pass_until(60.0)
        assert len(late.server.versions) == 0, "what has learned stays where it is"
        assert len(late.directory.alive()) == TOTAL

    in_world(story)


def test_one_alone_hosts_everything() -> None:
    async def story(world: World) -> None:
        agent = await world.start()
        await world.pass_until(20.0)
        assert len(agent.server.versions) == TOTAL
        await agent.stop()
        await agent.custodian.release()
        assert agent.server.versions == {}
        await agent.directory.refresh()
        await world.pass_until(24.5)
        assert agent.directory.alive() == frozenset()

    in_world(story)
