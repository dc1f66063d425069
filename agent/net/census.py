"""Takes a census (agent/dht/census.py) over a real overlay, of which the observer is a peer like any other."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from agent.dht.census import KIND, NONCE_BYTES, PURPOSE, Answered, Ask, Census, CensusConfig, CensusReport, Event, Heard, Silent
from agent.errors import RemoteError
from agent.identity import PeerId
from agent.net.overlay import Overlay

ANSWER_S = 5.0
"""How long one peer may take to answer."""
DEFAULTS = CensusConfig()


async def take(overlay: Overlay, *, expected: Sequence[PeerId] = (), config: CensusConfig = DEFAULTS) -> CensusReport:
    """Ask every peer that can be found; `expected` are asked besides. Ends within `config.budget_s` and an answer's time.

    Raises LinkClosed if the overlay is closed meanwhile.
    """
    loop = asyncio.get_running_loop()
    census = Census(
        overlay.peer_id,
        config,
        expected=expected,
        nonce=secrets.token_bytes(NONCE_BYTES),
        verify=lambda peer, said, signature: peer.verify(PURPOSE, said, signature),
    )
    tasks: set[asyncio.Task[Event]] = set()  # asks_max

    def perform(asks: Sequence[Ask]) -> None:
        tasks.update(loop.create_task(_ask(overlay, ask)) for ask in asks)

    try:
        perform(census.handle(Heard(overlay.neighbours), loop.time()))
        while not census.done:
            deadline = census.next_deadline()
            wait_s = None if deadline is None else max(0.0, deadline - loop.time())
            done, _ = await asyncio.wait(tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            tasks -= done
            for task in done:
                perform(census.handle(task.result(), loop.time()))
            perform(census.tick(loop.time()))
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    return census.report()


async def _ask(overlay: Overlay, ask: Ask) -> Event:
    try:
        return Answered(ask.peer, await overlay.route(ask.peer, KIND, ask.nonce, timeout_s=ANSWER_S))
    except RemoteError:
        return Silent(ask.peer)
