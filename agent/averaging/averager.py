"""Averaging over the network: lists this trainer in the DHT, and exchanges trunks in pairs."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import msgspec
from torch import Tensor

from agent.averaging.gossip import Exchange, ExchangeEnded, Gossip, GossipConfig, TrainersSeen
from agent.averaging.source import FETCH_TIMEOUT_S, TRAINERS_NAME, TrainerRecord, TrunkMessage, TrunkSource
from agent.averaging.trunk import Trunk
from agent.errors import CallRefused, RemoteError
from agent.identity import PeerId
from agent.net.network import Network, Reply, Request
from agent.net.overlay import Overlay
from agent.tensors import pack

log = logging.getLogger(__name__)

SHARE_MAX = 0.75
"""Largest weight of the other side in one exchange, however many batches it claims to have learnt from."""


class Averager:
    """Keeps one trainer's trunk near the others'. `run` goes on until cancelled."""

    def __init__(self, trunk: Trunk, network: Network, overlay: Overlay, config: GossipConfig, *, rng: random.Random) -> None:
        self._trunk = trunk
        self._source = TrunkSource(trunk, network, overlay)
        self._network = network
        self._overlay = overlay
        self._config = config
        self._gossip = Gossip(config, rng, time.monotonic())
        self._step_at_exchange = trunk.step
        self._exchange_task: asyncio.Task[None] | None = None
        self._served_at: dict[PeerId, float] = {}
        self.exchanges = 0
        self.exchanges_failed = 0
        self.on_exchanged: Callable[[PeerId], None] = lambda peer: None
        network.register("trunk.exchange", self._serve_exchange)
        network.register("trunk.fetch", self._serve_fetch)

    async def trainers(self) -> dict[PeerId, int]:
        """The other live trainers and their steps, as the DHT lists them."""
        return await self._source.trainers()

    async def fetch(self, timeout_s: float = FETCH_TIMEOUT_S) -> bool:
        """Take over the trunk of the most advanced trainer that answers. False if there is none to take over."""
        if await self._source.fetch(timeout_s) is None:
            return False
        self._step_at_exchange = self._trunk.step
        return True

    async def run(self) -> None:
        """List this trainer and average at intervals, until cancelled."""
        try:
            while True:
                try:
                    await self._announce()
                    self._perform(self._gossip.handle(TrainersSeen(frozenset(await self.trainers())), time.monotonic()))
                except RemoteError as e:
                    log.info("averaging waits: %s", e)
                deadline = self._gossip.next_deadline()
                wait = self._config.period_s if deadline is None else deadline - time.monotonic()
                await asyncio.sleep(min(max(wait, 0.2), self._config.period_s))
        finally:
            if self._exchange_task is not None:
                self._exchange_task.cancel()

    async def _announce(self) -> None:
        value = msgspec.msgpack.encode(TrainerRecord(self._trunk.step))
        ttl_s = 3 * self._config.period_s
        await self._overlay.put(TRAINERS_NAME, value, ttl_s=ttl_s, subkey=str(self._network.peer_id))

    def _perform(self, effects: list[Exchange]) -> None:
        for effect in effects:
            self._exchange_task = asyncio.get_running_loop().create_task(self._exchange(effect.peer))

    async def _exchange(self, peer: PeerId) -> None:
        ours, own_P, buffer = self._message()
        try:
            reply = await self._network.call(
                peer, "trunk.exchange", msgspec.msgpack.encode(ours), [buffer], timeout_s=self._config.timeout_s
            )
            theirs, their_P = self._source.decode(reply.header, reply.buffers)
        except RemoteError as e:
            log.info("trunk exchange with %s failed: %s", peer.short, e)
            self.exchanges_failed += 1
            self._perform(self._gossip.handle(ExchangeEnded(peer, ok=False), time.monotonic()))
            return
        self._blend(own_P, ours.weight, their_P, theirs.weight)
        self.exchanges += 1
        self.on_exchanged(peer)
        self._perform(self._gossip.handle(ExchangeEnded(peer, ok=True), time.monotonic()))

    async def _serve_exchange(self, request: Request) -> Reply:
        now = time.monotonic()
        if now - self._served_at.get(request.peer, float("-inf")) < self._config.period_s / 4:
            raise CallRefused("too-soon", f"at most one exchange per {self._config.period_s / 4:.1f} s and peer")
        self._served_at = {p: t for p, t in self._served_at.items() if now - t < self._config.period_s}
        self._served_at[request.peer] = now
        theirs, their_P = self._source.decode(request.header, request.buffers)
        ours, own_P, buffer = self._message()
        self._blend(own_P, ours.weight, their_P, theirs.weight)
        return Reply(msgspec.msgpack.encode(ours), [buffer])

    async def _serve_fetch(self, request: Request) -> Reply:
        if request.header != self._trunk.layout:
            raise CallRefused("other-layout", "this trainer's trunk has other parameters")
        ours, _, buffer = self._message()
        return Reply(msgspec.msgpack.encode(ours), [buffer])

    def _message(self) -> tuple[TrunkMessage, Tensor, memoryview]:
        step = self._trunk.step
        own_P = self._trunk.snapshot().detach()
        spec, buffer = pack(own_P)
        weight = float(max(1, step - self._step_at_exchange))
        return TrunkMessage(self._trunk.layout, step, min(weight, 1e6), spec), own_P, buffer

    def _blend(self, own_P: Tensor, own_weight: float, their_P: Tensor, their_weight: float) -> None:
        """Move by what the weighted mean differs from the vector that was sent, keeping newer local steps."""
        share = min(SHARE_MAX, their_weight / (own_weight + their_weight))
        self._trunk.shift((their_P - own_P) * share)
        self._step_at_exchange = self._trunk.step
