"""First contact: finding a peer to join by, and finding one again when this agent is left alone.

Sources, in the order in which they are tried: addresses of bootstrap peers that this agent met before (cached on disk),
those it was given, the manifest's, those the coordinator lists, and whoever waits at the coordinator's rendezvous. Once an
agent is in, the overlay introduces it to everyone else, and none of these is needed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from agent.errors import CoordinatorError, JoinError
from agent.identity import PeerId
from agent.net.network import Signaler

log = logging.getLogger(__name__)

ADDRESSES_CACHED_MAX = 64
CONTACTS_PER_ATTEMPT = 8
WHY_CHARS_MAX = 300
Contact = tuple[PeerId, Signaler]


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Patience, in seconds."""

    first_wait_s: float = 1.0
    """Before the second attempt; doubled each time."""
    wait_max_s: float = 10.0
    give_up_s: float = 90.0
    """After this long without reaching anyone, and without a coordinator that says that there is nobody, joining fails."""


class Waiting(Signaler, Protocol):
    """What is needed of the rendezvous (agent/net/rendezvous.py): it signals, and knows who waits."""

    @property
    def connected(self) -> bool: ...
    def waiting(self) -> Sequence[PeerId]: ...


class AddressBook:
    """Bootstrap addresses met before, newest first, in a small JSON file. A file that cannot be read is as good as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            loaded = msgspec.json.decode(path.read_bytes(), type=list[str])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            loaded = []
        self.addresses = [a for a in loaded if peer_of(a) is not None][:ADDRESSES_CACHED_MAX]

    def met(self, addresses: Sequence[str]) -> None:
        """Remember addresses, the newest first. A full disk is not worth stopping for."""
        fresh = [a for a in dict.fromkeys(addresses) if peer_of(a) is not None]
        merged = (fresh + [a for a in self.addresses if a not in set(fresh)])[:ADDRESSES_CACHED_MAX]
        if merged == self.addresses:
            return
        self.addresses = merged
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(merged))
            temporary.replace(self._path)
        except OSError as e:
            log.warning("cannot remember bootstrap addresses in %s: %s", self._path, e.strerror)


def peer_of(address: str) -> PeerId | None:
    """The PeerId at the end of `ws://host:port/PEERID`, or None."""
    scheme, _, rest = address.partition("://")
    if scheme not in ("ws", "wss") or len(address) > 300:
        return None
    try:
        return PeerId.parse(rest.rpartition("/")[2])
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where contacts come from. `listed` asks the coordinator; `signaler` makes the Signaler of an address."""

    own: PeerId
    book: AddressBook
    given: Sequence[str]
    signaler: Callable[[str], Signaler]
    listed: Callable[[], Awaitable[Sequence[str]]] | None = None
    rendezvous: Waiting | None = None

    async def contacts(self, rng: random.Random) -> list[Contact]:
        """Everyone worth trying now, by each way once, at most CONTACTS_PER_ATTEMPT of each kind.

        A peer may stand here several times: a remembered address may be that of a former run of it.
        """
        listed: Sequence[str] = ()
        if self.listed is not None:
            try:
                listed = await self.listed()
            except CoordinatorError as e:
                log.debug("the coordinator lists no bootstrap peers: %s", e)
        ways: dict[str, PeerId] = {}
        for kind in (self.given, self.book.addresses, listed):  # each has its own room: remembered ones may all be gone
            found = {a: peer for a in kind if a not in ways and (peer := peer_of(a)) is not None and peer != self.own}
            ways.update(list(found.items())[:CONTACTS_PER_ATTEMPT])
        contacts: list[Contact] = [(peer, self.signaler(address)) for address, peer in ways.items()]
        if self.rendezvous is not None:
            waiting = [p for p in self.rendezvous.waiting() if p != self.own]
            rng.shuffle(waiting)
            contacts += [(p, self.rendezvous) for p in waiting[:CONTACTS_PER_ATTEMPT]]
        return contacts

    def nobody_else(self) -> bool:
        """True if the coordinator is reachable and says that nobody waits to be met."""
        return (
            self.rendezvous is not None
            and self.rendezvous.connected
            and not [p for p in self.rendezvous.waiting() if p != self.own]
        )


class FirstContact:
    """Joins the overlay, with patience."""

    def __init__(
        self,
        sources: Sources,
        enter: Callable[[Sequence[Contact]], Awaitable[None]],
        config: JoinConfig,
        *,
        rng: random.Random,
        may_found: bool,
    ) -> None:
        """`enter` is Overlay.join; `may_found`: with nobody to ask at all, this agent starts the overlay (bootstrap role)."""
        self._sources = sources
        self._enter = enter
        self._config = config
        self._rng = rng
        self._may_found = may_found
        self.why = ""
        self.on_why: Callable[[str], None] = lambda why: None
        """Called with why joining has not succeeded yet, and what to do, after each attempt."""

    async def join(self) -> int:
        """Join, or found the overlay if there is nobody. Returns how many contacts there were.

        Raises JoinError, naming what was tried, when nobody could be reached for `give_up_s`.
        """
        loop = asyncio.get_running_loop()
        give_up_at, wait_s = loop.time() + self._config.give_up_s, self._config.first_wait_s
        while True:
            contacts = await self._sources.contacts(self._rng)
            if contacts:
                try:
                    await self._enter(contacts)
                except JoinError as e:
                    self.why = str(e)[:WHY_CHARS_MAX]
                else:
                    return len({peer for peer, _ in contacts})
            if self._sources.nobody_else() or (self._may_found and not contacts):
                await self._enter([])
                return 0
            if not contacts:
                self.why = "no peer is known yet, and the coordinator is not reachable: pass --bootstrap, or wait for it"
            if loop.time() + wait_s > give_up_at:
                raise JoinError(f"{self.why}. Check the network, or name a bootstrap peer that is up with --bootstrap.")
            self.on_why(self.why)
            log.debug("joining: next attempt in %.0f s", wait_s)
            await asyncio.sleep(wait_s * self._rng.uniform(0.75, 1.25))
            wait_s = min(self._config.wait_max_s, 2 * wait_s)

    async def reunite(self, connected: Callable[[], set[PeerId]]) -> None:
        """When nobody is connected, but somebody is known, join them. One attempt; failing is not an error."""
        contacts = await self._sources.contacts(self._rng)
        strangers = [c for c in contacts if c[0] not in connected()]
        if strangers:
            try:
                await self._enter(strangers)
            except JoinError as e:
                log.info("still alone: %s", e)
