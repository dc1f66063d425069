"""Networks over real WebRTC links, on both data paths."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from agent.identity import Identity
from agent.net.bootstrap import BootstrapServer, BootstrapSignaler
from agent.net.connection import PIPES_AHEAD
from agent.net.ice import IceConfig
from agent.net.network import Network, NetworkConfig, Reply, Request
from agent.net.transport import Lane
from agent.net.webrtc import WebRtcConfig, WebRtcLink, WebRtcTransport
from agent.wire.config import WireConfig
from tests.unit.net.peers import DirectSignaler

ALICE, BOB = sorted((Identity.from_seed(bytes([i]) * 32) for i in (1, 2)), key=lambda i: i.peer_id)
IMPATIENT = NetworkConfig(wire=WireConfig(ping_period_s=0.2, pings_unanswered_max=2))


async def digest(request: Request) -> Reply:
    return Reply(b"".join(hashlib.sha256(b).digest() for b in request.buffers), request.buffers)


@pytest.fixture(params=["stock", "fast"])
def data_path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config() -> NetworkConfig:
    return NetworkConfig()


@pytest.fixture
async def pair(data_path: str, config: NetworkConfig) -> AsyncIterator[tuple[Network, Network]]:
    webrtc = WebRtcConfig(ice=IceConfig(loopback="always"), data_path=data_path)  # type: ignore[arg-type]
    networks = [
        Network(identity=i, experiment="gpt-crowd", transport=WebRtcTransport(webrtc), config=config) for i in (ALICE, BOB)
    ]
    for network in networks:
        network.register("digest", digest)
    yield networks[0], networks[1]
    for network in networks:
        await network.close()


async def test_calls_of_every_size_both_ways_at_once(pair: tuple[Network, Network]) -> None:
    alice, bob = pair
    server = BootstrapServer(bob, "127.0.0.1", 0)
    await server.start()
    await alice.dial(bob.peer_id, BootstrapSignaler(server.address()), timeout_s=10)
    await server.close()

    async def call(caller: Network, callee: Network, size: int) -> None:
        data = os.urandom(size)
        reply = await caller.call(callee.peer_id, "digest", b"", [data, b"x" * (size // 7)], timeout_s=60)
        assert reply.header[:32] == hashlib.sha256(data).digest() and bytes(reply.buffers[0]) == data

    sizes = (0, 1, 1000, 20_000, 300_000, 2_000_000)
    await asyncio.gather(*(call(alice, bob, s) for s in sizes), *(call(bob, alice, s) for s in sizes))
    (link,) = alice.peers().values()
    assert link.kind == "direct" and link.rtt_s is not None and link.initiator


async def test_a_path_that_holds_much_is_kept_full(pair: tuple[Network, Network], data_path: str, monkeypatch) -> None:
    """On a long fast path more must be in the link than `bulk_room_bytes`, or that bounds the rate."""
    if data_path == "stock":
        pytest.skip("what stock has under way is unknown")
    alice, bob = pair
    signaler = DirectSignaler()
    signaler.networks[bob.peer_id] = bob
    await alice.dial(bob.peer_id, signaler, timeout_s=10)
    monkeypatch.setattr(WebRtcLink, "pipe_bytes", 4 << 20)
    most = 0
    send = WebRtcLink.send

    def watched(link: WebRtcLink, lane: Lane, data: bytes) -> None:
        nonlocal most
        send(link, lane, data)
        most = max(most, link.buffered())

    monkeypatch.setattr(WebRtcLink, "send", watched)
    await alice.call(bob.peer_id, "digest", b"", [bytes(24 << 20)], timeout_s=60)
    assert NetworkConfig().bulk_room_bytes < most <= PIPES_AHEAD * (4 << 20) + (1 << 20)


async def test_dialing_each_other_at_once(pair: tuple[Network, Network]) -> None:
    signaler = DirectSignaler()
    signaler.networks = {network.peer_id: network for network in pair}
    alice, bob = pair
    await asyncio.gather(alice.dial(bob.peer_id, signaler, timeout_s=10), bob.dial(alice.peer_id, signaler, timeout_s=10))
    assert (await bob.call(alice.peer_id, "digest", timeout_s=5)).header == b""
    assert len(alice.peers()) == len(bob.peers()) == 1


@pytest.mark.parametrize("config", [IMPATIENT])
async def test_a_peer_that_vanishes_is_noticed(pair: tuple[Network, Network]) -> None:
    signaler = DirectSignaler()
    signaler.networks = {network.peer_id: network for network in pair}
    alice, bob = pair
    await alice.dial(bob.peer_id, signaler, timeout_s=10)
    noticed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    alice.add_listener(lambda _: None, lambda _, why: noticed.set_result(why))
    for link in bob._transport._links:  # type: ignore[attr-defined]
        for protocol in link.stack.gatherer._connection._protocols:
            protocol.transport.sendto = lambda data, addr=None: None  # the cable is pulled, as far as sending goes
            protocol.datagram_received = lambda data, addr: None
        if hasattr(link.stack.path, "_socket"):
            link.stack.path._socket.send = lambda flight: None
    async with asyncio.timeout(5):
        assert "silent" in await noticed
