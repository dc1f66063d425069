"""A visit: joining an experiment's overlay to use its model. A visitor hosts nothing, trains nothing, and reports nothing.

While it is there it is a peer of the overlay like any other: it passes on requests, and may be given records to keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.averaging.source import TrunkSource
from agent.averaging.trunk import Trunk, TrunkConfig
from agent.connecting import Membership, connect
from agent.errors import HiveError, ModelUnavailable
from agent.experts.directory import Directory, DirectoryConfig
from agent.identity import PeerId
from agent.manifest import Manifest
from agent.moe.build import build_model
from agent.moe.remote import RemoteConfig, RemoteExperts
from agent.moe.tally import Tally
from agent.net.network import Network
from agent.scoring import Model, bound
from agent.training import short_of

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long a visitor that is in looks for a trainer, and then for enough live experts: a crowd may be just beginning."""
LOOK_PERIOD_S = 0.5
HOSTS_MET_MAX = 64
MEET_S = 10.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What a visitor has in hand."""

    manifest: Manifest
    network: Network
    directory: Directory
    trunk: Trunk
    """A copy of `trainer`'s, as it was at `trunk.step`."""
    trainer: PeerId
    tally: Tally

    def model(self) -> Model:
        """The crowd's: the trunk here, the experts where they are. It blocks; for one thread, not the event loop's."""
        parameters = self.trunk.views(self.trunk.snapshot().detach())
        return bound(build_model(self.manifest, self.tally), parameters)


@contextlib.asynccontextmanager
async def visit(who: Membership, say: Callable[[str], None]) -> AsyncIterator[Visit]:
    """Join, fetch the trunk, learn where the experts are; leave at the end. `say` is told what is waited for.

    Raises JoinError if no peer can be reached, ModelUnavailable if those that can be have no model.
    """
    manifest = who.manifest
    async with contextlib.AsyncExitStack() as stack:
        connected = await connect(stack, who, None, rng=random.SystemRandom())
        connected.first_contact.on_why = say
        say(f"looking for a first peer of {manifest.name}")
        if not await connected.join():
            raise ModelUnavailable(
                f"nobody takes part in {manifest.name} now, so nobody has its model. "
                f"Agents that train keep it: hive-agent join {manifest.name}"
            )
        directory = Directory(connected.overlay, manifest.model.grids(), DirectoryConfig(lease_s=manifest.rules.lease_s))
        tally = Tally(
            RemoteExperts(
                connected.network.call,
                directory,
                loop=asyncio.get_running_loop(),
                peer_id=connected.network.peer_id,
                config=RemoteConfig.of(manifest),
            )
        )
        say("fetching the trunk from a trainer")
        trunk = Trunk(dict(build_model(manifest, tally).named_parameters()), TrunkConfig())
        trainer = await _fetch(TrunkSource(trunk, connected.network, connected.overlay), manifest.name)
        await _until_alive(manifest, directory, say)
        for job in (directory.run(), connected.keep_company(), connected.keep_addresses()):
            stack.push_async_callback(_end, asyncio.create_task(job))
        await _meet_hosts(manifest, connected.network, directory)
        yield Visit(
            manifest=manifest,
            network=connected.network,
            directory=directory,
            trunk=trunk,
            trainer=trainer,
            tally=tally,
        )


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run `work(keep_going)` beside the event loop. If this is cancelled, `keep_going()` is false from then on."""
    over = threading.Event()
    try:
        return await asyncio.to_thread(work, lambda: not over.is_set())
    finally:
        over.set()


async def _fetch(source: TrunkSource, experiment: str) -> PeerId:
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE_S
    while True:
        trainer = await source.fetch()
        if trainer is not None:
            return trainer
        if loop.time() > until:
            raise ModelUnavailable(
                f"no trainer of {experiment} gave its trunk: try again when somebody trains (its page shows who does)"
            )
        await asyncio.sleep(LOOK_PERIOD_S)


async def _until_alive(manifest: Manifest, directory: Directory, say: Callable[[str], None]) -> None:
    """Until all experts are known to be live, or reading the leases again shows no more of them and they are enough."""
    loop = asyncio.get_running_loop()
    until, said, before = loop.time() + PATIENCE_S, "", -1
    total = sum(map(len, manifest.model.grids()))
    while True:
        try:
            await directory.refresh()
        except HiveError as e:
            log.info("the leases of experts could not be read: %s", e)
        short, alive = short_of(manifest, directory.alive()), len(directory.alive())
        if alive == total or (alive == before and not short):
            return
        if short and short != said:
            say(short)
            said = short
        if loop.time() > until:
            if not short:
                return
            raise ModelUnavailable(f"{manifest.name} cannot be run now: {short.removesuffix(': waiting for hosts')}")
        before = alive
        await asyncio.sleep(LOOK_PERIOD_S)


async def _meet_hosts(manifest: Manifest, network: Network, directory: Directory) -> None:
    """Connect to them now: a first call that has to do that as well may come too late, and its expert be taken for dead."""
    located = [directory.locate(uid) for uid in sorted(directory.alive())]
    hosts = list(dict.fromkeys(there.host for there in located if there is not None))[:HOSTS_MET_MAX]
    results = await asyncio.gather(*(network.connect(host, timeout_s=MEET_S) for host in hosts), return_exceptions=True)
    for host, result in zip(hosts, results, strict=True):
        if isinstance(result, HiveError):
            log.info("host %s of %s is not reachable: %s", host.short, manifest.name, result)
        elif isinstance(result, BaseException):
            raise result


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
