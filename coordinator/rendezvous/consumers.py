"""The rendezvous WebSocket: passes sealed offers and answers between peers that wait there for first contact.

Messages are JSON, see docs/contracts.md. It cannot read the bodies, and keeps none of them.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Annotated, Any, Literal

import msgspec
from channels.db import database_sync_to_async
from channels.exceptions import ChannelFull
from django.db import Error as DatabaseProblem
from msgspec import Meta

from agent.reports import PeerText
from coordinator.rendezvous import actions
from coordinator.sockets import MALFORMED, REPLACED, AgentSocket

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 8 * 1024
COALESCE_S = 0.3
"""Changes of who waits are told at most this often."""


class Announce(msgspec.Struct, tag="announce", tag_field="type", forbid_unknown_fields=True):
    """Agent to coordinator: a bootstrap peer's own address."""

    address: Annotated[str, Meta(max_length=actions.ADDRESS_CHARS_MAX)]


class Send(msgspec.Struct, tag="send", tag_field="type", forbid_unknown_fields=True):
    """Agent to coordinator: pass `body` (sealed, base64) to a peer that waits. An answer repeats the exchange's id."""

    to: PeerText
    exchange: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    body: Annotated[bytes, Meta(max_length=BODY_BYTES_MAX)]


class Waiting(msgspec.Struct, tag="waiting", tag_field="type"):
    peers: list[str]


class Message(msgspec.Struct, tag="message", tag_field="type"):
    from_: str = msgspec.field(name="from")
    exchange: str
    body: bytes


class Gone(msgspec.Struct, tag="gone", tag_field="type"):
    to: str
    exchange: str


_FromAgent = msgspec.json.Decoder(Announce | Send)


class RendezvousConsumer(AgentSocket):
    """One waiting peer."""

    messages_per_s = 20.0
    messages_burst = 120.0

    async def opened(self) -> None:
        self.group = f"rendezvous.{self.experiment.name}"
        self.rng = random.Random()
        self.told: list[str] | None = None
        self.changed = asyncio.Event()
        former = await database_sync_to_async(actions.wait)(self.experiment, self.hello.peer, self.channel_name, time.time())
        if former:
            await self._pass(former, {"type": "rendezvous.replaced"})
        await self.channel_layer.group_add(self.group, self.channel_name)

    async def ready(self) -> None:
        await self._tell()
        self.teller: asyncio.Task[Literal[None]] = asyncio.create_task(self._keep_telling())
        await self.channel_layer.group_send(self.group, {"type": "rendezvous.changed"})

    async def closed(self) -> None:
        if hasattr(self, "teller"):
            self.teller.cancel()
        await self.channel_layer.group_discard(self.group, self.channel_name)
        await database_sync_to_async(actions.leave)(self.experiment, self.hello.peer, self.channel_name)
        await self.channel_layer.group_send(self.group, {"type": "rendezvous.changed"})

    async def received(self, message: bytes) -> None:
        try:
            command = _FromAgent.decode(message)
            if isinstance(command, Announce):
                announce = database_sync_to_async(actions.announce)
                await announce(self.experiment, self.hello.peer, command.address, time.time())
                return
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as e:
            return await self.end(MALFORMED, str(e))
        channel = await database_sync_to_async(actions.channel_of)(self.experiment, command.to, time.time())
        body = msgspec.json.encode(Message(from_=self.hello.peer, exchange=command.exchange, body=command.body))
        if channel is None or not await self._pass(channel, {"type": "rendezvous.message", "body": body.decode()}):
            await self.send_json(msgspec.json.encode(Gone(to=command.to, exchange=command.exchange)))

    async def rendezvous_message(self, message: dict[str, Any]) -> None:
        await self.send_json(message["body"].encode())

    async def rendezvous_changed(self, _: dict[str, Any]) -> None:
        self.changed.set()

    async def rendezvous_replaced(self, _: dict[str, Any]) -> None:
        await self.end(REPLACED, "a newer connection of the same peer took over")

    async def _pass(self, channel: str, message: dict[str, Any]) -> bool:
        try:
            await self.channel_layer.send(channel, message)
        except ChannelFull:
            return False
        return True

    async def _keep_telling(self) -> None:
        """Tell who waits when it changed, coalesced; renew our own entry meanwhile."""
        renewed = time.monotonic()
        while not self.ended:
            try:
                await asyncio.wait_for(self.changed.wait(), actions.RENEW_S)
                await asyncio.sleep(COALESCE_S)
                self.changed.clear()
                await self._tell()
            except TimeoutError:
                pass
            except DatabaseProblem:
                log.exception("could not read who waits in %s", self.experiment.name)
            if time.monotonic() - renewed >= actions.RENEW_S:
                renewed = time.monotonic()
                await self._renew()

    async def _renew(self) -> None:
        try:
            renew = database_sync_to_async(actions.renew)
            await renew(self.experiment, self.hello.peer, self.channel_name, time.time())
        except DatabaseProblem:
            log.exception("could not renew a waiting peer of %s", self.experiment.name)

    async def _tell(self) -> None:
        peers = await database_sync_to_async(actions.waiting_peers)(self.experiment, time.time())
        chosen = actions.sample(peers, self.hello.peer, self.rng)
        if chosen != self.told:
            self.told = chosen
            await self.send_json(msgspec.json.encode(Waiting(peers=chosen)))
