"""Telemetry to the coordinator over a WebSocket: batched, acknowledged, sent again after a reconnect, never in the way."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.errors import ConfigError
from agent.net.coordinator_socket import Badge, CoordinatorSocket, Patience
from agent.net.telemetry_buffer import BufferConfig, TelemetryBuffer
from agent.reports import Ack, Item

logger = logging.getLogger(__name__)

UNREADABLE = (4400, 4413)
"""Close codes with which the coordinator says that it will never take a batch."""

_Acks = msgspec.json.Decoder(Ack)


@dataclass(frozen=True, kw_only=True)
class TelemetryConfig:
    """How telemetry is sent."""

    buffer: BufferConfig = field(default_factory=BufferConfig)
    period_s: float = 0.5
    """How long items wait for company."""
    farewell_s: float = 2.0
    """How long `close` waits for what is left to be acknowledged, if the coordinator is connected."""

    def __post_init__(self) -> None:
        if self.period_s < 0 or self.farewell_s < 0:
            raise ConfigError("the telemetry times must not be negative")


class TelemetrySocket:
    """A `telemetry.Sink`. `url` is the coordinator's; `badge.session` must be that of the items."""

    def __init__(self, url: str, badge: Badge, patience: Patience, config: TelemetryConfig | None = None) -> None:
        self.socket = CoordinatorSocket(url, f"/ws/telemetry/{badge.experiment}/", badge, patience, self._serve)
        self._config = config or TelemetryConfig()
        self._buffer = TelemetryBuffer(self._config.buffer)
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    def start(self) -> None:
        self.socket.start()

    async def close(self) -> None:
        """Send what is left, briefly, and close; idempotent."""
        if self.socket.connected and len(self._buffer):
            try:
                async with asyncio.timeout(self._config.farewell_s):
                    await self._settled.wait()
            except TimeoutError:
                logger.info("%d telemetry items were not acknowledged", len(self._buffer))
        await self.socket.close()

    async def abandon(self) -> None:
        """Close at once; idempotent."""
        await self.socket.close()

    async def settled(self) -> None:
        """Wait until everything that was submitted is acknowledged, or given up because the coordinator cannot read it."""
        await self._settled.wait()

    def unsent(self) -> list[bytes]:
        """What is not acknowledged, an encoded item each, in order."""
        return self._buffer.kept()

    def outline(self) -> list[bytes]:
        """What counts most of that: see TelemetryBuffer."""
        return self._buffer.outline()

    def submit(self, item: Item) -> None:
        """Take one item; never blocks and never raises. Sequences ascend."""
        self._buffer.add(item)
        self._settled.clear()
        self._news.set()

    @property
    def connected(self) -> bool:
        return self.socket.connected

    @property
    def unacknowledged(self) -> int:
        """Items that the coordinator has not stored yet."""
        return len(self._buffer)

    @property
    def dropped(self) -> int:
        """Items lost for want of room."""
        return self._buffer.dropped

    @property
    def bytes_total(self) -> int:
        """Both ways."""
        return self.socket.bytes_sent + self.socket.bytes_received

    async def _serve(self, connection: ClientConnection) -> None:
        if self.socket.refused_code in UNREADABLE:
            logger.warning("the coordinator cannot read a telemetry batch; it is given up")
            self._buffer.refused()
            self._settle()
        self._buffer.rewind()
        self._news.set()
        sender = asyncio.get_running_loop().create_task(self._send(connection))
        try:
            async for message in connection:
                self.socket.bytes_received += len(message)
                self._buffer.acknowledge(_Acks.decode(message).sequence)
                self._settle()
                self._news.set()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            logger.warning("the coordinator's acknowledgement cannot be read: %s", e)
        finally:
            sender.cancel()
            await asyncio.wait({sender})

    def _settle(self) -> None:
        if not len(self._buffer):
            self._settled.set()

    async def _send(self, connection: ClientConnection) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while (batch := self._buffer.batch()) is not None:
                    await self.socket.send(connection, batch)
                await asyncio.sleep(self._config.period_s)
        except ConnectionClosed:
            return
