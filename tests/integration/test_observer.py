"""The observer as a process of its own, over real WebRTC, in an overlay of real peers."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent.identity import Identity
from agent.net.bootstrap import BootstrapServer, BootstrapSignaler
from agent.net.ice import IceConfig
from agent.net.network import Network
from agent.net.overlay import Overlay
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from agent.observation import Assignment, Finding

ROOT = Path(__file__).resolve().parents[2]
PEERS, RECORDS = 5, 30
COORDINATOR = Identity.from_seed(b"c" * 32)


@pytest.fixture
async def overlay_address() -> AsyncIterator[tuple[str, list[str]]]:
    """An overlay of PEERS that keeps RECORDS; the first's address, and who is there."""
    opened: list[tuple[Network, Overlay, BootstrapServer]] = []
    for i in range(PEERS):
        identity = Identity.from_seed(bytes([i + 1]) * 32)
        transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always")))
        network = Network(identity=identity, experiment="test", transport=transport)
        overlay = Overlay(network, identity, experiment="test", rng=random.Random(i))
        server = BootstrapServer(network, "127.0.0.1", 0)
        await server.start()
        contacts = [BootstrapSignaler(o[2].address("127.0.0.1")) for o in opened[:1]]
        opened.append((network, overlay, server))
        await overlay.join([(s.peer, s) for s in contacts])
    for i in range(RECORDS):
        assert await opened[i % PEERS][1].put(f"name{i}", b"value", ttl_s=600)
    yield opened[0][2].address("127.0.0.1"), [str(o[0].peer_id) for o in opened]
    for network, overlay, server in opened:
        await overlay.close()
        await server.close()
        await network.close()


async def observe(text: bytes) -> Finding:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent.observer", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    out, _ = await asyncio.wait_for(process.communicate(text), 60)
    assert process.returncode == 0
    return msgspec.json.decode(out, type=Finding)


def assignment(tmp_path: Path, *contacts: str, expected: tuple[str, ...] = ()) -> bytes:
    return msgspec.json.encode(
        Assignment(
            experiment="test",
            policy="open",
            coordinator_key=str(COORDINATOR.peer_id),
            key_file=str(tmp_path / "observer.key"),
            contacts=contacts,
            expected=expected,
        )
    )


async def test_it_counts_the_peers_and_the_records(tmp_path: Path, overlay_address: tuple[str, list[str]]) -> None:
    address, peers = overlay_address
    stranger = str(Identity.from_seed(b"s" * 32).peer_id)
    finding = await observe(assignment(tmp_path, address, expected=(*peers, stranger)))
    assert finding.error == ""
    assert (finding.peers, finding.missing, finding.parts, finding.complete) == (PEERS, 1, (PEERS,), True)
    assert finding.records == RECORDS
    assert 2 <= finding.replicas <= 4


async def test_an_overlay_that_cannot_be_joined_is_said_in_a_sentence(tmp_path: Path) -> None:
    finding = await observe(assignment(tmp_path, f"ws://127.0.0.1:9/{COORDINATOR.peer_id}"))
    assert "could be reached" in finding.error


async def test_what_is_no_assignment_is_said_in_a_sentence() -> None:
    assert "not an assignment" in (await observe(b"{}")).error
