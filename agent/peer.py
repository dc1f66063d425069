"""One agent, put together: the only place that knows all parts and wires them.

Life: connect (network, overlay, first contact), host (experts under leases), train, and report once a second, until told to
leave. `drain` leaves in good order: batches in flight end, leases are given up, links are closed; `stop` leaves at once.
Everything that is opened goes onto one exit stack, so that it is closed in the opposite order however this agent ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine

from agent.connecting import Connected, Membership, connect
from agent.experts.backend import expert_factory
from agent.experts.custodian import Custodian
from agent.experts.directory import Directory, DirectoryConfig
from agent.experts.server import ExpertConfig, ExpertServer
from agent.manifest import Manifest
from agent.reporter import Parts, Reporter, Stage
from agent.reports import Report
from agent.revisions import Revisions, news
from agent.telemetry import LocalRecord, Telemetry
from agent.training import Surroundings, Training, load_data
from agent.twins import Twins

log = logging.getLogger(__name__)

REPORT_PERIOD_S = 1.0
READY_PERIOD_S = 0.5
"""How often it is looked whether enough experts are alive to train."""


class Peer:
    """See the module. `run` once."""

    def __init__(self, who: Membership, *, experts_max: int, first_step: int = 0) -> None:
        """`experts_max`: how many experts this machine can host. `first_step`: the first batch to draw.

        Raises StorageError if the state directory cannot be written, ConfigError if the text cannot be had.
        """
        self._who = who
        self._experts_max = experts_max
        self._first_step = first_step
        self._data = load_data(who.manifest, who.config.data) if self._has_role("trainer") else None
        self._telemetry = Telemetry(who.identity.peer_id, LocalRecord(who.config.experiment_dir), units=self.units)
        self._parts = Parts(grids=who.manifest.model.grids())
        self._reporter = Reporter(self._telemetry, self._parts)
        self._rng = random.SystemRandom()  # tokens of searches must not be foreseen
        self._revisions = Revisions(who.manifest, self._newest_manifest, rng=self._rng)
        self._revisions.on_news = self._on_news
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stage: Stage = "starting"
        self._why = ""

    @property
    def latest(self) -> Report | None:
        """The latest report, None before the first."""
        return self._telemetry.latest

    @property
    def units(self) -> str:
        """What its model learns from, in the plural: tokens, images."""
        return self._who.manifest.model.units

    def drain(self) -> None:
        """Begin to leave in good order; `run` then returns. Calling it again changes nothing."""
        self._leaving.set()

    def stop(self) -> None:
        """Leave at once: `run` returns as soon as files and sockets are closed."""
        if self._parts.training is not None:
            self._parts.training.halt()
        if self._task is not None and not self._task.done():
            self._enter("draining", "stopping at once")
            self._task.cancel()

    async def run(self) -> None:
        """Take part until drained or stopped. Raises HiveError for what ends this agent."""
        self._task = asyncio.get_running_loop().create_task(self._live(), name="peer")
        await asyncio.wait({self._task})
        self._telemetry.close()
        if not self._task.cancelled():
            self._task.result()

    async def _live(self) -> None:
        self._reporting = asyncio.get_running_loop().create_task(self._report(), name="reports")
        try:
            async with contextlib.AsyncExitStack() as stack:
                await self._take_part(stack)
        finally:
            self._say_goodbye()
            await asyncio.wait({self._reporting})

    def _say_goodbye(self) -> None:
        """The last word, once; while the coordinator is connected, so that it need not guess from silence."""
        self._reporting.cancel()
        if self._stage != "stopped":
            self._telemetry.event("left")
            self._enter("stopped")

    async def _take_part(self, stack: contextlib.AsyncExitStack) -> None:
        """Everything from the first socket to the wish to leave."""
        connected = await connect(stack, self._who, self._telemetry, rng=self._rng)
        stack.callback(self._say_goodbye)  # after the work has ended, before the sockets that `connect` opened close
        self._parts.network = connected.network
        self._parts.coordinator_bytes = connected.coordinator_bytes
        connected.network.add_listener(
            lambda peer: self._telemetry.event("connected", peer=peer.short),
            lambda peer, reason: self._telemetry.event("disconnected", peer=peer.short, reason=reason[:200]),
        )
        self._enter("joining", "looking for a first peer")
        work = [self._join_and_work(stack, connected), connected.keep_company(), connected.keep_addresses()]
        work.append(self._revisions.run(lambda: connected.rendezvous.connected))
        work.append(self._who.credentials.keep(connected.network.present))
        work.append(self._watch_for_twins(lambda: connected.rendezvous.replaced))
        await self._until_leaving(work)

    async def _join_and_work(self, stack: contextlib.AsyncExitStack, connected: Connected) -> None:
        connected.first_contact.on_why = lambda why: self._enter("joining", why)
        contacts = await connected.join()
        self._telemetry.event("joined", contacts=contacts, founded=contacts == 0)
        directory, server, custodian = await self._open_hosting(stack, connected)
        work = [directory.run(), custodian.run()]
        if self._data is not None:
            around = Surroundings(
                network=connected.network, overlay=connected.overlay, directory=directory, server=server, rng=self._rng
            )
            training = Training(self._who.manifest, self._data, around, first_step=self._first_step)
            stack.push_async_callback(training.stop)
            self._parts.training = training
            work.append(self._train(training, directory))
        else:
            work.append(self._only_host())
        async with asyncio.TaskGroup() as group:
            for job in work:
                group.create_task(job)

    async def _open_hosting(
        self, stack: contextlib.AsyncExitStack, connected: Connected
    ) -> tuple[Directory, ExpertServer, Custodian]:
        """The directory is needed to train too; an agent without the host role keeps a server with no experts."""
        manifest = self._who.manifest
        server = ExpertServer(ExpertConfig.of(manifest, torch_threads=self._who.config.threads), expert_factory(manifest))
        server.register(connected.network)
        stack.push_async_callback(server.close)
        directory = Directory(connected.overlay, self._parts.grids, DirectoryConfig(lease_s=manifest.rules.lease_s))
        capacity = self._experts_max if self._has_role("host") else 0
        custodian = Custodian(connected.overlay, server, manifest, capacity=capacity, directory=directory)
        custodian.on_claimed = lambda uid, epoch: self._telemetry.event("expert-claimed", uid=str(uid), epoch=epoch)
        custodian.on_lost = lambda uid, reason: self._telemetry.event("expert-lost", uid=str(uid), reason=reason)
        stack.push_async_callback(custodian.release)
        self._parts.directory, self._parts.server = directory, server
        self._parts.leases = custodian.held
        return directory, server, custodian

    async def _train(self, training: Training, directory: Directory) -> None:
        self._enter("waiting", "fetching the trunk from other trainers")
        taken_over = await training.start()
        self._telemetry.event("trunk", taken_over=taken_over, step=training.trunk.step, parameters=training.trunk.size)
        training.on_exchanged(lambda peer: self._telemetry.event("averaged", peer=peer.short))
        training.on_sample = lambda sample: self._telemetry.event(
            "sample", step=training.trunk.step, prompt=sample.prompt, text=sample.text
        )
        while True:
            held = self._revisions.held
            short_of = training.admit(directory.alive(), held)
            self._enter("paused" if held else "waiting" if short_of else "training", short_of)
            training.check()
            await asyncio.sleep(READY_PERIOD_S)

    async def _only_host(self) -> None:
        while True:
            held = self._revisions.held
            self._enter("paused" if held else "hosting", held)
            await asyncio.sleep(READY_PERIOD_S)

    async def _watch_for_twins(self, replaced: Callable[[], int]) -> None:
        """Raises IdentityError if another agent runs with our key and we are the younger one."""
        loop = asyncio.get_running_loop()
        twins = Twins(self._who.identity.peer_id, began=loop.time())
        while True:
            if warning := twins.judge(replaced(), loop.time()):
                self._telemetry.event("error", why=warning)
            await asyncio.sleep(READY_PERIOD_S)

    async def _newest_manifest(self) -> Manifest:
        config = self._who.config
        fetched = await self._who.coordinator.manifest(config.experiment, pinned_key=config.coordinator_key)
        return fetched.manifest

    def _on_news(self, manifest: Manifest) -> None:
        self._telemetry.event("revision", **news(self._who.manifest, manifest))
        credentials, network = self._who.credentials, self._parts.network
        if credentials.follow(manifest.admission) and network is not None:
            network.judge_by(credentials.rule)
        if self._revisions.finished:
            self.drain()

    async def _until_leaving(self, work: list[Coroutine[None, None, None]]) -> None:
        """Do all of `work` until told to leave. What ends any of it early is raised."""
        tasks = [asyncio.get_running_loop().create_task(job) for job in work]
        leaving = asyncio.get_running_loop().create_task(self._leaving.wait())
        try:
            done, _ = await asyncio.wait({*tasks, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {leaving}:
                task.result()
            self._enter("draining", "finishing the batches in flight, giving up leases")
        except* Exception as group:  # a TaskGroup's wrapping says nothing to a person
            raise _first(group) from group
        finally:
            for task in (*tasks, leaving):
                task.cancel()
            await asyncio.wait({*tasks, leaving})

    async def _report(self) -> None:
        while True:
            self._reporter.report(self._stage, self._why)
            await asyncio.sleep(REPORT_PERIOD_S)

    def _enter(self, stage: Stage, why: str = "") -> None:
        if (stage, why) != (self._stage, self._why):
            self._stage, self._why = stage, why
            if stage in ("draining", "stopped"):
                self._reporter.report(stage, why)

    def _has_role(self, role: str) -> bool:
        return self._who.config.role is None or role in self._who.config.role


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
