"""Copies of experts' weights from whoever hosts them, for those who take a model home."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from agent.errors import HiveError, ProtocolViolation, RemoteError
from agent.experts import messages
from agent.experts.directory import Located
from agent.experts.modules import make_module
from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.manifest import Manifest
from agent.net.network import Network

log = logging.getLogger(__name__)

FETCHES_AT_ONCE = 8
ATTEMPTS = 2
TIMEOUT_S = 30.0
"""For one expert, whose weights are one message."""
WEIGHTS = "weights/"


class Finder(Protocol):
    """What is needed of `experts.directory.Directory`."""

    @property
    def is_whole(self) -> bool: ...
    def locate(self, uid: ExpertId) -> Located | None: ...
    async def explore(self, prefixes: Sequence[str]) -> None: ...


@dataclass(frozen=True, eq=False)
class Fetched:
    """An expert's weights by the names of its module, after `version` optimizer steps."""

    version: int
    weights: Mapping[str, Tensor]


async def fetch_experts(
    manifest: Manifest, network: Network, directory: Finder, wanted: Sequence[ExpertId]
) -> tuple[dict[ExpertId, Fetched], dict[ExpertId, str]]:
    """Copies of `wanted`, each as it is at some moment while this runs; and why the others could not be had, in a few words."""
    room = asyncio.Semaphore(FETCHES_AT_ONCE)
    found: dict[ExpertId, Fetched] = {}
    missing: dict[ExpertId, str] = {}

    async def one(uid: ExpertId) -> None:
        async with room:
            for _ in range(ATTEMPTS):
                try:
                    found[uid] = await _fetch(manifest, network, directory, uid)
                except RemoteError as e:
                    missing.setdefault(uid, str(e))  # what was wrong at first says more
                    log.info("no weights of %s: %s", uid, e)
                else:
                    missing.pop(uid, None)
                    return

    async with asyncio.TaskGroup() as group:
        for uid in wanted:
            group.create_task(one(uid))
    return {uid: found[uid] for uid in wanted if uid in found}, {uid: missing[uid] for uid in wanted if uid in missing}


async def _fetch(manifest: Manifest, network: Network, directory: Finder, uid: ExpertId) -> Fetched:
    """Raises RemoteError."""
    located = await _locate(directory, uid)
    if located is None:
        raise RemoteError("nobody hosts it now")
    header = messages.encode(messages.WeightsRequest(str(uid)))
    reply = await network.call(located.host, messages.WEIGHTS, header, timeout_s=TIMEOUT_S)
    state = ExpertState.decode(reply.header, reply.buffers)
    expected = {name: tuple(p.shape) for name, p in make_module(manifest, uid).named_parameters()}
    given = {name.removeprefix(WEIGHTS): tensor for name, tensor in state.tensors.items() if name.startswith(WEIGHTS)}
    if {name: tuple(t.shape) for name, t in given.items()} != expected or len(given) != len(state.tensors):
        raise ProtocolViolation("its host gave something else than such an expert's weights")
    return Fetched(state.version, {name: tensor.clone() for name, tensor in given.items()})


async def _locate(directory: Finder, uid: ExpertId) -> Located | None:
    """In a large grid only what was asked for is known."""
    if (located := directory.locate(uid)) is None and not directory.is_whole:
        try:
            await directory.explore([uid.prefixes[-1][0]])
        except HiveError as e:
            log.info("where %s is could not be read: %s", uid, e)
        located = directory.locate(uid)
    return located
