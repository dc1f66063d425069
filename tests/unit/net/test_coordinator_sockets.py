"""The agent's side of the coordinator's WebSockets, against a small server that keeps to the contract."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from agent.errors import ConfigError, NotReachable
from agent.net import rendezvous as rendezvous_module
from agent.net.coordinator_socket import Patience, websocket_url
from agent.net.rendezvous import Rendezvous
from agent.net.telemetry_buffer import BufferConfig
from agent.net.telemetry_socket import TelemetryConfig, TelemetrySocket
from tests.unit.net.coordinators import SESSION, FakeCoordinator, badge, event, patience
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Town, until


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    yield town
    await town.close()


@pytest.fixture
async def telemetry(coordinator: FakeCoordinator) -> AsyncIterator[TelemetrySocket]:
    config = TelemetryConfig(period_s=0, farewell_s=5, buffer=BufferConfig(items_max=100))
    telemetry = TelemetrySocket(coordinator.url, badge(ALICE), patience(), config)
    telemetry.start()
    yield telemetry
    await telemetry.close()


async def test_items_reach_the_coordinator_and_are_acknowledged(coordinator: FakeCoordinator, telemetry: TelemetrySocket) -> None:
    for i in (1, 2, 3):
        telemetry.submit(event(i))
    await coordinator.until(lambda: bool(coordinator.items))
    await telemetry.close()
    assert coordinator.items == [1, 2, 3] and telemetry.unacknowledged == 0 and not telemetry.connected
    assert coordinator.paths == ["/ws/telemetry/gpt-crowd/"] and coordinator.hellos[0].session == SESSION
    assert telemetry.bytes_total > 100


async def test_what_was_not_acknowledged_is_sent_again_to_the_coordinator_that_comes_back(
    coordinator: FakeCoordinator, telemetry: TelemetrySocket
) -> None:
    coordinator.acknowledge = False
    telemetry.submit(event(1))
    await coordinator.until(lambda: coordinator.items == [1])
    await coordinator.stop()
    telemetry.submit(event(2))
    coordinator.acknowledge, coordinator.items = True, []
    await coordinator.start()
    await coordinator.until(lambda: coordinator.items == [1, 2])
    await telemetry.close()
    assert telemetry.unacknowledged == 0


async def test_a_batch_that_the_coordinator_cannot_read_is_given_up(
    coordinator: FakeCoordinator, telemetry: TelemetrySocket
) -> None:
    coordinator.close_code = 4400
    telemetry.submit(event(1))
    await coordinator.until(lambda: coordinator.close_code == 0)
    telemetry.submit(event(2))
    await coordinator.until(lambda: coordinator.items == [2])
    assert telemetry.dropped == 1


async def test_a_refusal_is_kept_in_words_and_tried_again(coordinator: FakeCoordinator, telemetry: TelemetrySocket) -> None:
    coordinator.refuse = HTTPStatus.UNAUTHORIZED
    for connection in coordinator.telemetry:
        await connection.close()
    await coordinator.until(lambda: len(coordinator.hellos) >= 3)
    assert telemetry.socket.why == "HTTP status 401 not today"
    coordinator.refusal = '{"detail": "Set the clock."}'
    await coordinator.until(lambda: telemetry.socket.why == "HTTP status 401 Set the clock.")
    coordinator.refuse = None
    await coordinator.until(lambda: bool(coordinator.telemetry))


async def test_submitting_never_fails_and_never_grows_without_bound() -> None:
    telemetry = TelemetrySocket(
        "http://127.0.0.1:9", badge(ALICE), patience(), TelemetryConfig(buffer=BufferConfig(items_max=10))
    )
    for i in range(1, 101):
        telemetry.submit(event(i))
    assert telemetry.unacknowledged == 10 and telemetry.dropped == 90
    telemetry.start()
    await telemetry.close()
    await telemetry.close()


async def test_peers_that_wait_find_each_other(coordinator: FakeCoordinator, town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    at_alice = Rendezvous(alice, coordinator.url, badge(ALICE), patience())
    at_bob = Rendezvous(bob, coordinator.url, badge(BOB), patience(), announce="ws://b/x")
    assert not at_alice.connected
    at_bob.start()
    await coordinator.until(lambda: bool(coordinator.announced))
    at_alice.start()
    assert await at_alice.told(5)
    assert at_alice.connected and at_alice.waiting() == [bob.peer_id]
    await alice.dial(bob.peer_id, at_alice, timeout_s=5)
    assert (await alice.call(bob.peer_id, "echo", b"x", timeout_s=5)).header == b"x"
    assert coordinator.announced == ["ws://b/x"] and at_alice.bytes_total > 500
    with pytest.raises(NotReachable, match="not wait at the rendezvous"):
        await alice.dial(CHARLIE.peer_id, at_alice, timeout_s=5)
    await at_bob.close()
    await at_alice.close()
    await at_alice.close()
    with pytest.raises(NotReachable, match="not connected"):
        await at_alice.exchange(bob.peer_id, b"")


async def test_places_lost_to_another_of_the_same_key_are_counted(coordinator: FakeCoordinator, town: Town) -> None:
    at_alice = Rendezvous(town.join(ALICE), coordinator.url, badge(ALICE), patience())
    at_alice.start()
    for code, times in ((1011, 0), (4409, 1), (4409, 2)):
        await coordinator.until(lambda: str(ALICE.peer_id) in coordinator.peers)
        connection = coordinator.peers.pop(str(ALICE.peer_id))
        await connection.close(code, "over")
        await coordinator.until(lambda: str(ALICE.peer_id) in coordinator.peers)
        assert at_alice.replaced == times
    await at_alice.close()


async def test_an_exchange_ends_with_the_connection(coordinator: FakeCoordinator, town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    at_alice = Rendezvous(alice, coordinator.url, badge(ALICE), patience())
    at_alice.start()
    assert await at_alice.told(5)
    coordinator.peers[str(bob.peer_id)] = coordinator.peers[str(alice.peer_id)]  # passes it back: nobody answers
    task = asyncio.create_task(at_alice.exchange(bob.peer_id, b"offer"))
    await coordinator.until(lambda: bool(at_alice._exchanges))
    await coordinator.stop()
    with pytest.raises(NotReachable, match="ended"):
        await task
    await at_alice.close()


async def test_nonsense_of_the_coordinator_is_survived(coordinator: FakeCoordinator, town: Town) -> None:
    alice = town.join(ALICE)
    at_alice = Rendezvous(alice, coordinator.url, badge(ALICE), patience())
    at_alice.start()
    assert await at_alice.told(5)
    connection = coordinator.peers[str(alice.peer_id)]
    offer = base64.b64encode(b"\0" * 100).decode()
    for message in (
        "{",
        "[]",
        '{"type":"waiting","peers":["x"]}',
        '{"type":"gone","to":"' + str(BOB.peer_id) + '","exchange":"' + "0" * 32 + '"}',
        '{"type":"message","from":"' + str(BOB.peer_id) + '","exchange":"' + "0" * 32 + f'","body":"{offer}"}}',
    ):
        await connection.send(message)
    await connection.send('{"type":"waiting","peers":["' + str(BOB.peer_id) + '","' + "b" * 52 + '"]}')
    await until(lambda: at_alice.waiting() == [BOB.peer_id], rounds=100_000)
    await at_alice.close()


async def test_offers_through_the_rendezvous_are_limited(
    coordinator: FakeCoordinator, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous_module, "EXCHANGES_MAX", 1)
    at_alice = Rendezvous(town.join(ALICE), coordinator.url, badge(ALICE), patience())
    at_alice.start()
    assert await at_alice.told(5)
    coordinator.peers[str(BOB.peer_id)] = coordinator.peers[str(ALICE.peer_id)]
    task = asyncio.create_task(at_alice.exchange(BOB.peer_id, b"offer"))
    await coordinator.until(lambda: bool(at_alice._exchanges))
    with pytest.raises(NotReachable, match="too many"):
        await at_alice.exchange(BOB.peer_id, b"offer")
    task.cancel()
    await asyncio.wait({task})
    assert not at_alice._exchanges
    await at_alice.close()


def test_patience_doubles_up_to_its_limit_and_is_jittered() -> None:
    patience = Patience(rng=random.Random(7), first_s=1, most_s=8)
    pauses = [patience.pause_s(n) for n in (1, 2, 3, 4, 5, 500)]
    for pause, whole in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True):
        assert whole / 2 <= pause <= whole
    assert len({patience.pause_s(9) for _ in range(10)}) == 10


def test_websocket_urls() -> None:
    assert websocket_url("http://h:8000", "/ws/x/") == "ws://h:8000/ws/x/"
    assert websocket_url("https://h/hive/", "/ws/x/") == "wss://h/hive/ws/x/"
    with pytest.raises(ConfigError):
        websocket_url("ws://h", "/x")
