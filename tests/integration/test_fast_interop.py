"""16 MB in 60 KiB messages, byte-exact, between our SCTP and aiortc's, whichever offers."""

from __future__ import annotations

import hashlib
import os
import random

import pytest

from agent.net.ice import IceConfig
from agent.net.transport import Lane
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from tests.unit.net.ends import End, open_pair

TOTAL_BYTES = 16 << 20
MESSAGE_BYTES = 60 * 1024
AHEAD_BYTES = 2 << 20


async def pour(source: End, target: End, messages: list[bytes]) -> None:
    """Send all, never far ahead."""
    for data in messages:
        source.link.send(Lane.BULK, data)
        while source.link.buffered() > AHEAD_BYTES:
            count = len(target.messages)
            await target.count(count + 1)


@pytest.mark.parametrize(("one", "other"), [("stock", "fast"), ("fast", "stock"), ("fast", "fast")])
@pytest.mark.parametrize("offerer_sends", [True, False])
async def test_sixteen_megabytes(one: str, other: str, offerer_sends: bool) -> None:
    transports = [
        WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path=kind))  # type: ignore[arg-type]
        for kind in (one, other)
    ]
    ends = await open_pair(*transports)
    source, target = ends if offerer_sends else reversed(ends)
    rng = random.Random(1)
    messages = [rng.randbytes(MESSAGE_BYTES) for _ in range(TOTAL_BYTES // MESSAGE_BYTES)] + [os.urandom(1)]
    await pour(source, target, messages)
    await target.count(len(messages))
    assert hashlib.sha256(b"".join(data for _, data in target.messages)).digest() == hashlib.sha256(b"".join(messages)).digest()
    assert all(lane is Lane.BULK for lane, _ in target.messages)
    await source.drained()
    for transport in transports:
        await transport.close()
