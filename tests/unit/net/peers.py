"""Peers with names, and signaling between them inside the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.errors import NotReachable, RemoteError
from agent.identity import Identity, PeerId
from agent.net.memory import MemoryFabric
from agent.net.network import Network, NetworkConfig, Reply, Request
from agent.net.transport import Transport

ALICE, BOB, CHARLIE = sorted((Identity.from_seed(bytes([i]) * 32) for i in (1, 2, 3)), key=lambda i: i.peer_id)
"""In the order of their ids: Alice's is the lowest."""
NAMES = {ALICE.peer_id: "alice", BOB.peer_id: "bob", CHARLIE.peer_id: "charlie"}


class DirectSignaler:
    """Hands offers over in the process. `gate` holds them up, `broken` loses them."""

    def __init__(self) -> None:
        self.networks: dict[PeerId, Network] = {}
        self.gate: asyncio.Event | None = None
        self.broken: set[PeerId] = set()
        self.carried: list[bytes] = []
        self.alter: Callable[[bytes], bytes] = lambda answer: answer

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        self.carried.append(sealed_offer)
        if self.gate is not None:
            await self.gate.wait()
        if peer in self.broken or peer not in self.networks:
            raise NotReachable("nobody carries offers there")
        try:
            return self.alter(await self.networks[peer].answer(sealed_offer))
        except RemoteError as e:
            raise NotReachable(f"the offer was refused: {e}") from None


class Town:
    """Some networks in one fabric, with one signaler."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        self.fabric = MemoryFabric()
        self.signaler = DirectSignaler()
        self.config = config or NetworkConfig()
        self.log: list[tuple[str, str, str]] = []

    def join(self, identity: Identity, *, experiment: str = "gpt-crowd", transport: Transport | None = None) -> Network:
        name = NAMES[identity.peer_id]
        network = Network(
            identity=identity,
            experiment=experiment,
            transport=transport or self.fabric.transport(name),
            config=self.config,
        )
        network.register("echo", echo)
        network.add_listener(
            lambda peer: self.log.append((name, "opened", NAMES[peer])),
            lambda peer, _: self.log.append((name, "closed", NAMES[peer])),
        )
        self.signaler.networks[identity.peer_id] = network
        return network

    async def close(self) -> None:
        for network in self.signaler.networks.values():
            await network.close()


async def echo(request: Request) -> Reply:
    return Reply(request.header, [bytes(b) for b in request.buffers])


class Heard:
    """Notifications, with an event to wait for."""

    def __init__(self, network: Network, method: str) -> None:
        self.got: list[tuple[PeerId, bytes]] = []
        self._event = asyncio.Event()
        network.on_notify(method, self._on)

    def _on(self, peer: PeerId, body: bytes) -> None:
        self.got.append((peer, body))
        self._event.set()

    async def count(self, n: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < n:
                self._event.clear()
                await self._event.wait()


async def until(true: Callable[[], bool], rounds: int = 1000) -> None:
    """Let the loop run until something is so: for what needs only callbacks, no time."""
    for _ in range(rounds):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come about")
