from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.net.ice import IceConfig
from agent.net.memory import MemoryFabric
from agent.net.transport import Transport
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from tests.unit.net.coordinators import FakeCoordinator


@pytest.fixture(params=["memory", "stock", "fast"])
async def transports(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Transport, Transport]]:
    pair: tuple[Transport, Transport]
    if request.param == "memory":
        fabric = MemoryFabric()
        pair = fabric.transport("alice"), fabric.transport("bob")
    else:
        config = WebRtcConfig(ice=IceConfig(loopback="always"), data_path=request.param)
        pair = WebRtcTransport(config), WebRtcTransport(config)
    yield pair
    for transport in pair:
        await transport.close()


@pytest.fixture
async def coordinator() -> AsyncIterator[FakeCoordinator]:
    coordinator = FakeCoordinator()
    await coordinator.start()
    yield coordinator
    await coordinator.stop()
