"""First contact with an overlay, and contact again when every connection is lost.

A `Contact` is a peer and a way to signal to it from outside the overlay: its own bootstrap server, or the coordinator's
rendezvous. A `ContactBook` remembers the bootstrap addresses that were met, so that an agent can rejoin with the coordinator
gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from agent.errors import HiveError, JoinError, LocalError
from agent.identity import PeerId
from agent.net.network import Network, Signaler

logger = logging.getLogger(__name__)

Contact = tuple[PeerId, Signaler]

CONTACTS_MAX = 32
BOOK_MAX = 64
DIALS_MAX = 4
DIAL_TIMEOUT_S = 20.0
REJOIN_MIN_S, REJOIN_MAX_S = 1.0, 60.0


class ContactBook:
    """Peers that have a bootstrap address, the latest met first to go out. At most BOOK_MAX."""

    def __init__(self) -> None:
        self._addresses: dict[PeerId, str] = {}

    def remember(self, peer: PeerId, address: str) -> None:
        """`address` is a `ws://host:port/PEERID` as `net.bootstrap` takes it; nothing here opens it."""
        if not 0 < len(address) <= 200 or not address.startswith(("ws://", "wss://")):
            return
        self._addresses.pop(peer, None)
        if len(self._addresses) >= BOOK_MAX:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[peer] = address

    def entries(self) -> list[tuple[PeerId, str]]:
        """The latest met first."""
        return list(reversed(self._addresses.items()))


class Membership:
    """Makes the first connection, and makes one again whenever there is none."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self._network = network
        self._rng = rng
        self._contacts: list[Contact] = []
        self._alone = asyncio.Event()  # there is no connection, since we once joined
        self._together = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._dials: set[asyncio.Task[None]] = set()  # DIALS_MAX per join

    async def join(self, contacts: Sequence[Contact]) -> None:
        """Connect to any of them; the others tried at the same time may still connect afterwards. With none, return at once.

        Raises JoinError if none can be reached. Calling it again replaces the contacts that a later rejoin uses.
        """
        self._contacts = [c for c in contacts if c[0] != self._network.peer_id][:CONTACTS_MAX]
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep())
        if self._contacts:
            await self._dial_any(self._contacts)

    def peers_changed(self) -> None:
        """Tell that a connection opened or closed."""
        if self._network.peers():
            self._alone.clear()
            self._together.set()
        else:
            self._together.clear()
            self._alone.set()

    async def close(self) -> None:
        tasks = [*self._dials, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _dial_any(self, contacts: Sequence[Contact]) -> None:
        """Several peers at once, but the ways to one peer one after the other: a second dial would only join the first."""
        failures: list[str] = []
        waiting = list(contacts)
        running: dict[asyncio.Task[None], PeerId] = {}
        while waiting or running:
            while len(running) < DIALS_MAX and (chosen := next((c for c in waiting if c[0] not in running.values()), None)):
                waiting.remove(chosen)
                task = asyncio.get_running_loop().create_task(self._network.dial(*chosen, timeout_s=DIAL_TIMEOUT_S))
                running[task] = chosen[0]
                self._dials.add(task)
                task.add_done_callback(self._dialed)
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                error = task.exception() if not task.cancelled() else None
                if error is None and not task.cancelled():
                    return
                if isinstance(error, LocalError) or not isinstance(error, HiveError | None):
                    raise error
                failures.append(str(error or "cancelled"))
        if self._network.peers():  # somebody has reached us meanwhile
            return
        peers = len({peer for peer, _ in contacts})
        raise JoinError(f"none of {peers} known peers could be reached; the last said: {failures[-1]}")

    def _dialed(self, task: asyncio.Task[None]) -> None:
        self._dials.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, HiveError):
            logger.error("dialing a first contact failed", exc_info=error)

    async def _keep(self) -> None:
        """While there is no connection, try the contacts again, ever more slowly."""
        delay_s = REJOIN_MIN_S
        while True:
            await self._alone.wait()
            try:
                await asyncio.wait_for(self._together.wait(), delay_s * (0.75 + 0.5 * self._rng.random()))
                delay_s = REJOIN_MIN_S
                continue
            except TimeoutError:
                delay_s = min(2 * delay_s, REJOIN_MAX_S)
            try:
                if self._contacts:
                    await self._dial_any(self._rng.sample(self._contacts, len(self._contacts)))
            except (JoinError, LocalError) as e:
                logger.info("no connection to the overlay; trying again in about %.0f s: %s", delay_s, e)
