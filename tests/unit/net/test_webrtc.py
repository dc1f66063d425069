"""What is particular to WebRTC links: certificates, limits, hostile packets on the stock path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Literal

import msgspec
import pytest
from aiortc.rtcsctptransport import DataChunk, ForwardTsnChunk, SackChunk

from agent.errors import ConfigError, LocalError, NotReachable
from agent.net import webrtc
from agent.net.ice import IceConfig
from agent.net.stock import StockPath
from agent.net.transport import Lane
from agent.net.webrtc import WebRtcConfig, WebRtcLink, WebRtcTransport
from tests.unit.net.ends import End, open_pair

Pair = tuple[WebRtcTransport, WebRtcTransport]


@contextlib.asynccontextmanager
async def transports(kind: Literal["fast", "stock"]) -> AsyncIterator[Pair]:
    config = WebRtcConfig(ice=IceConfig(loopback="always"), linger_s=0.2, data_path=kind)
    pair = WebRtcTransport(config), WebRtcTransport(config)
    yield pair
    for transport in pair:
        await transport.close()


@pytest.fixture(params=["fast", "stock"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with transports(request.param) as pair:
        yield pair


@pytest.fixture
async def stock_pair() -> AsyncIterator[Pair]:
    """Where a test builds aiortc's own chunks."""
    async with transports("stock") as pair:
        yield pair


def path(end: End) -> StockPath:
    assert isinstance(end.link, WebRtcLink) and isinstance(end.link.stack.path, StockPath)
    return end.link.stack.path


async def test_a_certificate_other_than_described_is_refused(pair: Pair) -> None:
    offered = await pair[0].offer()
    fields = msgspec.msgpack.decode(offered.description)
    fields[3] = bytes(32)
    answered = await pair[1].answer(msgspec.msgpack.encode(fields))
    opening = asyncio.create_task(offered.accept(answered.description, 0.5))
    with pytest.raises(NotReachable, match="another certificate"):
        await answered.open(5)
    with pytest.raises(NotReachable):
        await opening


async def test_sockets_are_free_after_closing(pair: Pair) -> None:
    a, b = await open_pair(*pair)
    assert isinstance(a.link, WebRtcLink) and isinstance(b.link, WebRtcLink)
    transports = [p.transport for end in (a, b) for p in end.link.stack.gatherer._connection._protocols]
    assert transports and not any(t.is_closing() for t in transports)
    a.link.close("done")
    await b.ended.wait()
    for transport in pair:
        await transport.close()
        assert not transport._links and not transport._pending and not transport._releases
    assert all(t.is_closing() for t in transports)
    with pytest.raises(LocalError, match="closed"):
        await pair[0].offer()


async def test_an_offer_that_is_being_made_while_the_transport_closes(pair: Pair) -> None:
    offer = asyncio.create_task(pair[0].offer())
    await asyncio.sleep(0)
    await pair[0].close()
    with pytest.raises(LocalError, match="closed"):
        await offer
    await pair[0].close()
    assert not pair[0]._pending and not pair[0]._releases


async def test_offers_under_way_are_limited(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "PENDING_MAX", 2)
    first = await pair[0].offer()
    await pair[0].offer()
    with pytest.raises(LocalError, match="being set up"):
        await pair[0].offer()
    first.abandon()
    await pair[0].offer()


async def test_no_address_at_all_is_a_local_error() -> None:
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(relay_only=True)))
    with pytest.raises(LocalError, match="no network address"):
        await transport.offer()
    await transport.close()


async def test_what_comes_before_start_is_bounded(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webrtc, "HELD_BYTES_MAX", 1000)
    offered = await pair[0].offer()
    answered = await pair[1].answer(offered.description)
    link, late = await asyncio.gather(offered.accept(answered.description, 10), answered.open(10))
    early = End(link)
    early.link.send(Lane.CONTROL, bytes(1000))
    await early.drained()
    assert not early.closed
    early.link.send(Lane.CONTROL, b"x")
    async with asyncio.timeout(5):
        await early.ended.wait()
    end = End(late)
    async with asyncio.timeout(5):
        await end.ended.wait()
    assert "too much" in end.closed[0]


async def test_small_messages_before_start_count_as_the_memory_that_they_take(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webrtc, "HELD_BYTES_MAX", 10 * webrtc.HELD_MESSAGE_BYTES_MIN)
    offered = await pair[0].offer()
    answered = await pair[1].answer(offered.description)
    link, late = await asyncio.gather(offered.accept(answered.description, 10), answered.open(10))
    early = End(link)
    for _ in range(11):
        early.link.send(Lane.CONTROL, b"x")
    async with asyncio.timeout(5):
        await early.ended.wait()
    late.close("done")


async def test_control_overtakes_bulk_that_waits(pair: Pair) -> None:
    a, b = await open_pair(*pair)
    for _ in range(40):
        a.link.send(Lane.BULK, bytes(60_000))
    a.link.send(Lane.CONTROL, b"quick")
    await b.count(41)
    assert [lane for lane, _ in b.messages].index(Lane.CONTROL) < 10


def data_chunk(sender: StockPath, stream: int, protocol: int, body: bytes, *, ahead: int = 0, flags: int = 3) -> DataChunk:
    chunk = DataChunk(flags=flags)
    chunk.tsn = (sender._local_tsn + ahead) % 2**32
    chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = stream, 0, protocol, body
    return chunk


def sack(sender: StockPath, cumulative: int, gaps: list[tuple[int, int]]) -> SackChunk:
    chunk = SackChunk()
    chunk.cumulative_tsn, chunk.advertised_rwnd, chunk.gaps = cumulative % 2**32, 1 << 20, gaps
    return chunk


def forward(sender: StockPath) -> ForwardTsnChunk:
    chunk = ForwardTsnChunk()
    chunk.cumulative_tsn = (sender._local_tsn + 1000) % 2**32
    return chunk


HOSTILE: dict[str, Callable[[StockPath], Awaitable[None]]] = {
    "another channel": lambda p: p._send_chunk(data_chunk(p, 7, 53, b"x")),
    "text": lambda p: p._send_chunk(data_chunk(p, 0, 51, b"x")),
    "an empty chunk": lambda p: p._send_chunk(data_chunk(p, 0, 53, b"")),
    "an acknowledgement from the future": lambda p: p._send_chunk(sack(p, p._last_received_tsn + 1000, [])),
    "impossible gaps": lambda p: p._send_chunk(sack(p, p._last_received_tsn, [(0, 65_535)] * 200)),
    "skipping ahead": lambda p: p._send_chunk(forward(p)),
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_hostile_packets_end_that_link_with_a_name(stock_pair: Pair, what: str) -> None:
    a, b = await open_pair(*stock_pair)
    other, witness = await open_pair(*stock_pair)
    await HOSTILE[what](path(a))
    async with asyncio.timeout(5):
        await b.ended.wait()
    assert "ProtocolViolation" in b.closed[0]
    other.link.send(Lane.CONTROL, b"unharmed")
    await witness.count(1)


async def test_packets_that_are_not_sctp_are_ignored(stock_pair: Pair) -> None:
    a, b = await open_pair(*stock_pair)
    for junk in (b"\0", b"\0" * 12, b"\xff" * 100):
        await path(a).transport._send_data(junk)
    await path(a)._send_chunk(data_chunk(path(a), 0, 53, b"x", ahead=100_000))
    a.link.send(Lane.CONTROL, b"still here")
    await b.count(1)
    assert bytes(b.messages[0][1]) == b"still here"


async def test_more_than_the_window_is_a_violation() -> None:
    config = WebRtcConfig(ice=IceConfig(loopback="always"), window_bytes=8192, message_bytes_max=4096, data_path="stock")
    pair = WebRtcTransport(config), WebRtcTransport(config)
    a, b = await open_pair(*pair)
    for i in range(20):  # 20,000 bytes of messages that never end
        await path(a)._send_chunk(data_chunk(path(a), 1, 53, bytes(1000), ahead=i, flags=2))
    async with asyncio.timeout(5):
        await b.ended.wait()
    assert "receive window" in b.closed[0]
    for transport in pair:
        await transport.close()


@pytest.mark.parametrize(
    ("local", "remote", "kind"), [("host", "srflx", "direct"), ("relay", "host", "relayed"), ("host", "relay", "relayed")]
)
async def test_a_relay_on_either_side_makes_a_link_relayed(pair: Pair, local: str, remote: str, kind: str) -> None:
    a, _ = await open_pair(*pair)
    assert isinstance(a.link, WebRtcLink)
    chosen = SimpleNamespace(local_candidate=SimpleNamespace(type=local), remote_candidate=SimpleNamespace(type=remote))
    nominated = a.link.stack.gatherer._connection._nominated
    really = nominated[1]
    nominated[1] = chosen  # type: ignore[assignment]
    assert a.link.stack.kind() == kind
    nominated[1] = really


def test_limits_that_make_no_sense() -> None:
    for config in ({"message_bytes_max": 100}, {"message_bytes_max": 1 << 20}, {"window_bytes": 70_000}):
        with pytest.raises(ConfigError):
            WebRtcConfig(**config)  # type: ignore[arg-type]
