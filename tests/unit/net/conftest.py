from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.net.memory import MemoryFabric
from agent.net.transport import Transport


@pytest.fixture(params=["memory"])
async def transports(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Transport, Transport]]:
    fabric = MemoryFabric()
    pair = fabric.transport("alice"), fabric.transport("bob")
    yield pair
    for transport in pair:
        await transport.close()
