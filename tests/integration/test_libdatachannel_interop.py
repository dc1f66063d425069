"""libdatachannel at the other end of a link: 16 MB each way, byte-exact, whichever side offers.

Its Python wheel makes no negotiated channels, so it opens one in band (RFC 8832): stream 0 as DTLS client, which it is when
we offer, and stream 1 as DTLS server. Those are our two lanes.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import pytest

from agent.net.ice import IceConfig
from agent.net.transport import Lane
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from tests.unit.net.ends import End
from tests.unit.net.sdp import from_sdp, to_sdp

rtc = pytest.importorskip("pylibdatachannel", reason="its wheel exists for Python 3.11 on Linux; see requirements-dev.txt")

TOTAL_BYTES = 16_000_000
MESSAGE_BYTES = 60 * 1024
AHEAD_BYTES = 1 << 20
OPEN_S, WAIT_S = 20, 120


class Native:
    """A libdatachannel connection with one channel; its callbacks come on threads of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._gathered = asyncio.Event()
        self._changed = asyncio.Event()
        self.opened = asyncio.Event()
        self.parts: list[bytes] = []
        self.size = 0
        self.connection = rtc.PeerConnection()
        self.connection.on_gathering_state_change(self._gathering)
        self.channel: Any = None

    def open_channel(self) -> None:
        self.channel = self.connection.create_data_channel("hive")
        self.channel.on_open(lambda: self._call(self.opened.set))
        self.channel.on_message(lambda data: self._call(self._take, data))

    async def description(self) -> str:
        async with asyncio.timeout(OPEN_S):
            await self._gathered.wait()
        return str(self.connection.local_description)

    async def until(self, size: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.size < size:
                self._changed.clear()
                await self._changed.wait()

    def close(self) -> None:
        if self.channel is not None:
            self.channel.reset_callbacks()
        self.connection.reset_callbacks()
        self.connection.close()

    def _call(self, function: Any, *arguments: Any) -> None:
        self._loop.call_soon_threadsafe(function, *arguments)

    def _gathering(self, state: Any) -> None:
        if state == rtc.GatheringState.COMPLETE:
            self._call(self._gathered.set)

    def _take(self, data: bytes) -> None:
        self.parts.append(data)
        self.size += len(data)
        self._changed.set()


async def open_link(transport: WebRtcTransport, native: Native, *, we_offer: bool) -> End:
    if we_offer:
        offered = await transport.offer()
        offer = rtc.Description(to_sdp(offered.description, offer=True), rtc.DescriptionType.OFFER)
        native.connection.set_remote_description(offer)
        native.open_channel()
        return End(await offered.accept(from_sdp(await native.description()), OPEN_S))
    native.open_channel()
    answered = await transport.answer(from_sdp(await native.description()))
    answer = rtc.Description(to_sdp(answered.description, offer=False), rtc.DescriptionType.ANSWER)
    native.connection.set_remote_description(answer)
    return End(await answered.open(OPEN_S))


@pytest.mark.parametrize("we_offer", [True, False])
async def test_sixteen_megabytes_to_libdatachannel_and_back(we_offer: bool) -> None:
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path="fast"))
    native = Native()
    try:
        end = await open_link(transport, native, we_offer=we_offer)
        async with asyncio.timeout(OPEN_S):
            await native.opened.wait()
        lane = Lane.CONTROL if we_offer else Lane.BULK
        data = random.Random(1).randbytes(TOTAL_BYTES)
        digest = hashlib.sha256(data).digest()
        pieces = [data[at : at + MESSAGE_BYTES] for at in range(0, len(data), MESSAGE_BYTES)]
        for piece in pieces:
            end.link.send(lane, piece)
            await end.until(lambda: end.link.buffered() <= AHEAD_BYTES, WAIT_S)
        await native.until(TOTAL_BYTES)
        assert hashlib.sha256(b"".join(native.parts)).digest() == digest, "what libdatachannel got"
        for piece in pieces:
            await asyncio.to_thread(native.channel.send, piece)
        await end.until(lambda: sum(len(part) for _, part in end.messages) >= TOTAL_BYTES, WAIT_S)
        assert hashlib.sha256(b"".join(part for _, part in end.messages)).digest() == digest, "what came back"
        assert {at for at, _ in end.messages} == {lane}
    finally:
        native.close()
        await transport.close()
