"""The telemetry WebSocket: admission, acknowledgement after storing, exactly once, and every limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from channels.testing import WebsocketCommunicator
from django.db import DatabaseError

from agent.reports import BATCH_ITEMS_MAX, Ack, Batch, Item, encode
from coordinator.asgi import application
from coordinator.experiments.models import Experiment
from coordinator.limits import KeyedBuckets
from coordinator.sockets import MALFORMED, NOT_STORED, REPLACED, TOO_FAST, TOO_LARGE, AgentSocket
from coordinator.telemetry import consumers, store
from coordinator.telemetry.intake import Intake, IntakeConfig
from coordinator.telemetry.models import RawReport, Session

from .conftest import Agent, report

pytestmark = [pytest.mark.django_db(transaction=True)]
PATH = "/ws/telemetry/gpt-crowd/"


class Socket(WebsocketCommunicator):
    """One agent's end."""

    async def report(self, *items: Item) -> None:
        await self.send_to(text_data=encode(Batch(items=items)).decode())

    async def ack(self) -> int:
        return msgspec.json.decode(await self.receive_from(timeout=5), type=Ack).sequence

    async def close_code(self) -> int:
        message = await self.receive_output(timeout=5)
        assert message["type"] == "websocket.close", message
        return int(message["code"])


@pytest.fixture
async def connect(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Opens sockets whose batches are stored at once, and closes them."""
    intake = Intake(IntakeConfig(flush_period_s=0), store.store, consumers.tell_viewers)
    monkeypatch.setattr(consumers, "intake", intake)
    monkeypatch.setattr(AgentSocket, "handshakes", KeyedBuckets(per_s=1, burst=50, keys_max=10))
    opened: list[Socket] = []

    async def connect(agent: Agent, path: str = PATH, **changes: Any) -> Socket:
        socket = Socket(application, path, headers=agent.headers(at=time.time(), **changes))
        assert (await socket.connect(timeout=5)) == (True, None)
        opened.append(socket)
        return socket

    yield connect
    for socket in opened:
        await socket.disconnect(timeout=5)
    assert all(len(kind.places) == 0 for kind in AgentSocket.__subclasses__())


async def refusal(headers: list[tuple[bytes, bytes]], path: str = PATH) -> tuple[int, bytes]:
    """The HTTP status and body with which a handshake is refused."""
    socket = WebsocketCommunicator(application, path, headers=headers)
    socket.scope["extensions"] = {"websocket.http.response": {}}
    await socket.send_input({"type": "websocket.connect"})
    start, body = await socket.receive_output(5), await socket.receive_output(5)
    await socket.send_input({"type": "websocket.disconnect"})
    await socket.wait(5)
    return start["status"], body["body"]


async def test_an_item_is_acknowledged_once_it_is_stored(connect: Any, bob: Agent) -> None:
    socket = await connect(bob)
    await socket.report(report(1, time.time(), tokens=100), report(2, time.time(), tokens=250))
    assert await socket.ack() == 2
    assert [r.tokens async for r in RawReport.objects.order_by("sequence")] == [100, 150]
    assert (await Session.objects.aget()).tokens == 250


async def test_what_is_sent_again_after_a_reconnect_counts_once(connect: Any, bob: Agent) -> None:
    first = await connect(bob)
    await first.report(report(1, time.time(), tokens=100), report(2, time.time(), tokens=200))
    await first.ack()
    second = await connect(bob)
    assert await first.close_code() == REPLACED
    await second.report(*(report(i, time.time(), tokens=100 * i) for i in (1, 2, 3)))
    assert await second.ack() == 3
    assert await RawReport.objects.acount() == 3
    assert (await Session.objects.aget()).tokens == 300


async def test_two_peers_do_not_share_sequences(connect: Any, bob: Agent, charlie: Agent) -> None:
    for agent in (bob, charlie):
        socket = await connect(agent)
        await socket.report(report(1, time.time(), tokens=10))
        assert await socket.ack() == 1
    assert await Session.objects.acount() == 2


async def test_a_batch_that_cannot_be_stored_is_not_acknowledged(
    connect: Any, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DatabaseError("database or disk is full")

    monkeypatch.setattr(consumers, "intake", Intake(IntakeConfig(flush_period_s=0), full, consumers.tell_viewers))
    socket = await connect(bob)
    await socket.report(report(1))
    assert await socket.close_code() == NOT_STORED


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"type":"batch"}', '{"type":"batch","items":[{"kind":"report"}]}', '{"type":"batch","items":[],"x":1}',
     '{"type":"batch","items":[{"kind":"report","sequence":0,"at":1,"stage":"training"}]}',
     '{"type":"batch","items":[{"kind":"report","sequence":1,"at":1,"stage":"dancing"}]}',
     '{"type":"batch","items":[{"kind":"report","sequence":1,"at":1,"stage":"training","tokens":-1}]}',
     '{"type":"batch","items":[{"kind":"report","sequence":1,"at":1e999,"stage":"training"}]}'],
)  # fmt: skip
async def test_malformed_batches_end_that_connection(connect: Any, bob: Agent, text: str) -> None:
    socket = await connect(bob)
    await socket.send_input({"type": "websocket.receive", "text": text})
    assert await socket.close_code() == MALFORMED


async def test_a_batch_at_the_limit_is_taken_and_one_past_it_is_not(connect: Any, bob: Agent) -> None:
    socket = await connect(bob)
    await socket.report(*(report(i, time.time()) for i in range(1, BATCH_ITEMS_MAX + 1)))
    assert await socket.ack() == BATCH_ITEMS_MAX
    await socket.report(*(report(i, time.time()) for i in range(1, BATCH_ITEMS_MAX + 2)))
    assert await socket.close_code() == MALFORMED


async def test_a_message_over_64_kib_ends_the_connection(connect: Any, bob: Agent) -> None:
    socket = await connect(bob)
    await socket.send_to(text_data=" " * (64 * 1024 + 1))
    assert await socket.close_code() == TOO_LARGE


async def test_too_many_items_end_the_connection(connect: Any, bob: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "ITEMS_BURST", 3.0)
    monkeypatch.setattr(consumers, "ITEMS_PER_S", 0.001)
    socket = await connect(bob)
    await socket.report(*(report(i, time.time()) for i in (1, 2, 3)))
    await socket.ack()
    await socket.report(report(4))
    assert await socket.close_code() == TOO_FAST


async def test_strangers_are_refused_before_accept(experiment: Experiment, draft: Experiment, bob: Agent) -> None:
    now = time.time()
    assert (await refusal([]))[0] == 401
    assert (await refusal([(b"authorization", b"Hive !!!")]))[0] == 401
    assert (await refusal([(b"authorization", b"Hive " + b"A" * 5000)]))[0] == 401
    assert (await refusal(bob.headers(at=now, signature=b"x" * 64)))[0] == 401
    assert (await refusal(bob.headers(at=now, session="ffffffffffffffff")))[0] == 401  # signed for another session
    assert (await refusal(bob.headers(at=now, experiment="other")))[0] == 401
    status, body = await refusal(bob.headers(at=now - 301))
    assert status == 401 and b"clock" in body
    status, body = await refusal(bob.headers(at=now, experiment="nope"), "/ws/telemetry/nope/")
    assert (status, body) == (404, b'{"detail": "there is no experiment \'nope\' here"}')
    assert (await refusal(bob.headers(at=now, experiment="secret"), "/ws/telemetry/secret/"))[0] == 404
    assert (await refusal(bob.headers(at=now), "/ws/other/"))[0] == 404


async def test_handshakes_of_an_address_are_limited(experiment: Experiment, bob: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentSocket, "handshakes", KeyedBuckets(per_s=0.001, burst=2, keys_max=10))
    assert [(await refusal([]))[0] for _ in range(3)] == [401, 401, 429]


async def test_connections_are_limited(connect: Any, bob: Agent, charlie: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers.TelemetryConsumer.places, "total_max", 1)
    await connect(bob)
    assert (await refusal(charlie.headers(at=time.time())))[0] == 503


async def test_an_agent_that_is_gone_is_no_error() -> None:
    async def gone(_: dict[str, Any]) -> None:
        raise OSError("the other side is gone")

    consumer = consumers.TelemetryConsumer()
    consumer.base_send = gone
    await consumer.send_json(encode(Ack(sequence=1)))
    assert consumer.ended
    await consumer.end(NOT_STORED, "too late")


async def test_only_the_newest_acknowledgement_waits_for_an_agent_that_does_not_read() -> None:
    sent: list[str] = []
    reads, twice = asyncio.Event(), asyncio.Event()

    async def slow(message: dict[str, Any]) -> None:
        await reads.wait()
        sent.append(message["text"])
        if len(sent) == 2:
            twice.set()

    consumer = consumers.TelemetryConsumer()
    consumer.base_send = slow
    consumer.settled = asyncio.Event()
    task = asyncio.create_task(consumer._acknowledge())
    for sequence in (1, 2, 3, 4):
        consumer._settle(sequence)  # never waits
        await asyncio.sleep(0)
    reads.set()
    await asyncio.wait_for(twice.wait(), 5)
    task.cancel()
    assert [msgspec.json.decode(text, type=Ack).sequence for text in sent] == [1, 4]


async def test_after_a_failure_nothing_is_acknowledged() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    consumer = consumers.TelemetryConsumer()
    consumer.base_send = send
    consumer.settled = asyncio.Event()
    consumer._settle(None)
    consumer._settle(7)  # a later batch was stored, the one before it was not
    await consumer._acknowledge()
    assert [(m["type"], m.get("code")) for m in sent] == [("websocket.close", NOT_STORED)]
