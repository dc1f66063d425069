"""The overlay over the real Network and links in memory, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from agent.dht.config import DhtConfig
from agent.errors import CallRefused, CallTimeout, JoinError, LinkClosed, NotReachable, RecordError
from agent.identity import Identity, PeerId
from agent.net.memory import MemoryConfig, MemoryFabric
from agent.net.network import Network, Reply, Request, Surroundings
from agent.net.overlay import Entry, Overlay, SteadyClock
from tests.virtual_loop import VirtualLoop, run

EPOCH = 1_800_000_000.0


class Direct:
    """Carries offers straight to networks of this process: a bootstrap server without the socket."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.exchanges = 0

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        self.exchanges += 1
        node = self.world.nodes.get(peer)
        if node is None or not node.answers:
            raise NotReachable(f"{peer.short} is not there")
        return await node.network.answer(sealed_offer)


class Node:
    def __init__(self, world: World, seed: int, life: int = 1) -> None:
        self.identity = Identity.from_seed(bytes([seed]) * 32)
        self.transport = world.fabric.transport(f"node{seed} in life {life}")
        self.answers = True
        self.network = Network(
            identity=self.identity,
            experiment="test",
            transport=self.transport,
            surroundings=Surroundings(clock=world.clock),
        )
        self.overlay = Overlay(
            self.network,
            self.identity,
            experiment="test",
            rng=random.Random(seed),
            config=world.config,
            clock=world.clock,
        )

    @property
    def peer(self) -> PeerId:
        return self.network.peer_id

    def vanish(self) -> None:
        """Stop as a killed process does: no more messages, and nobody is told."""
        self.answers = False
        for link in self.transport.links:
            link.cut()

    async def close(self) -> None:
        await self.overlay.close()
        await self.network.close()


class World:
    def __init__(self, config: DhtConfig) -> None:
        self.fabric = MemoryFabric(MemoryConfig(delay_s=0.01))
        self.config = config
        self.nodes: dict[PeerId, Node] = {}
        self.signaler = Direct(self)
        self._seeds = iter(range(1, 256))

    def clock(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    async def add(self, *via: Node) -> Node:
        node = Node(self, next(self._seeds))
        self.nodes[node.peer] = node
        await node.overlay.join([(other.peer, self.signaler) for other in via])
        return node

    async def grow(self, n: int) -> list[Node]:
        first = await self.add()
        return [first, *[await self.add(first) for _ in range(n - 1)]]

    async def passes(self, seconds: float) -> None:
        """Let virtual time pass."""
        waiter = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, waiter.set_result, None)
        await waiter


def in_world(story: Callable[[World], Awaitable[None]], config: DhtConfig | None = None) -> None:
    async def main() -> None:
        world = World(config or DhtConfig())
        try:
            await story(world)
        finally:
            for node in world.nodes.values():
                await node.close()

    run(main())


def test_four_agents_find_each_other_through_the_first() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(4)
        await world.passes(5)
        for node in nodes:
            assert set(node.network.peers()) == {n.peer for n in nodes} - {node.peer}
        assert world.signaler.exchanges == 3, "after the first contact, offers are routed over the overlay"

    in_world(story)


def test_what_one_puts_the_others_get() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(4)
        await world.passes(5)
        assert await nodes[0].overlay.put("ffn0.", b"a", ttl_s=60, subkey="3") == 3
        assert await nodes[1].overlay.put("ffn0.", b"b", ttl_s=60, subkey="4") == 3
        for node in nodes:
            records = await node.overlay.get("ffn0.")
            assert {(r.subkey, r.owner, r.value) for r in records} == {("3", nodes[0].peer, b"a"), ("4", nodes[1].peer, b"b")}
        await nodes[0].overlay.put("ffn0.", b"newer", ttl_s=60, subkey="3")
        assert b"newer" in {r.value for r in await nodes[3].overlay.get("ffn0.")}
        assert await nodes[2].overlay.get("nothing") == []
        await world.passes(61)
        assert await nodes[2].overlay.get("ffn0.") == []

    in_world(story)


def test_many_at_once() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(3)
        entries = [Entry(name=f"n{i}", value=b"%d" % i, ttl_s=60) for i in range(300)]
        assert await nodes[1].overlay.put_many(entries) == [3] * 300
        found = await nodes[2].overlay.get_many([f"n{i}" for i in range(301)])
        assert [[r.value for r in found[f"n{i}"]] for i in range(301)] == [*([b"%d" % i] for i in range(300)), []]
        assert await nodes[2].overlay.get_many([]) == {}

    in_world(story)


def test_alone_one_reads_what_one_wrote() -> None:
    async def story(world: World) -> None:
        node = await world.add()
        assert await node.overlay.put("a", b"v", ttl_s=60) == 1
        assert [r.value for r in await node.overlay.get("a")] == [b"v"]

    in_world(story)


def test_messages_to_one_peer() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(4)

        async def greet(origin: PeerId, body: bytes) -> bytes:
            if body == b"bad":
                raise CallRefused("rude", "not like that")
            return body + b" " + origin.short.encode()

        nodes[3].overlay.on_route("greet", greet)
        with pytest.raises(ValueError, match="greet has a handler"):
            nodes[3].overlay.on_route("greet", greet)
        me = nodes[1]
        assert await me.overlay.route(nodes[3].peer, "greet", b"hi", timeout_s=5) == b"hi " + me.peer.short.encode()
        with pytest.raises(CallRefused, match="not like that"):
            await me.overlay.route(nodes[3].peer, "greet", b"bad", timeout_s=5)
        with pytest.raises(CallRefused, match="no-handler"):
            await me.overlay.route(nodes[2].peer, "greet", b"hi", timeout_s=5)
        with pytest.raises(NotReachable):
            await me.overlay.route(Identity.from_seed(b"x" * 32).peer_id, "greet", b"hi", timeout_s=5)
        with pytest.raises(ValueError, match="at most"):
            await me.overlay.route(nodes[3].peer, "greet", b"x" * 15_000, timeout_s=5)

    in_world(story)


def test_a_handler_that_never_answers_times_out() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(3)

        async def sulk(origin: PeerId, body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        nodes[2].overlay.on_route("sulk", sulk)
        with pytest.raises(CallTimeout):
            await nodes[1].overlay.route(nodes[2].peer, "sulk", b"", timeout_s=3)

    in_world(story)


def test_a_call_to_a_stranger_dials_over_the_overlay() -> None:
    """With few connections each, any peer still reaches any other, with no server."""

    async def story(world: World) -> None:
        nodes = await world.grow(16)
        await world.passes(40)
        caller = nodes[0].network
        strangers = [n for n in nodes[1:] if n.peer not in caller.peers()]
        assert strangers
        exchanges = world.signaler.exchanges

        async def serve(request: Request) -> Reply:
            return Reply(b"yes")

        for node in strangers:
            node.network.register("test", serve)
            assert (await caller.call(node.peer, "test", timeout_s=10)).header == b"yes"
        assert world.signaler.exchanges == exchanges

    in_world(story, DhtConfig(siblings=3, replicas=3, links_max=6))


@pytest.mark.parametrize("n", [3, 4])
def test_after_one_agent_is_killed_the_others_go_on_within_seconds(n: int) -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(n)
        await world.passes(5)
        for i in range(12):
            await nodes[i % n].overlay.put(f"k{i}", b"v", ttl_s=600)
        nodes[0].vanish()
        loop = asyncio.get_running_loop()
        for i in range(12):
            for node in nodes[1:]:
                start = loop.time()
                assert await node.overlay.get(f"k{i}")
                assert await node.overlay.put(f"new{i}", b"v", ttl_s=60) >= 2
                assert loop.time() - start < 4
        newcomer = await world.add(*nodes)  # the dead one is among the contacts
        assert await newcomer.overlay.get("k0")

    in_world(story)


def test_an_agent_that_was_killed_comes_back_with_the_same_identity_at_once() -> None:
    """While the others still hold half-open connections to its former life."""

    async def story(world: World) -> None:
        nodes = await world.grow(4)
        await world.passes(5)
        await nodes[1].overlay.put("a", b"before", ttl_s=600)
        nodes[1].vanish()
        await nodes[1].close()
        again = world.nodes[nodes[1].peer] = Node(world, 2, life=2)
        assert again.peer == nodes[1].peer
        await again.overlay.join([(nodes[0].peer, world.signaler)])
        await world.passes(5)
        assert set(again.network.peers()) == {nodes[0].peer, nodes[2].peer, nodes[3].peer}
        assert [r.value for r in await again.overlay.get("a")] == [b"before"]
        assert await again.overlay.put("a", b"after", ttl_s=600) == 3
        assert [r.value for r in await nodes[3].overlay.get("a")] == [b"after"]

    in_world(story)


def test_after_a_stall_of_this_process_neighbours_are_not_taken_for_dead() -> None:
    """Their answers lie in the socket's buffer, behind the time-outs."""

    async def story(world: World) -> None:
        nodes = await world.grow(2)
        await world.passes(5)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        links = list(nodes[0].transport.links)
        for link in links:
            link.hold()
        reading = asyncio.ensure_future(nodes[1].overlay.route(nodes[0].peer, "x", b"", timeout_s=30))
        await world.passes(0.1)
        loop.stall(5.0)
        await asyncio.sleep(0)
        for link in links:
            link.release()
        with pytest.raises(CallRefused):
            await reading
        assert not nodes[1].overlay._node.core.suspects

    in_world(story)


def test_joining_fails_if_nobody_is_there_and_works_if_anybody_is() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(2)
        nodes[0].answers = False
        with pytest.raises(JoinError, match="none of 1 known peers"):
            await world.add(nodes[0])
        joiner = await world.add(nodes[0], nodes[1])
        assert joiner.network.peers()

    in_world(story)


def test_an_agent_that_lost_everyone_comes_back_by_itself() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(3)
        await world.passes(3)
        for other in nodes[:2]:
            nodes[2].network.disconnect(other.peer, "test")
        await world.passes(10)
        assert len(nodes[2].network.peers()) == 2

    in_world(story)


def test_bootstrap_addresses_are_found_and_remembered() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(3)
        address = f"ws://192.0.2.7:4000/{nodes[0].peer}"
        assert await nodes[0].overlay.announce(address) == 3
        await nodes[1].overlay.put("bootstrap", b"\xff", ttl_s=60, subkey=str(nodes[1].peer))
        await nodes[1].overlay.put("bootstrap", b"file:///etc/passwd", ttl_s=60, subkey=str(nodes[1].peer))
        assert await nodes[2].overlay.bootstraps() == [(nodes[0].peer, address)]

    in_world(story)


def test_values_beyond_the_limits_are_refused_here() -> None:
    async def story(world: World) -> None:
        overlay = (await world.add()).overlay
        for entry in (
            Entry(name="a", value=b"x" * 2049, ttl_s=60),
            Entry(name="a", value=b"x", ttl_s=0),
            Entry(name="a", value=b"x", ttl_s=86_401),
            Entry(name="a", value=b"x", ttl_s=60, subkey="s" * 65),
        ):
            with pytest.raises(RecordError):
                await overlay.put_many([entry])

    in_world(story)


def test_nonsense_closes_that_connection_and_nothing_else() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(3)
        await world.passes(3)
        nodes[2].network.notify(nodes[1].peer, "dht", b"\x93\x01nonsense")
        closed = asyncio.Event()
        nodes[2].network.add_listener(lambda peer: None, lambda peer, reason: closed.set())
        await closed.wait()
        assert await nodes[0].overlay.put("a", b"v", ttl_s=60) >= 2

    in_world(story)


def test_closing_ends_what_is_under_way() -> None:
    async def story(world: World) -> None:
        nodes = await world.grow(2)
        nodes[0].vanish()
        reading = asyncio.ensure_future(nodes[1].overlay.route(nodes[0].peer, "x", b"", timeout_s=30))
        await asyncio.sleep(0)
        await nodes[1].overlay.close()
        await nodes[1].overlay.close()
        with pytest.raises(LinkClosed):
            await reading
        with pytest.raises(LinkClosed):
            await nodes[1].overlay.get("a")
        assert nodes[1].network.dialer is None

    in_world(story)


def test_the_clock_never_goes_back() -> None:
    readings = iter([100.0, 101.0, 50.0, 52.0, 104.0, 105.0])
    clock = SteadyClock(lambda: next(readings))
    assert [clock() for _ in range(5)] == [101.0, 101.0, 103.0, 104.0, 105.0]
