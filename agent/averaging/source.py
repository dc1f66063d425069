"""Where a trunk comes from: the trainers that the DHT lists, the most advanced first. For newcomers, and for visitors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from agent.averaging.trunk import Trunk
from agent.errors import CallRefused, ProtocolViolation, RemoteError
from agent.identity import PeerId
from agent.net.network import Network
from agent.net.overlay import Overlay
from agent.tensors import TensorSpec, unpack
from agent.wire.connection import Buffer

log = logging.getLogger(__name__)

TRAINERS_NAME = "trainers"
CANDIDATES_MAX = 3
"""How many trainers a newcomer asks for their trunk before it starts from the seed."""
FETCH_TIMEOUT_S = 30.0


class TrainerRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One trainer in the dictionary record `trainers`, subkey its PeerId's text."""

    step: Annotated[int, Meta(ge=0, le=2**53)]


class TrunkMessage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A whole trunk: its layout digest, its step, how many batches it learnt from since its last exchange, its vector."""

    layout: Annotated[bytes, Meta(min_length=32, max_length=32)]
    step: Annotated[int, Meta(ge=0, le=2**53)]
    weight: Annotated[float, Meta(gt=0, le=1e6)]
    vector: TensorSpec


class TrunkSource:
    """Fills `trunk` from others'. It serves nothing and lists nobody."""

    def __init__(self, trunk: Trunk, network: Network, overlay: Overlay) -> None:
        self._trunk = trunk
        self._network = network
        self._overlay = overlay

    async def trainers(self) -> dict[PeerId, int]:
        """The other live trainers and their steps, as the DHT lists them."""
        found: dict[PeerId, int] = {}
        for record in await self._overlay.get(TRAINERS_NAME):
            try:
                step = msgspec.msgpack.decode(record.value, type=TrainerRecord).step
            except (msgspec.DecodeError, RecursionError):
                continue
            if record.owner != self._network.peer_id:
                found[record.owner] = step
        return found

    async def fetch(self, timeout_s: float = FETCH_TIMEOUT_S) -> PeerId | None:
        """Take over the trunk of the most advanced trainer that answers. Returns whose it is, None if there is none."""
        try:
            others = await self.trainers()
        except RemoteError as e:
            log.info("who else trains is not known: %s", e)
            return None
        for peer in sorted(others, key=lambda p: -others[p])[:CANDIDATES_MAX]:
            try:
                reply = await self._network.call(peer, "trunk.fetch", self._trunk.layout, timeout_s=timeout_s)
                message, vector_P = self.decode(reply.header, reply.buffers)
            except RemoteError as e:
                log.info("no trunk from %s: %s", peer.short, e)
                continue
            self._trunk.load(vector_P, message.step)
            return peer
        return None

    def decode(self, header: bytes, buffers: Sequence[Buffer]) -> tuple[TrunkMessage, Tensor]:
        """A trunk message of our layout and its vector [P]. Raises ProtocolViolation, CallRefused."""
        try:
            message = msgspec.msgpack.decode(header, type=TrunkMessage)
        except (msgspec.DecodeError, RecursionError) as e:
            raise ProtocolViolation(f"not a trunk message: {e}") from None
        if message.layout != self._trunk.layout:
            raise CallRefused("other-layout", "that trunk has other parameters than this one")
        if len(buffers) != 1:
            raise ProtocolViolation("a trunk message has exactly one tensor")
        return message, unpack(message.vector, memoryview(buffers[0]), shape=(self._trunk.size,), dtype=torch.float32)
