"""Finding out that the overlay is split, and making it one again.

After a partition of the network each part is a working overlay that knows nobody of the other, and nothing routed over open
connections can cross. So now and then a node searches for a random peer that it could reach from outside, by that peer's own
address. If the overlay does not find it, it is contacted that way. If that succeeds, the overlay was split, and the new
connection is a bridge: the node looks for its own surroundings on the other side, connects to them, and tells its neighbours how
to come over too. Each of them does the same, so that the news spreads in a few steps, and no bridge carries more than its owner's
neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.dht.core import Core
from agent.dht.events import Contact as ContactEffect
from agent.dht.messages import Bridge
from agent.dht.operations import Found, Operations
from agent.dht.upkeep import Upkeep
from agent.identity import PeerId

ENTRANCES_MAX = 32
AWAITED_MAX = 4  # connections to the other side that are being opened
AWAITED_S = 30.0
CROSS_S = 3.0  # after coming over, how long a node connects over there before it tells its neighbours
ACROSS_MAX = 16  # peers over there that it names to them
BRIDGES_PER_PEER = 2  # that one neighbour may tell us of in BRIDGES_S; more are not looked at
BRIDGES_S = 60.0


class Reunion:
    """See the module."""

    __slots__ = (
        "_across",
        "_awaited",
        "_bridge",
        "_core",
        "_entrances",
        "_operations",
        "_quiet_until",
        "_told",
        "_upkeep",
        "crossed",
    )

    def __init__(self, core: Core, operations: Operations, upkeep: Upkeep) -> None:
        self._core = core
        self._operations = operations
        self._upkeep = upkeep
        self._entrances: list[PeerId] = []
        self._awaited: dict[PeerId, float] = {}  # peers of the other side -> until when their connection is awaited
        self._across: list[PeerId] = []
        self._bridge: PeerId | None = None
        self._told: dict[PeerId, list[float]] = {}  # neighbour -> when it told us of a bridge lately
        self._quiet_until = 0.0
        self.crossed = 0  # how often this node has come over

    def begin(self) -> None:
        """Start the clockwork."""
        self._probe_later()

    def set_entrances(self, peers: Sequence[PeerId]) -> None:
        """Peers whom the host can reach without the overlay; replaces those of before."""
        self._entrances = [peer for peer in peers if peer != self._core.me.peer][:ENTRANCES_MAX]

    def opened(self, peer: PeerId) -> None:
        if self._awaited.pop(peer, 0.0) > self._core.now:
            self._cross(peer)

    def failed(self, peer: PeerId) -> None:
        self._awaited.pop(peer, None)

    # -- finding out -------------------------------------------------------------------------------------------------

    def _probe_later(self) -> None:
        """In a large overlay many look, and the first to find out is enough."""
        core, config = self._core, self._core.config
        share = len(core.table.connected) / config.reunion_links
        period_s = min(max(share * config.reunion_period_s, config.reunion_min_s), config.reunion_period_s)
        core.at(core.now + period_s * (0.5 + core.rng.random()), self._probe)

    def _probe(self, _: object) -> None:
        """Is a random entrance in our overlay?"""
        core = self._core
        self._probe_later()
        strangers = [peer for peer in self._entrances if peer not in core.table.connected]
        if not strangers or not core.table.connected:  # with no connection at all the host makes first contact anew
            return
        entrance = strangers[core.rng.randrange(len(strangers))]
        self._seek(entrance, lambda: core.effects.append(ContactEffect(entrance)))

    def _seek(self, peer: PeerId, missing: Callable[[], None]) -> None:
        """Search for a peer; if the overlay does not know it, await it and call `missing`."""
        core = self._core
        contact = core.space.contact(peer)

        def found(named: list[Found]) -> None:
            here = peer in core.table.connected or any(c.peer == peer for c, _ in named)
            if here or not self._await(peer):
                return
            missing()

        self._operations.find(core.space.encode(contact.key), found, starts=(None, None))

    def _await(self, peer: PeerId) -> bool:
        now = self._core.now
        self._awaited = {p: until for p, until in self._awaited.items() if until > now}
        if peer in self._awaited or len(self._awaited) >= AWAITED_MAX:
            return False
        self._awaited[peer] = now + AWAITED_S
        return True

    # -- coming over -------------------------------------------------------------------------------------------------

    def on_bridge(self, source: PeerId, message: Bridge) -> None:
        """A neighbour says that there is another part of the overlay, and who leads there. Believed if we cannot find that peer
        here, and can connect to it through the neighbour: so a liar costs a search and a dial, a few times a minute."""
        core = self._core
        if not self._may_tell(source):
            return
        peer = core.space.contact(message.peer).peer
        if core.now < self._quiet_until or peer in core.table.connected or peer == core.me.peer:
            return
        self._seek(peer, lambda: self._upkeep.dial_through(peer, source))

    def _may_tell(self, source: PeerId) -> bool:
        """No more than its rate from one neighbour; what it made us dial is dialed for nobody else meanwhile (AWAITED_MAX)."""
        now = self._core.now
        recent = {peer: [at for at in times if at > now - BRIDGES_S] for peer, times in self._told.items()}
        self._told = {peer: times for peer, times in recent.items() if times}  # only neighbours, so links_max and a half
        times = self._told.setdefault(source, [])
        if len(times) >= BRIDGES_PER_PEER:
            return False
        times.append(now)
        return True

    def _cross(self, bridge: PeerId) -> None:
        """We have come over: look for our surroundings there, and in a moment tell our neighbours."""
        core = self._core
        if core.now < self._quiet_until:
            return
        self._quiet_until = core.now + core.config.reunion_quiet_s
        self.crossed += 1
        self._bridge, self._across = bridge, []

        def found(named: list[Found]) -> None:
            self._across = [c.peer for c, _ in named[:ACROSS_MAX]]
            self._upkeep.heard(named)

        self._operations.find(core.space.encode(core.me.key), found, starts=(bridge,))
        core.at(core.now + CROSS_S, self._tell)

    def _tell(self, _: object) -> None:
        """Name to each neighbour somebody over there to whom we are connected; not always the same, to spread the load."""
        core = self._core
        connected = core.table.connected
        bridges = [peer for peer in (self._bridge, *self._across) if peer is not None and peer in connected]
        if not bridges:
            return
        for peer in connected:
            if peer not in bridges:
                core.send(peer, Bridge(bridges[core.rng.randrange(len(bridges))].raw))
