from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agent.errors import AddressInUse, ConfigError, LocalError, NotReachable
from agent.net.bootstrap import (
    MALFORMED,
    REFUSED,
    TOO_SLOW,
    BootstrapConfig,
    BootstrapServer,
    BootstrapSignaler,
    Rates,
    format_address,
    parse_address,
)
from agent.net.offers import SEALED_BYTES_MAX
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Town, until


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    yield town
    await town.close()


@pytest.fixture
async def server(town: Town) -> AsyncIterator[BootstrapServer]:
    server = BootstrapServer(town.join(BOB), "127.0.0.1", 0, BootstrapConfig(offer_timeout_s=0.2, sessions_max=3, offers_burst=8))
    await server.start()
    yield server
    await server.close()


async def test_a_peer_is_reached_by_its_address(town: Town, server: BootstrapServer) -> None:
    alice = town.join(ALICE)
    await alice.dial(BOB.peer_id, BootstrapSignaler(server.address()), timeout_s=5)
    assert (await alice.call(BOB.peer_id, "echo", b"x", timeout_s=5)).header == b"x"
    assert server.offers_answered == 1 and server.offers_refused == 0


async def test_closing_does_not_wait_for_an_answer_that_takes_long(town: Town, server: BootstrapServer) -> None:
    asked = asyncio.Event()

    async def answer(sealed: bytes) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b""

    town.signaler.networks[BOB.peer_id].answer = answer  # type: ignore[method-assign]
    exchange = asyncio.create_task(BootstrapSignaler(server.address()).exchange(BOB.peer_id, b"offer"))
    await asked.wait()
    await server.close()
    with pytest.raises(NotReachable, match="refused"):
        await exchange


async def test_an_address_for_others_names_a_machine(town: Town) -> None:
    server = BootstrapServer(town.join(BOB), "0.0.0.0", 0)
    await server.start()
    assert "0.0.0.0" not in server.address() and server.address("hive.example").startswith("ws://hive.example:")
    await server.close()


async def test_a_taken_port_is_named(town: Town, server: BootstrapServer) -> None:
    second = BootstrapServer(town.join(ALICE), "127.0.0.1", server.port)
    with pytest.raises(AddressInUse, match=f"port {server.port} .* --listen"):
        await second.start()
    with pytest.raises(LocalError, match="cannot listen"):
        await BootstrapServer(town.signaler.networks[ALICE.peer_id], "203.0.113.7", 0).start()


async def test_a_refusal_reaches_the_caller_in_words(town: Town, server: BootstrapServer) -> None:
    alice = town.join(ALICE, experiment="other")
    with pytest.raises(NotReachable, match="the experiment 'other'"):
        await alice.dial(BOB.peer_id, BootstrapSignaler(server.address()), timeout_s=5)
    assert server.offers_refused == 1


async def test_nobody_at_the_address(town: Town, server: BootstrapServer) -> None:
    address = server.address()
    await server.close()
    alice = town.join(ALICE)
    with pytest.raises(NotReachable, match="cannot be reached"):
        await alice.dial(BOB.peer_id, BootstrapSignaler(address), timeout_s=5)
    with pytest.raises(NotReachable, match="another peer"):
        await alice.dial(CHARLIE.peer_id, BootstrapSignaler(address), timeout_s=5)


async def test_another_peer_at_the_address(town: Town, server: BootstrapServer) -> None:
    alice = town.join(ALICE)
    wrong = format_address("127.0.0.1", server.port, CHARLIE.peer_id)
    with pytest.raises(NotReachable, match="another peer is at this address"):
        await alice.dial(CHARLIE.peer_id, BootstrapSignaler(wrong), timeout_s=5)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", REFUSED),
        (b"\0" * 100, REFUSED),
        (b"x" * SEALED_BYTES_MAX, REFUSED),
        (b"x" * (SEALED_BYTES_MAX + 1), 1009),
        ("text", MALFORMED),
    ],
)
async def test_hostile_messages_end_in_a_close_code(server: BootstrapServer, message: bytes | str, code: int) -> None:
    async with connect(server.address(), proxy=None) as connection:
        await connection.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == code


async def test_silence_is_not_waited_for(server: BootstrapServer) -> None:
    async with connect(server.address(), proxy=None) as connection:
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None and closed.value.rcvd.code == TOO_SLOW


async def test_no_more_connections_than_the_limit(server: BootstrapServer) -> None:
    sockets = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
    assert await sockets[3][0].read() == b"", "the fourth is hung up on"
    assert not sockets[0][0].at_eof()
    for _, writer in sockets:
        writer.close()


async def test_no_more_offers_from_one_address_than_its_rate(server: BootstrapServer) -> None:
    for _ in range(8):
        async with connect(server.address(), proxy=None) as connection:
            await connection.send(b"?")
            with pytest.raises(ConnectionClosed):
                await connection.recv()
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.address(), proxy=None)
    assert refused.value.response.status_code == 429


async def test_plain_http_and_garbage_do_no_harm(server: BootstrapServer) -> None:
    for request in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", b"A" * 70_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        try:
            await reader.read()
        except ConnectionResetError:
            pass
        writer.close()
    assert server._server is not None
    handlers = server._server.handler_tasks
    if handlers:
        await asyncio.wait(handlers)


def test_rates_refill_and_forget() -> None:
    rates = Rates(BootstrapConfig(offers_per_s=2, offers_burst=2, addresses_max=2))
    assert [rates.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [rates.take("a", 0.5) for _ in range(2)] == [True, False]
    rates.take("b", 1.0)
    rates.take("c", 1.0)
    assert list(rates._buckets) == ["b", "c"]


@pytest.mark.parametrize("port", [80, 65_535])
def test_addresses_round_trip(port: int) -> None:
    for host in ("example.org", "192.0.2.1", "2001:db8::1"):
        assert parse_address(format_address(host, port, BOB.peer_id))[::2] == (BOB.peer_id, host)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://h:1/" + str(BOB.peer_id),
        "ws://h:1/",
        "ws://h:99999/" + str(BOB.peer_id),
        "ws:///" + str(BOB.peer_id),
        "ws://u@h:1/" + str(BOB.peer_id),
        "ws://h:1/" + str(BOB.peer_id) + "?x=1",
        "ws://" + "h" * 300 + ":1/" + str(BOB.peer_id),
    ],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ConfigError, match="not a bootstrap address"):
        parse_address(address)


async def test_a_caller_that_leaves_at_once_costs_nothing(server: BootstrapServer) -> None:
    connection = await connect(server.address(), proxy=None)
    connection.transport.abort()
    assert server._server is not None
    handlers = server._server.handler_tasks
    await until(lambda: True)
    if handlers:
        await asyncio.wait(handlers)
