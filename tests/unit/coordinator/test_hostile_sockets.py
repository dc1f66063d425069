"""Hostile agents and browsers on the three WebSockets: whatever they send ends in a named close, and everybody else goes on."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.db import InterfaceError, OperationalError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import RedisError

from agent.reports import MESSAGE_BYTES_MAX, Batch, encode
from coordinator.asgi import application
from coordinator.experiments.models import Experiment
from coordinator.rendezvous.consumers import RendezvousConsumer, _FromAgent
from coordinator.sockets import AgentSocket
from coordinator.telemetry.consumers import TelemetryConsumer, _Batch

from .conftest import Agent, report

pytestmark = pytest.mark.django_db(transaction=True)
KINDS = ("telemetry", "rendezvous")
MALFORMED, TOO_LARGE, TOO_FAST = 4400, 4413, 4429
NONSENSE = [
    " ", "null", "[]", "{}", "7", '"', "{" * 1000, '{"type":"batch"}', '{"type":"batch","items":null}', '{"type":"nope"}',
    '{"type":"batch","items":[{"kind":"report","sequence":0,"at":0,"stage":"training"}]}',
    '{"type":"batch","items":[{"kind":"report","sequence":1,"at":"x","stage":"training"}]}',
    '{"type":"batch","items":[{"kind":"report","sequence":1,"at":1e999,"stage":"dancing"}]}',
    '{"type":"send","to":"me","exchange":"x","body":"!"}', '{"type":"announce","address":"javascript:alert(1)"}',
    '{"type":"announce","address":"ws://u:p@h:1/x"}', '{"type":"announce","address":"ws://[::1"}', "\ud7ff", "\x00" * 100,
]  # fmt: skip


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests come from one address."""
    monkeypatch.setattr(type(AgentSocket.handshakes), "take", lambda *_: True)


async def connect(kind: str, agent: Agent, **changes: object) -> tuple[WebsocketCommunicator, bool, Any]:
    headers = agent.headers(at=time.time(), **changes)
    socket = WebsocketCommunicator(application, f"/ws/{kind}/gpt-crowd/", headers=headers)
    accepted, detail = await socket.connect(5)
    return socket, accepted, detail


async def close_code(socket: WebsocketCommunicator) -> int:
    while (message := await socket.receive_output(5))["type"] != "websocket.close":
        pass
    return int(message["code"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", NONSENSE)
async def test_nonsense_is_malformed(experiment: Experiment, bob: Agent, kind: str, text: str) -> None:
    socket, accepted, _ = await connect(kind, bob)
    assert accepted
    await socket.send_to(text_data=text)
    assert await close_code(socket) == MALFORMED
    await socket.disconnect(timeout=5)
    assert len(TelemetryConsumer.places) == len(RendezvousConsumer.places) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_is_too_large(experiment: Experiment, bob: Agent, kind: str) -> None:
    socket, _, _ = await connect(kind, bob)
    await socket.send_to(bytes_data=b"x" * (MESSAGE_BYTES_MAX + 1))
    assert await close_code(socket) == TOO_LARGE
    await socket.disconnect(timeout=5)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_flood_is_too_fast(experiment: Experiment, bob: Agent, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentSocket, "messages_burst", 5.0)
    for consumer in (TelemetryConsumer, RendezvousConsumer):
        monkeypatch.setattr(consumer, "messages_burst", 5.0)
        monkeypatch.setattr(consumer, "messages_per_s", 0.001)
    socket, _, _ = await connect(kind, bob)
    harmless = {"telemetry": '{"type":"batch","items":[]}', "rendezvous": _announcement(bob)}[kind]
    for _ in range(6):
        await socket.send_to(text_data=harmless)
    assert await close_code(socket) == TOO_FAST
    await socket.disconnect(timeout=5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Hive")],
        [(b"authorization", b"Hive !!!!")],
        [(b"authorization", b"Bearer hive_x_y")],
        [(b"authorization", b"Hive " + b"A" * 5000)],
        [(b"authorization", b"Hive \xff\xfe")],
        [(b"authorization", b"Hive e30")],
    ],
)
async def test_a_hello_that_is_none(experiment: Experiment, kind: str, headers: list[tuple[bytes, bytes]]) -> None:
    socket = WebsocketCommunicator(application, f"/ws/{kind}/gpt-crowd/", headers=headers)
    accepted, code = await socket.connect(5)
    assert not accepted and code in (4401, 401)


@pytest.mark.parametrize("kind", KINDS)
async def test_another_peers_name(experiment: Experiment, bob: Agent, charlie: Agent, kind: str) -> None:
    _, accepted, _ = await connect(kind, bob, peer=charlie.peer)
    assert not accepted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", [OperationalError("no database"), InterfaceError("gone"), RedisError("no Redis")])
async def test_what_is_away_gives_the_place_back(
    experiment: Experiment, bob: Agent, kind: str, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand agents that come back to a database that is away must not fill the site for good."""
    consumer = TelemetryConsumer if kind == "telemetry" else RendezvousConsumer

    async def opened(self: AgentSocket) -> None:
        raise problem

    with monkeypatch.context() as away:
        away.setattr(consumer, "opened", opened)
        for _ in range(3):
            socket, accepted, code = await connect(kind, bob)
            assert not accepted and code in (4503, 503)
            await socket.disconnect(timeout=5)
    assert len(consumer.places) == 0
    socket, accepted, _ = await connect(kind, bob)
    assert accepted and len(consumer.places) == 1
    await socket.disconnect(timeout=5)
    assert len(consumer.places) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_one_address_does_not_take_every_place(
    experiment: Experiment, bob: Agent, charlie: Agent, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = TelemetryConsumer if kind == "telemetry" else RendezvousConsumer
    monkeypatch.setattr(consumer.places, "each_max", 1)
    first, accepted, _ = await connect(kind, bob)
    assert accepted
    second, accepted, _ = await connect(kind, charlie)
    assert not accepted
    for socket in (first, second):
        await socket.disconnect(timeout=5)
    assert len(consumer.places) == 0


async def test_nobody_else_suffers(experiment: Experiment, bob: Agent, charlie: Agent) -> None:
    good, _, _ = await connect("telemetry", charlie)
    rng = random.Random(1)
    for _ in range(20):
        bad, _, _ = await connect("telemetry", bob)
        await bad.send_to(bytes_data=rng.randbytes(rng.randrange(1, 2000)))
        await bad.disconnect(timeout=5)
    await good.send_to(text_data=encode(Batch(items=(report(1, time.time()),))).decode())
    assert json.loads(await good.receive_from(timeout=10)) == {"type": "ack", "sequence": 1}
    await good.disconnect(timeout=5)


@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass"))))
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_decoders_refuse_by_name(data: bytes) -> None:
    """What the consumers catch is all that decoding raises."""
    import msgspec

    for decoder in (_Batch, _FromAgent):
        try:
            decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass


def _announcement(agent: Agent) -> str:
    return json.dumps({"type": "announce", "address": f"ws://192.0.2.1:7000/{agent.peer}"})
