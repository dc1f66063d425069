"""Everything that can go wrong with links and peers, at random times, until it is over.

    stall        nothing arrives on a link for a while, then everything does
    half_open    one end of a link is gone, and the other does not hear of it until it notices
    cut          a link closes
    slow         a peer works on each message for a while
    narrow       all links get little bandwidth for a while
    fail         most attempts to connect fail for a while
    crash        a peer stops without a word, and comes back with its disk (as itself) or without (as somebody new)
    partition    some peers do not reach the others for a while

Whatever is wrong ends with the storm; peers that are still away come back then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from agent.identity import PeerId
from tests.sim.engine.world import SimPeer, World


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How bad it is. Times in seconds, virtual; each is drawn evenly from its range."""

    fault_every_s: float = 1.0
    """One fault at a link or a peer so often, in the mean."""
    stall_s: tuple[float, float] = (1.0, 20.0)
    slow_for_s: tuple[float, float] = (5.0, 40.0)
    slow_s: tuple[float, float] = (0.005, 0.1)
    """What a slow peer needs for each message."""
    spell_s: tuple[float, float] = (5.0, 20.0)
    """How long links are narrow, connections fail, or peers are parted."""
    spells: int = 2
    """How many of each of these there are."""
    narrow_bytes_per_s: float = 20_000.0
    unconnectable: float = 0.7
    away_s: tuple[float, float] = (1.0, 30.0)
    """Between a crash and the new start."""
    away_max: float = 0.2
    """Which part of the peers may be away at once."""
    parted: float = 0.3
    """Which part of the peers is on the smaller side."""


class Storm:
    """A storm over a world. `blow` makes it, `pass_` ends it; `faults` counts what happened."""

    def __init__(self, world: World, rng: Random, weather: Weather | None = None) -> None:
        self._world = world
        self._rng = rng
        self._weather = weather or Weather()
        self._away: dict[PeerId, bool] = {}  # -> whether its disk is there when it comes back
        self._blowing = False
        self._usual = (world.links.bytes_per_s, world.links.unconnectable)
        self._peers_most = len(world.alive())
        self.faults: Counter[str] = Counter()
        self.on_crash: list[Callable[[SimPeer], None]] = []
        self.on_return: list[Callable[[PeerId, PeerId], None]] = []  # who it was, and who it is now

    def blow(self, seconds: float) -> None:
        """Plan the faults of a storm that lasts that long, from now on."""
        world, rng, weather = self._world, self._rng, self._weather
        self._blowing = True
        single = (self._stall, self._half_open, self._cut, self._slow, self._crash, self._crash)
        for _ in range(int(seconds / weather.fault_every_s)):
            world.at(world.now + seconds * rng.random(), self._if_blowing, rng.choice(single))
        for begin in (self._narrow, self._fail, self._part):
            for _ in range(weather.spells):
                world.at(world.now + max(0.0, seconds - weather.spell_s[1]) * rng.random(), self._if_blowing, begin)

    def pass_(self) -> None:
        """Nothing is wrong any more."""
        world = self._world
        self._blowing = False
        world.links.bytes_per_s, world.links.unconnectable = self._usual
        world.heal()
        for peer in world.peers.values():
            peer.slow_s = 0.0
        for peer in list(self._away):
            self._return(peer)

    def _if_blowing(self, fault: Callable[[], None]) -> None:
        if self._blowing:
            fault()

    def _between(self, low_high: tuple[float, float]) -> float:
        low, high = low_high
        return low + (high - low) * self._rng.random()

    # -- links -------------------------------------------------------------------------------------------------------

    def _link(self) -> tuple[PeerId, PeerId] | None:
        a = self._rng.choice(self._world.alive())
        others = list(self._world.peers[a].links)
        return (a, self._rng.choice(others)) if others else None

    def _stall(self) -> None:
        if (link := self._link()) is not None:
            self._world.stall(*link, self._between(self._weather.stall_s))
            self.faults["stall"] += 1

    def _half_open(self) -> None:
        if (link := self._link()) is not None:
            self._world.half_open(*link)
            self.faults["half_open"] += 1

    def _cut(self) -> None:
        if (link := self._link()) is not None:
            self._world.cut(*link)
            self.faults["cut"] += 1

    def _narrow(self) -> None:
        self._world.links.bytes_per_s = self._weather.narrow_bytes_per_s
        self._world.at(self._world.now + self._between(self._weather.spell_s), self._wide)
        self.faults["narrow"] += 1

    def _wide(self) -> None:
        self._world.links.bytes_per_s = self._usual[0]

    def _fail(self) -> None:
        self._world.links.unconnectable = self._weather.unconnectable
        self._world.at(self._world.now + self._between(self._weather.spell_s), self._connect)
        self.faults["fail"] += 1

    def _connect(self) -> None:
        self._world.links.unconnectable = self._usual[1]

    def _part(self) -> None:
        """Peers that come later are on the larger side."""
        smaller = {p for p in self._world.alive() if self._rng.random() < self._weather.parted}
        self._world.partition(lambda peer: int(peer in smaller))
        self._world.at(self._world.now + self._between(self._weather.spell_s), self._world.heal)
        self.faults["partition"] += 1

    # -- peers -------------------------------------------------------------------------------------------------------

    def _slow(self) -> None:
        peer = self._world.peers[self._rng.choice(self._world.alive())]
        peer.slow_s = self._between(self._weather.slow_s)
        self._world.at(self._world.now + self._between(self._weather.slow_for_s), setattr, peer, "slow_s", 0.0)
        self.faults["slow"] += 1

    def _crash(self) -> None:
        world = self._world
        if len(self._away) + 1 > self._weather.away_max * self._peers_most:
            return
        peer = self._rng.choice(world.alive())
        crashed = world.peers[peer]
        world.kill(peer, noticed_after_s=None)
        for watch in self.on_crash:
            watch(crashed)
        # A published address has its peer's key in it: who has one keeps its disk.
        self._away[peer] = self._rng.random() < 0.5 or peer in world.entrances
        world.at(world.now + self._between(self._weather.away_s), self._return, peer)
        self.faults["crash"] += 1

    def _return(self, peer: PeerId) -> None:
        if peer in self._away:
            disk = self._away.pop(peer)
            now = self._world.restart(peer, disk=disk)
            for watch in self.on_return:
                watch(peer, now)
            self.faults["back_with_disk" if disk else "back_without_disk"] += 1
