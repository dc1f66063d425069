"""The fast data path on real ICE and DTLS: with stock at the other end, without batches, and when it cannot be used."""

from __future__ import annotations

import asyncio
import logging
import os
import struct
from dataclasses import replace

import pytest

from agent.net import aiortc_seam, dcep
from agent.net.fast import CHANNELS_MAX, FastPath
from agent.net.ice import IceConfig
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.sctp.events import StreamsReset
from agent.net.stock import StockPath
from agent.net.transport import Lane
from agent.net.udp_batch import Flight
from agent.net.webrtc import WebRtcConfig, WebRtcLink, WebRtcTransport
from tests.unit.net.ends import End, open_pair

CALLS = 50


async def opened(one: str, other: str) -> tuple[WebRtcTransport, WebRtcTransport, End, End]:
    transports = [
        WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path=kind))  # type: ignore[arg-type]
        for kind in (one, other)
    ]
    ends = await open_pair(*transports)
    return *transports, *ends  # type: ignore[return-value]


def path(end: End) -> FastPath:
    assert isinstance(end.link, WebRtcLink)
    assert isinstance(end.link.stack.path, FastPath)
    return end.link.stack.path


async def exchange(a: End, b: End) -> None:
    sent = {lane: [os.urandom(1 + 7919 * n % 60_000) for n in range(20)] for lane in Lane}
    for end in (a, b):
        for lane in Lane:
            for data in sent[lane]:
                end.link.send(lane, data)
    for end in (a, b):
        await end.count(40)
        await end.drained()
        for lane in Lane:
            assert [bytes(data) for at, data in end.messages if at is lane] == sent[lane]


@pytest.mark.parametrize(("one", "other"), [("fast", "fast"), ("fast", "stock"), ("stock", "fast")])
async def test_either_end_may_be_stock(one: str, other: str) -> None:
    x, y, a, b = await opened(one, other)
    await exchange(a, b)
    fast = [end for end, kind in ((a, one), (b, other)) if kind == "fast"]
    for end in fast:
        association = path(end).association
        assert association is not None
        assert association.packets_dropped == 0
        assert association.peer is not None
        assert association.peer.interleave == (one == other)
        if one != other:
            assert association.packet_bytes == PACKET_BYTES_BASE
    a.link.close("done")
    await b.ended.wait()
    await x.close()
    await y.close()


async def test_without_batched_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """As through TURN, under uvloop or on Windows: datagrams one by one, the smallest packets."""
    monkeypatch.setattr(aiortc_seam, "TransportSocket", type(None))
    x, y, a, b = await opened("fast", "fast")
    await exchange(a, b)
    association = path(a).association
    assert association is not None
    assert association.packet_bytes == PACKET_BYTES_BASE
    await x.close()
    await y.close()


async def test_falls_back_to_stock_and_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(aiortc_seam.KNOWN_VERSIONS, "aiortc", ("0.0.",))
    with caplog.at_level(logging.WARNING, "agent.net.fast"):
        x, y, a, b = await opened("fast", "fast")
    assert isinstance(a.link, WebRtcLink)
    assert isinstance(a.link.stack.path, StockPath)
    assert "aiortc 1." in caplog.text
    await exchange(a, b)
    await x.close()
    await y.close()


def test_the_installed_packages_are_usable() -> None:
    assert aiortc_seam.unusable() is None


@pytest.mark.parametrize(
    ("owner", "name"),
    [(aiortc_seam.Connection, "data_received"), (aiortc_seam.CandidatePair, "remote_addr"), (aiortc_seam.SSL.Connection, "recv")],
)
def test_a_missing_part_is_named(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    monkeypatch.delattr(owner, name)
    assert name in (aiortc_seam.unusable() or "")


def test_another_signature_or_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(aiortc_seam.Connection, "data_received", lambda self, data: None)
        assert "other arguments" in (aiortc_seam.unusable() or "")
    monkeypatch.setitem(aiortc_seam.KNOWN_VERSIONS, "no-such-package", ("1.",))
    assert "not installed" in (aiortc_seam.unusable() or "")


async def test_a_peer_may_open_the_channels_in_band() -> None:
    x, y, a, b = await opened("fast", "fast")
    sender = path(a).association
    assert sender is not None
    sender.send(Lane.BULK, dcep.CONTROL, memoryview(struct.pack("!BBHLHH", 3, 0, 0, 0, 4, 0) + b"bulk"))
    a.link.send(Lane.BULK, b"after it")
    await b.count(1)
    assert bytes(b.messages[0][1]) == b"after it"
    await x.close()
    await y.close()


@pytest.mark.parametrize("streams", [1024, 2])
async def test_channels_opened_in_band_without_end_or_without_a_way_back_end_the_link(streams: int) -> None:
    x, y, a, b = await opened("fast", "fast")
    sender, receiver = path(a).association, path(b).association
    assert sender is not None and receiver is not None and receiver.peer is not None
    receiver._handshake.peer = replace(receiver.peer, streams=streams)
    for number in range(CHANNELS_MAX + 1 if streams > 2 else 1):
        sender.send(2 + number, dcep.CONTROL, memoryview(struct.pack("!BBHLHH", 3, 0, 0, 0, 0, 0)))
        assert number >= CHANNELS_MAX or not b.closed
    a.link.send(Lane.CONTROL, b"push it out")
    await asyncio.gather(a.ended.wait(), b.ended.wait())
    assert b.closed[0].startswith("ProtocolViolation")
    assert ("16 channels" if streams > 2 else "no stream 2") in b.closed[0]
    await x.close()
    await y.close()


@pytest.mark.parametrize(("stream", "protocol", "data"), [(0, 51, b"text"), (5, 53, b"x"), (0, 50, b"\x09")])
async def test_what_is_not_ours_ends_the_link(stream: int, protocol: int, data: bytes) -> None:
    x, y, a, b = await opened("fast", "fast")
    sender = path(a).association
    assert sender is not None
    sender.send(stream, protocol, memoryview(data))
    a.link.send(Lane.CONTROL, b"push it out")
    await asyncio.gather(a.ended.wait(), b.ended.wait())
    assert b.closed[0].startswith("ProtocolViolation")
    await x.close()
    await y.close()


async def test_a_small_call_is_one_datagram_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer takes the acknowledgement of the question along, and the next question that of the answer."""
    x, y, a, b = await opened("fast", "fast")
    await exchange(a, b)
    sent: list[Flight] = []
    for end in (a, b):
        send = path(end)._socket.send
        monkeypatch.setattr(path(end)._socket, "send", lambda flight, send=send: (sent.append(flight), send(flight)))
    before, loop = len(a.messages), asyncio.get_running_loop()
    done = asyncio.Event()

    def answer(lane: Lane, data: memoryview) -> None:
        loop.call_soon(b.link.send, Lane.CONTROL, b"answer")  # as a handler does, in its own task

    def ask_again(lane: Lane, data: memoryview) -> None:
        a.messages.append((lane, data))
        if len(a.messages) < before + CALLS:
            loop.call_soon(a.link.send, Lane.CONTROL, b"question")
        else:
            done.set()

    for end, take in ((a, ask_again), (b, answer)):
        assert isinstance(end.link, WebRtcLink) and end.link._callbacks is not None
        end.link._callbacks = (take, *end.link._callbacks[1:])
    a.link.send(Lane.CONTROL, b"question")
    async with asyncio.timeout(10):
        await done.wait()
    assert 2 * CALLS <= len(sent) < 3 * CALLS  # it would be four for each; probes and repeats of a busy machine are among them
    await x.close()
    await y.close()


async def test_what_windows_grew_by_comes_back_when_links_end(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = WindowBudget(64 << 20)
    monkeypatch.setattr(FastPath, "budget", budget)
    x, y, a, b = await opened("fast", "fast")
    for side in (a, b):
        association = path(side).association
        assert association is not None and association._receiver is not None
        association._receiver._resize(8 << 20)
    assert budget.left == 50 << 20
    a.link.close("done")
    await b.ended.wait()
    await x.close()
    await y.close()
    assert budget.left == 64 << 20


async def test_noise_on_the_socket_is_ignored() -> None:
    x, y, a, b = await opened("fast", "fast")
    seam = path(b)._socket
    batch = seam.batched
    assert batch is not None
    pair = seam._pair()
    assert pair is not None
    for noise in (b"\x17\xfe\xfd" + os.urandom(100), b"\x00" * 30, os.urandom(20), b"\xff" * 50, b"\x16" + os.urandom(60)):
        batch._sock.sendto(noise, pair.remote_addr)
    await exchange(a, b)
    await x.close()
    await y.close()


async def test_a_reset_of_a_lane_closes_the_link() -> None:
    x, y, a, b = await opened("fast", "fast")
    association = path(b).association
    assert association is not None
    path(b)._happened(StreamsReset([7]))
    assert not b.closed
    path(b)._happened(StreamsReset([Lane.BULK.value]))
    await asyncio.gather(a.ended.wait(), b.ended.wait())
    await x.close()
    await y.close()
