"""Follows what the organizer publishes while an agent runs.

While the coordinator is reachable its manifest is asked for now and then (an ETag makes an unchanged one cheap). A pause
holds training, opening lets go of it, and the end lets the agent leave in good order. A revision that changes what is trained
is told, and needs a restart: it is never swapped in while batches and experts of the former one are under way.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from agent.errors import CoordinatorError, StorageError
from agent.manifest import TAKES_EFFECT_AT_ONCE, Manifest

log = logging.getLogger(__name__)

PERIOD_S = 30.0
"""How often the coordinator is asked, give or take a quarter."""
PAUSED: Final = "the organizer paused the experiment"


def needs_restart(running: Manifest, newest: Manifest) -> list[str]:
    """The parts of the manifest whose change a running agent cannot follow, such as `model`."""
    names = [name for name in running.__struct_fields__ if name not in TAKES_EFFECT_AT_ONCE]
    return [name for name in names if getattr(running, name) != getattr(newest, name)]


class Revisions:
    """The newest revision that this agent knows, and what follows from it. All on the event loop."""

    def __init__(self, running: Manifest, fetch: Callable[[], Awaitable[Manifest]], *, rng: random.Random) -> None:
        """`running` is what this agent was started with; `fetch` gives the newest, or raises CoordinatorError or StorageError."""
        self.running = running
        self.newest = running
        self.on_news: Callable[[Manifest], None] = lambda manifest: None
        """Called with each newer revision, after `held` and `finished` have followed it."""
        self._fetch = fetch
        self._rng = rng
        self._complaint = ""

    @property
    def held(self) -> str:
        """Why no batch may be begun, or an empty string."""
        return PAUSED if self.newest.status == "paused" else ""

    @property
    def finished(self) -> bool:
        return self.newest.status == "finished"

    async def run(self, reachable: Callable[[], bool]) -> None:
        """Ask while the coordinator is `reachable`, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S * self._rng.uniform(0.75, 1.25))
            if reachable():
                await self._ask()

    async def _ask(self) -> None:
        try:
            manifest = await self._fetch()
        except (CoordinatorError, StorageError) as e:
            if str(e) != self._complaint:
                log.warning("going on with revision %d: %s", self.newest.revision, e)
            self._complaint = str(e)
        else:
            self._complaint = ""
            self.take(manifest)

    def take(self, manifest: Manifest) -> None:
        """Follow a revision, if it is newer."""
        if manifest.revision <= self.newest.revision:
            return
        before, self.newest = self.newest, manifest
        if manifest.status != before.status:
            log.info("the organizer says: the experiment is %s", manifest.status)
        if changed := needs_restart(self.running, manifest):
            log.warning(
                "revision %d changes %s: this agent goes on with revision %d. Restart it to follow.",
                manifest.revision,
                ", ".join(changed),
                self.running.revision,
            )
        self.on_news(manifest)


def news(running: Manifest, newest: Manifest) -> dict[str, str | int]:
    """The details of the event that tells about a new revision."""
    changed = needs_restart(running, newest)
    detail: dict[str, str | int] = {"revision": newest.revision, "status": newest.status}
    return {**detail, "restart_for": ", ".join(changed)} if changed else detail
