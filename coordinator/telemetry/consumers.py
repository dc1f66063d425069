"""The telemetry WebSocket: agents send batches, and hear which of them are stored."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from agent.reports import ITEM_BYTES_MAX, Ack, Batch, encode
from coordinator.limits import TokenBucket
from coordinator.sockets import MALFORMED, NOT_STORED, REPLACED, TOO_FAST, TOO_LARGE, AgentSocket
from coordinator.telemetry.intake import Intake, IntakeConfig, Submission
from coordinator.telemetry.store import open_session, store

_Batch = msgspec.json.Decoder(Batch)
ITEMS_PER_S, ITEMS_BURST = 100.0, 20_000.0
"""The burst lets an agent send what it buffered while the coordinator was away."""


def live_group(experiment: str) -> str:
    """The group that hears that an experiment has news."""
    return f"live.{experiment}"


async def tell_viewers(experiments: set[str]) -> None:
    """Wake whoever shows these experiments, in any process."""
    layer = get_channel_layer()
    assert layer is not None
    for name in experiments:
        await layer.group_send(live_group(name), {"type": "live.changed"})


intake = Intake(IntakeConfig(), store, tell_viewers)


class TelemetryConsumer(AgentSocket):
    """One agent's reports. A newer connection of the same session replaces this one."""

    messages_per_s = 20.0
    messages_burst = 600.0
    outcome: int | None = None
    failed = False

    async def opened(self) -> None:
        self.session_id = await database_sync_to_async(open_session)(self.experiment, self.hello, time.time())
        self.items = TokenBucket(per_s=ITEMS_PER_S, burst=ITEMS_BURST, now=time.monotonic())
        self.settled = asyncio.Event()
        self.group = f"session.{self.session_id}"
        await self.channel_layer.group_send(self.group, {"type": "session.replaced"})
        await self.channel_layer.group_add(self.group, self.channel_name)

    async def ready(self) -> None:
        self.acknowledger = asyncio.create_task(self._acknowledge())

    async def closed(self) -> None:
        self.acknowledger.cancel()
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def received(self, message: bytes) -> None:
        try:
            batch = _Batch.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            return await self.end(MALFORMED, str(e))
        if len(batch.items) > 1 and len(message) > ITEM_BYTES_MAX and any(len(encode(i)) > ITEM_BYTES_MAX for i in batch.items):
            return await self.end(TOO_LARGE, f"an item has at most {ITEM_BYTES_MAX} bytes")
        if not self.items.take(time.monotonic(), len(batch.items)):
            return await self.end(TOO_FAST, f"at most {ITEMS_PER_S:.0f} items a second")
        if not batch.items:
            return
        last = max(item.sequence for item in batch.items)
        await intake.put(
            Submission(
                session_id=self.session_id,
                experiment=self.experiment.name,
                items=batch.items,
                received_at=time.time(),
                settle=lambda stored: self._settle(last if stored else None),
            )
        )

    def _settle(self, sequence: int | None) -> None:
        """Note what is to be told. Only the newest matters, so nothing piles up behind an agent that does not read.

        After a failure (None) nothing is acknowledged any more: an acknowledgement covers all that came before it.
        """
        if not self.failed:
            self.outcome, self.failed = sequence, sequence is None
        self.settled.set()

    async def _acknowledge(self) -> None:
        while not self.ended:
            await self.settled.wait()
            self.settled.clear()
            if self.failed:
                await self.end(NOT_STORED, "the coordinator could not store this; connect again and send it again")
            elif self.outcome is not None:
                await self.send_json(encode(Ack(sequence=self.outcome)))

    async def session_replaced(self, _: dict[str, Any]) -> None:
        await self.end(REPLACED, "a newer connection of the same session took over")
