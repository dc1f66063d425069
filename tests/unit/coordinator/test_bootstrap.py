"""Trying bootstrap addresses: what is learned, and that it cannot be turned against others' machines or our own network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from channels.db import database_sync_to_async

from agent.errors import HiveError
from agent.identity import Identity
from agent.net.bootstrap import BootstrapServer
from agent.net.memory import MemoryFabric
from agent.net.network import Network
from coordinator.experiments.models import Experiment
from coordinator.monitoring import bootstrap
from coordinator.monitoring.bootstrap import Finding, NotTried, check_all, look, permitted
from coordinator.monitoring.models import BootstrapCheck, Outcome
from coordinator.rendezvous.actions import announce

from .conftest import NOW, Agent

PEER = Identity.from_seed(b"z" * 32)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[str]:
    """Something on loopback that is asked as a bootstrap peer; gives its address."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        writer.transport.abort()
        ended.set()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield f"ws://127.0.0.1:{port}/{PEER.peer_id}"
    listening.close()
    await ended.wait()


def says(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return talk


# What is learned


async def test_a_real_bootstrap_peer_answers() -> None:
    network = Network(identity=PEER, experiment="gpt-crowd", transport=MemoryFabric().transport("a"))
    listening = BootstrapServer(network, "127.0.0.1", 0)
    await listening.start()
    try:
        finding = await look(listening.address("127.0.0.1"))
        assert finding.outcome is Outcome.OK and finding.latency_ms is not None and finding.latency_ms < 4000
        other = listening.address("127.0.0.1").replace(str(PEER.peer_id), "a" * 52)
        assert (await look(other)).outcome is Outcome.FAILED, "another peer's address on that port"
    finally:
        with contextlib.suppress(HiveError):
            await listening.close()
        await network.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data/\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret", "HTTP 200"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a WebSocket"),
        (b"", "not a WebSocket"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "not a WebSocket"),
        (b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"a" * 20_000, "not a WebSocket"),
    ],
)
async def test_whatever_else_answers_is_not_told_on(answer: bytes, said: str) -> None:
    async with server(says(answer)) as address:
        finding = await look(address)
    assert finding.outcome is Outcome.FAILED and said in finding.detail and "secret" not in finding.detail


async def test_silence_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr(bootstrap, "TIMEOUT_S", 0.1)
    async with server(nothing) as address:
        assert "no answer within" in (await look(address)).detail


async def test_a_closed_port_and_a_name_that_is_none() -> None:
    async with server(says(b"")) as address:
        await look(address)
    assert (await look(address)).outcome is Outcome.FAILED
    finding = await look(f"ws://nowhere.invalid:4000/{PEER.peer_id}")
    assert (finding.outcome, finding.detail) == (Outcome.FAILED, "its name does not resolve")


# What is not tried


@pytest.mark.parametrize(
    "ip",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "255.255.255.255",
        "198.18.0.1", "192.0.2.1", "::", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "fe80::1%eth0",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(ip: str) -> None:
    assert not permitted(ip, loopback=True)


def test_public_addresses_and_our_own_machine() -> None:
    assert permitted("1.1.1.1", loopback=False) and permitted("2606:4700:4700::1111", loopback=False)
    for ip in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert permitted(ip, loopback=True) and not permitted(ip, loopback=False)


@pytest.mark.parametrize("port", [22, 25, 1023])
async def test_ports_of_other_services(port: int) -> None:
    finding = await look(f"ws://127.0.0.1:{port}/{PEER.peer_id}")
    assert (finding.outcome, finding.detail) == (Outcome.SKIPPED, f"port {port} belongs to another service")


async def test_in_production_our_own_machine_is_not_tried(settings: Any) -> None:
    settings.EMBEDDED = False
    assert (await look(f"ws://127.0.0.1:4000/{PEER.peer_id}")).outcome is Outcome.SKIPPED


async def test_a_name_is_resolved_once_and_connected_to_by_what_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time (DNS rebinding) is not asked a second time."""
    loop, asked, connected = asyncio.get_running_loop(), [], []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(2, 1, 6, "", ("10.0.0.1", port)), (2, 1, 6, "", ("1.1.1.1", port))]

    async def connect(host: str, port: int, **_: Any) -> Any:
        connected.append(host)
        raise OSError(111, "Connection refused")

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    monkeypatch.setattr(bootstrap.asyncio, "open_connection", connect)
    await look(f"ws://rebinding.example:4000/{PEER.peer_id}")
    assert (asked, connected) == (["rebinding.example"], ["1.1.1.1"])


async def test_only_private_addresses_behind_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("10.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(NotTried):
        await bootstrap._resolve(f"ws://inside.example:4000/{PEER.peer_id}")


# What is kept


@pytest.mark.django_db(transaction=True)
async def test_a_round_keeps_what_it_found_and_forgets_what_is_gone(experiment: Experiment, bob: Agent) -> None:
    address = f"ws://192.0.2.1:7000/{bob.peer}"
    await database_sync_to_async(announce)(experiment, bob.peer, address, NOW)
    tried: list[str] = []

    def probe(finding: Finding) -> bootstrap.Probe:
        async def one(address: str) -> Finding:
            tried.append(address)
            return finding

        return one

    assert await check_all(NOW, probe(Finding(outcome=Outcome.OK, latency_ms=3.0))) == 1
    assert await check_all(NOW + 60, probe(Finding(outcome=Outcome.FAILED, detail="no answer"))) == 1
    check = await BootstrapCheck.objects.aget()
    assert (check.outcome, check.detail, check.checked_at, check.answered_at) == ("failed", "no answer", NOW + 60, NOW)
    assert tried == [address, address]
    assert await check_all(NOW + 1000, probe(Finding(outcome=Outcome.OK))) == 0 and not await BootstrapCheck.objects.aexists()
