"""The rendezvous WebSocket: who is let in, who hears of whom, what is passed, and every limit."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from coordinator.asgi import application
from coordinator.experiments.models import Experiment
from coordinator.rendezvous import consumers
from coordinator.rendezvous.actions import bootstrap_addresses
from coordinator.rendezvous.models import WaitingPeer
from coordinator.sockets import MALFORMED, REPLACED, TOO_FAST, TOO_LARGE

from .conftest import Agent

pytestmark = [pytest.mark.django_db(transaction=True)]
PATH = "/ws/rendezvous/gpt-crowd/"
EXCHANGE = "0" * 32


class Socket(WebsocketCommunicator):
    """One agent's end."""

    def __init__(self, agent: Agent, path: str = PATH, **changes: Any) -> None:
        super().__init__(application, path, headers=agent.headers(at=time.time(), **changes))

    async def hear(self, kind: str) -> dict[str, Any]:
        """The next message of that type."""
        while True:
            message = json.loads(await self.receive_from(timeout=5))
            if message["type"] == kind:
                return message

    async def close_code(self) -> int:
        """How the server ends it."""
        while True:
            message = await self.receive_output(timeout=5)
            if message["type"] == "websocket.close":
                return int(message["code"])


@pytest.fixture
async def sockets(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Opens sockets, and closes them."""
    monkeypatch.setattr(consumers, "COALESCE_S", 0.0)
    opened: list[Socket] = []

    async def connect(agent: Agent, **changes: Any) -> Socket:
        socket = Socket(agent, **changes)
        assert (await socket.connect(timeout=5))[0]
        opened.append(socket)
        return socket

    yield connect
    for socket in opened:
        await socket.disconnect(timeout=5)


async def test_each_hears_who_else_waits(sockets: Any, bob: Agent, charlie: Agent) -> None:
    first = await sockets(bob)
    assert (await first.hear("waiting"))["peers"] == []
    second = await sockets(charlie)
    assert (await second.hear("waiting"))["peers"] == [bob.peer]
    assert (await first.hear("waiting"))["peers"] == [charlie.peer]
    await second.disconnect(timeout=5)
    assert (await first.hear("waiting"))["peers"] == []


async def test_a_body_is_passed_unchanged_both_ways(sockets: Any, bob: Agent, charlie: Agent) -> None:
    first, second = await sockets(bob), await sockets(charlie)
    body = base64.b64encode(bytes(range(256))).decode()
    await first.send_json_to({"type": "send", "to": charlie.peer, "exchange": EXCHANGE, "body": body})
    assert await second.hear("message") == {"type": "message", "from": bob.peer, "exchange": EXCHANGE, "body": body}
    await second.send_json_to({"type": "send", "to": bob.peer, "exchange": EXCHANGE, "body": "aGk="})
    assert await first.hear("message") == {"type": "message", "from": charlie.peer, "exchange": EXCHANGE, "body": "aGk="}


async def test_a_peer_that_does_not_wait_is_gone(sockets: Any, bob: Agent, charlie: Agent) -> None:
    socket = await sockets(bob)
    await socket.send_json_to({"type": "send", "to": charlie.peer, "exchange": EXCHANGE, "body": ""})
    assert await socket.hear("gone") == {"type": "gone", "to": charlie.peer, "exchange": EXCHANGE}


async def test_a_newer_connection_of_a_peer_replaces_the_older(sockets: Any, bob: Agent, charlie: Agent) -> None:
    old = await sockets(bob)
    new = await sockets(bob)
    assert await old.close_code() == REPLACED
    await old.disconnect(timeout=5)
    other = await sockets(charlie)
    await other.send_json_to({"type": "send", "to": bob.peer, "exchange": EXCHANGE, "body": "aGk="})
    assert (await new.hear("message"))["from"] == charlie.peer
    assert await WaitingPeer.objects.acount() == 2


async def test_an_announced_address_is_published(sockets: Any, bob: Agent, charlie: Agent, experiment: Experiment) -> None:
    from channels.db import database_sync_to_async

    socket = await sockets(bob)
    address = f"ws://192.0.2.7:9000/{bob.peer}"
    await socket.send_json_to({"type": "announce", "address": address})
    await socket.send_json_to({"type": "send", "to": charlie.peer, "exchange": EXCHANGE, "body": ""})
    await socket.hear("gone")  # messages are taken in order
    assert await database_sync_to_async(bootstrap_addresses)(experiment, time.time()) == [address]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "nonsense"},
        {"type": "send", "to": "x", "exchange": EXCHANGE, "body": ""},
        {"type": "send", "to": "a" * 52, "exchange": "short", "body": ""},
        {"type": "send", "to": "a" * 52, "exchange": EXCHANGE, "body": "not base64!"},
        {"type": "announce", "address": "http://192.0.2.7/x"},
        {"type": "announce", "address": "ws://192.0.2.7:9000/" + "a" * 52},
        {"type": "announce", "address": "ws://192.0.2.7:99999/PEER"},
        {"type": "announce", "address": "ws://" + "h" * 400},
    ],
)
async def test_malformed_messages_end_that_connection(sockets: Any, bob: Agent, message: dict[str, str]) -> None:
    if "PEER" in message.get("address", ""):
        message = {**message, "address": message["address"].replace("PEER", bob.peer)}
    socket = await sockets(bob)
    await socket.send_json_to(message)
    assert await socket.close_code() == MALFORMED


async def test_a_body_at_the_limit_passes_and_one_past_it_does_not(sockets: Any, bob: Agent, charlie: Agent) -> None:
    first, second = await sockets(bob), await sockets(charlie)
    for size, fine in ((consumers.BODY_BYTES_MAX, True), (consumers.BODY_BYTES_MAX + 1, False)):
        body = base64.b64encode(b"x" * size).decode()
        await first.send_json_to({"type": "send", "to": charlie.peer, "exchange": EXCHANGE, "body": body})
        if fine:
            assert (await second.hear("message"))["body"] == body
    assert await first.close_code() == MALFORMED


async def test_a_message_over_64_kib_ends_the_connection(sockets: Any, bob: Agent) -> None:
    socket = await sockets(bob)
    await socket.send_to(text_data=" " * (64 * 1024 + 1))
    assert await socket.close_code() == TOO_LARGE


async def test_too_many_messages_end_the_connection(sockets: Any, bob: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.RendezvousConsumer, "messages_burst", 3.0)
    monkeypatch.setattr(consumers.RendezvousConsumer, "messages_per_s", 0.001)
    socket = await sockets(bob)
    for _ in range(4):
        await socket.send_json_to({"type": "announce", "address": f"ws://192.0.2.7:9000/{bob.peer}"})
    assert await socket.close_code() == TOO_FAST
