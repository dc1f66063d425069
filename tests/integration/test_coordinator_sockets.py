"""The agent's side of the coordinator against the real one, in its own process."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import UnknownExperiment
from agent.identity import Identity
from agent.net.coordinator import Coordinator, CoordinatorConfig
from agent.net.coordinator_socket import Badge, Patience
from agent.net.memory import MemoryFabric
from agent.net.network import Network
from agent.net.rendezvous import Rendezvous
from agent.net.telemetry_socket import TelemetryConfig, TelemetrySocket
from agent.reports import Event, Report

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    environment = {**os.environ, "HIVE_STATE_DIR": str(tmp_path / "coordinator"), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coordinator.serve", "--port", "0", cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = (await process.stdout.readline()).decode()
    found = re.search(r":(\d+)/", line)
    assert found, line
    yield f"http://127.0.0.1:{found[1]}"
    process.terminate()
    async with asyncio.timeout(20):
        await process.communicate()


def badge(identity: Identity) -> Badge:
    return Badge(identity=identity, experiment="gpt-crowd", session=os.urandom(8).hex())


async def test_manifest_telemetry_and_rendezvous(url: str, tmp_path: Path) -> None:
    coordinator = Coordinator(CoordinatorConfig(url=url, state_dir=tmp_path))
    first = await coordinator.manifest("gpt-crowd")
    again = await coordinator.manifest("gpt-crowd")
    assert first.manifest == again.manifest and not again.cached
    with pytest.raises(UnknownExperiment):
        await coordinator.manifest("nowhere")

    patience = Patience(rng=random.Random(1), first_s=0.05, most_s=0.5)
    telemetry = TelemetrySocket(url, badge(ALICE), patience, TelemetryConfig(farewell_s=20))
    telemetry.start()
    telemetry.submit(Event(sequence=1, at=0.0, name="joined"))
    for i in range(2, 300):
        telemetry.submit(Report(sequence=i, at=1.0 * i, stage="training", step=i))

    fabric = MemoryFabric()
    networks = [
        Network(identity=i, experiment="gpt-crowd", transport=fabric.transport(str(n))) for n, i in enumerate((ALICE, BOB))
    ]
    meetings = [Rendezvous(n, url, badge(i), patience) for n, i in zip(networks, (ALICE, BOB), strict=True)]
    meetings[1].start()
    assert await meetings[1].told(20)
    meetings[0].start()
    assert await meetings[0].told(20)
    assert meetings[0].waiting() == [BOB.peer_id]
    await networks[0].dial(BOB.peer_id, meetings[0], timeout_s=20)
    assert networks[0].is_connected(BOB.peer_id)

    assert await coordinator.bootstrap("gpt-crowd") == []
    for meeting in meetings:
        await meeting.close()
    await telemetry.close()
    assert telemetry.unacknowledged == 0 and telemetry.dropped == 0
    for network in networks:
        await network.close()
