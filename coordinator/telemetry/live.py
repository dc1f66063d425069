"""The live stream to browsers: at most one tick per experiment and half second, built once per process for all who watch."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.db import Error as DatabaseProblem

from coordinator.experiments.models import Experiment
from coordinator.limits import Places, client_key
from coordinator.sockets import TOO_FAST, deny
from coordinator.telemetry import queries, shapes
from coordinator.telemetry.consumers import live_group

log = logging.getLogger(__name__)

TICK_S = 0.5
IDLE_S = 2.0
"""Without news a tick comes this often: roll-ups land, peers fall silent, experts go stale."""
EVENTS_PER_TICK = 60
OVERLAP_S = 2.0
VIEWERS_MAX = 1000
"""Per process."""
VIEWERS_EACH_MAX = 200
"""Of one address: a school behind one router."""
VIEWER_BACKLOG_MAX = 4
"""Ticks that a slow viewer may be behind; it then misses some, and the next one is complete anyway."""


def build_tick(experiment_id: int, since: float, now: float) -> shapes.Tick | None:
    """Everything that a page shows of an experiment, with the points that changed after `since`. None if it is gone."""
    experiment = Experiment.objects.visible_to().filter(pk=experiment_id).first()
    if experiment is None:
        return None
    return shapes.Tick(
        at=now,
        summary=queries.summary(experiment, now),
        peers=queries.peers(experiment, now),
        experts=queries.experts(experiment, now),
        events=queries.events(experiment, limit=EVENTS_PER_TICK),
        series=queries.changed_series(experiment, since),
    )


def _as_text(experiment_id: int, since: float, now: float) -> str | None:
    tick = build_tick(experiment_id, since, now)
    return tick.model_dump_json() if tick else None


_build = database_sync_to_async(_as_text, thread_sensitive=False, executor=ThreadPoolExecutor(1, "live"))
"""On a thread of its own: watching does not wait while reports are stored or pages are made."""


class Feed:
    """Ticks of one experiment for all viewers of this process. Runs while there are any."""

    feeds: ClassVar[dict[int, Feed]] = {}

    def __init__(self, experiment_id: int) -> None:
        self.experiment_id = experiment_id
        self.viewers: set[asyncio.Queue[str | None]] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, experiment_id: int) -> Feed:
        return cls.feeds.setdefault(experiment_id, cls(experiment_id))

    def watch(self) -> asyncio.Queue[str | None]:
        """A queue of ticks (JSON); None ends it. Give it back with `leave`."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(VIEWER_BACKLOG_MAX)
        self.viewers.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        self.poke()
        return queue

    def leave(self, queue: asyncio.Queue[str | None]) -> None:
        self.viewers.discard(queue)
        if not self.viewers:
            if self._task is not None:
                self._task.cancel()
            self.feeds.pop(self.experiment_id, None)

    def poke(self) -> None:
        """There is news."""
        self._news.set()

    async def _run(self) -> None:
        since = time.time() - 10
        while self.viewers:
            try:
                await asyncio.wait_for(self._news.wait(), IDLE_S)
            except TimeoutError:
                pass
            self._news.clear()
            began = time.time()
            try:
                tick = await _build(self.experiment_id, since - OVERLAP_S, began)
            except DatabaseProblem:
                log.exception("could not read experiment %d", self.experiment_id)
            else:
                since = began
                self._tell(tick)
            await asyncio.sleep(TICK_S)

    def _tell(self, text: str | None) -> None:
        for queue in self.viewers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)


class LiveConsumer(AsyncConsumer):
    """One browser that watches one experiment. It only listens."""

    places: ClassVar[Places] = Places(total_max=VIEWERS_MAX, each_max=VIEWERS_EACH_MAX)
    address: str | None = None
    """Whose place this holds."""
    sender: asyncio.Task[None] | None = None
    feed: Feed | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await super().__call__(scope, receive, send)
        finally:  # however it ended
            if self.address is not None:
                LiveConsumer.places.give_back(self.address)
            if self.sender is not None and self.feed is not None:
                self.sender.cancel()
                self.feed.leave(self.queue)

    async def websocket_connect(self, _: dict[str, Any]) -> None:
        name = self.scope["url_route"]["kwargs"]["name"]
        address = client_key((self.scope.get("client") or (None,))[0])
        if not LiveConsumer.places.take(address):
            return await deny(self, 503, "too many viewers; the page still works without the live stream")
        self.address = address
        found = Experiment.objects.visible_to().filter(name=name).values_list("pk", flat=True)
        try:
            pk = await database_sync_to_async(found.first)()
        except DatabaseProblem as e:
            log.warning("a viewer was sent away: %s", e)
            return await deny(self, 503, "the database does not answer; try again later")
        if pk is None:
            return await deny(self, 404, f"there is no experiment {name!r} here")
        self.group = live_group(name)
        self.feed = Feed.of(pk)
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.send({"type": "websocket.accept"})
        self.queue = self.feed.watch()
        self.sender = asyncio.create_task(self._send_ticks())

    async def websocket_receive(self, _: dict[str, Any]) -> None:
        await self.send({"type": "websocket.close", "code": TOO_FAST, "reason": "this stream only speaks"})

    async def websocket_disconnect(self, _: dict[str, Any]) -> None:
        if self.feed is not None:
            await self.channel_layer.group_discard(self.group, self.channel_name)
        raise StopConsumer

    async def live_changed(self, _: dict[str, Any]) -> None:
        if self.feed is not None:
            self.feed.poke()

    async def _send_ticks(self) -> None:
        try:
            while (text := await self.queue.get()) is not None:
                await self.send({"type": "websocket.send", "text": text})
            await self.send({"type": "websocket.close", "code": 4404, "reason": "the experiment is gone"})
        except OSError:
            log.debug("a viewer is gone")  # its disconnect message follows
