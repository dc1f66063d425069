"""Recursive routing: each hop passes a request on to its connected peer that is closest to the key, and closer than itself.

    request:   origin --hop 7--> a --hop 3--> b (nobody closer: b answers)
    answer:    origin <--hop 7-- a <--hop 3-- b

A hop that neither answers nor acknowledges in `hop_timeout_s`, or whose link closes before it has answered everything, is passed
over and its items go another way; so do items whose way ended far from their key. Distances shrink with every hop after the
first, so a request cannot loop; `hops_left` bounds it against liars. Paths of one operation avoid one another: a node that sees
the same item again on another path prefers a next hop that it has not used for it (S/Kademlia, section 4.4, as far as recursive
routing can), and reads and writes on later paths end at any of the replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol, TypeVar

from agent.dht import density
from agent.dht.config import AVOID_MAX, MESSAGE_BYTES_MAX, MESSAGE_SLACK_BYTES
from agent.dht.core import Core, Timer
from agent.dht.keys import Contact, bucket_of
from agent.dht.messages import Ack, Answer, Item, Kind, Request, Result, Status
from agent.identity import PeerId

T = TypeVar("T")

ITEM_OVERHEAD_BYTES = 48
SEEN_S = 5.0  # how long a node remembers which way an item went
SEEN_MAX = 4096
AT_HOLDERS = frozenset((Kind.GET, Kind.READ, Kind.PUT))  # their paths end at different holders of a key
PATHS_PER_STEP = 4  # after so many paths of a careful read one peer more counts as its end
DETOURS_MAX = 3  # other ways that a node tries for one request whose way ended far from its key


class Sink(Protocol):
    """Whom to tell the results."""

    answered: bool

    def deliver(self, results: list[Result]) -> None: ...


class RemoteSink:
    """The neighbour that a request came from."""

    __slots__ = ("_ack", "_core", "_hop", "_peer", "answered")

    def __init__(self, core: Core, peer: PeerId, hop: int) -> None:
        self._core = core
        self._peer = peer
        self._hop = hop
        self._ack: Timer | None = None
        self.answered = False

    def acknowledge_later(self) -> None:
        """Say that the request arrived, if its answer has not gone back until then: most answers are fast, and save the Ack."""
        self._ack = self._core.at(self._core.now + self._core.config.ack_delay_s, self._acknowledge)

    def _acknowledge(self, _: object) -> None:
        if not self.answered and self._peer in self._core.table.connected:
            self._core.send(self._peer, Ack(self._hop))

    def deliver(self, results: list[Result]) -> None:
        self.answered = True
        if self._ack is not None:
            self._core.cancel(self._ack)
            self._ack = None
        if self._peer not in self._core.table.connected:
            return
        for part in in_messages(results, lambda r: len(r.payload) + 16):
            self._core.send(self._peer, Answer(self._hop, part, density.told(self._core.table)))


class Leg:
    """One request as it passes through this node."""

    __slots__ = (
        "avoid",
        "bend",
        "deadline",
        "detours",
        "hops_left",
        "kind",
        "origin",
        "path",
        "sink",
        "source",
        "start",
        "token",
    )

    def __init__(self, token: bytes, kind: Kind, path: int, origin: Contact, sink: Sink, *, source: PeerId | None = None) -> None:
        self.token = token
        self.kind = kind
        self.path = path
        self.origin = origin
        self.sink = sink
        self.source = source  # None: this node is the origin
        self.start: PeerId | None = None  # at the origin: the neighbour that this path begins with, if it is connected
        self.hops_left = 0
        self.deadline = 0.0
        self.detours = 0
        self.avoid: list[PeerId] = []
        self.bend = 0


class _Forward:
    """Items that a neighbour has been given, and that it has not answered."""

    __slots__ = ("acked", "hop", "items", "leg", "peer", "timer")

    def __init__(self, hop: int, leg: Leg, peer: PeerId, items: dict[int, Item]) -> None:
        self.hop = hop
        self.leg = leg
        self.peer = peer
        self.items = items
        self.acked = False
        self.timer: Timer | None = None


class Router:
    """Passes requests on and answers back. `end(leg, items)` is called for items that this node has to answer."""

    __slots__ = ("_core", "_end", "_forwards", "_per_source", "_seen")

    def __init__(self, core: Core, end: Callable[[Leg, list[Item]], None]) -> None:
        self._core = core
        self._end = end
        self._forwards: dict[int, _Forward] = {}
        self._per_source: dict[PeerId, int] = {}
        self._seen: dict[tuple[bytes, int], tuple[float, tuple[PeerId, ...]]] = {}

    @property
    def relaying(self) -> int:
        """How many forwarded requests await answers."""
        return len(self._forwards)

    def on_request(self, peer: PeerId, request: Request) -> None:
        """Take a request from a neighbour. Without room it is dropped unacknowledged, and the neighbour tries another way."""
        core = self._core
        config = core.config
        origin = core.space.contact(request.origin)
        full = len(self._forwards) >= config.relays_max or self._per_source.get(peer, 0) >= config.relays_per_peer_max
        if full or origin is core.me or origin.peer == core.me.peer:
            return
        key_bytes = core.space.key_bytes
        for item in request.items:
            if len(item.key) != key_bytes:
                return
        sink = RemoteSink(core, peer, request.hop)
        leg = Leg(request.token, request.kind, request.path, origin, sink, source=peer)
        leg.hops_left = min(request.hops_left, config.hop_limit)
        leg.deadline = core.now + min(request.timeout_ms / 1000, config.relay_timeout_max_s)
        if request.avoid:
            leg.avoid = [core.space.contact(raw).peer for raw in request.avoid]
        if request.bend:
            leg.bend = int.from_bytes(request.bend[-core.space.key_bytes :], "big")
        self.route(leg, request.items)
        if not sink.answered:
            sink.acknowledge_later()

    def on_ack(self, peer: PeerId, ack: Ack) -> None:
        forward = self._forwards.get(ack.hop)
        if forward is not None and forward.peer == peer:
            forward.acked = True

    def on_answer(self, peer: PeerId, answer: Answer) -> None:
        """Pass results on, as long as they are for items that this neighbour was given."""
        forward = self._forwards.get(answer.hop)
        if forward is None or forward.peer != peer:
            return
        forward.acked = True
        results: list[Result] = []
        lost_way: list[Item] = []
        for result in answer.results:
            item = forward.items.get(result.index)
            if item is None:
                continue
            if not result.more:
                del forward.items[result.index]
            if result.status == Status.LOST_WAY and not result.more and self._has_detour(forward, item):
                lost_way.append(item)
                continue
            if result.status == Status.LOST_WAY and forward.leg.detours:  # or every hop would try them, and their number multiply
                result.status = Status.DEAD_END
            results.append(result)
        if not forward.items:
            self._drop(forward)
        if results:
            forward.leg.sink.deliver(results)
        if lost_way:
            self._detour(forward, lost_way)

    def _has_detour(self, forward: _Forward, item: Item) -> bool:
        """True if another connection leads closer to the key than we are."""
        leg = forward.leg
        if leg.detours >= DETOURS_MAX or self._core.now >= leg.deadline:
            return False
        passed_over = {leg.origin.peer, leg.source, forward.peer, *leg.avoid}
        return any(c.peer not in passed_over for c in self._core.table.closer(self._core.space.decode(item.key) ^ leg.bend))

    def _detour(self, forward: _Forward, items: list[Item]) -> None:
        leg = forward.leg
        leg.detours += 1
        leg.avoid = [*leg.avoid, forward.peer][-AVOID_MAX:]
        self.route(leg, items)

    def on_closed(self, peer: PeerId) -> None:
        """Send what the lost neighbour had not answered another way."""
        for forward in [f for f in self._forwards.values() if f.peer == peer]:
            self._reroute(forward)

    def route(self, leg: Leg, items: Iterable[Item]) -> None:
        """Send each item to its next hop, one message per hop, and end those that go no further."""
        groups: dict[tuple[PeerId, int], list[Item]] = {}  # next hop, and how many it may add
        ended: list[Item] = []
        for item in items:
            last = self._last_hop(leg, item) if leg.hops_left > 0 else None
            contact = last or (self._next(leg, item) if leg.hops_left > 0 else None)
            if contact is None or contact is self._core.me:
                ended.append(item)
            else:
                groups.setdefault((contact.peer, 0 if last else leg.hops_left - 1), []).append(item)
        for (peer, hops_left), group in groups.items():
            for part in in_messages(group, lambda i: len(i.body) + ITEM_OVERHEAD_BYTES):
                self._forward(leg, peer, part, hops_left=hops_left)
        if ended and leg.source is None and leg.path > 0:  # a path of its own is not to be had: that is no answer
            leg.sink.deliver([Result(item.index, Status.NO_PEER, b"") for item in ended])
        elif ended:
            self._end(leg, ended)

    def _last_hop(self, leg: Leg, item: Item) -> Contact | None:
        """Paths of a read or a write end at different replicas, or they would all meet at the closest one, and believe it. So a
        node that knows the key's surroundings picks the one that is due to this path, by the path's number. If most of them lie,
        somebody next to them brings what the others sign, and signs itself: later paths of a careful read end there, too."""
        core = self._core
        if not leg.path or leg.start is not None or leg.kind not in AT_HOLDERS:
            return None
        key = core.space.decode(item.key)
        if key ^ core.me.key > core.table.reach():
            return None
        passed_over = (leg.origin.peer, leg.source, *leg.avoid)
        further = leg.path // PATHS_PER_STEP if leg.kind == Kind.READ else 0
        replicas = [c for c in core.replica_set(key, further) if c.peer not in passed_over]
        return replicas[leg.path % len(replicas)] if replicas else None

    def _next(self, leg: Leg, item: Item) -> Contact | None:
        core = self._core
        key = core.space.decode(item.key) ^ leg.bend
        later = leg.path > 0
        if leg.start is not None and leg.start in core.table.connected and leg.start not in leg.avoid:
            return core.table.connected[leg.start].contact
        if not later and not leg.avoid and not core.suspects:  # the common case, without sorting candidates
            nearest = core.table.closest_closer(key)
            if nearest is None or (nearest.peer != leg.origin.peer and nearest.peer != leg.source):
                return nearest
        used = self._used(leg, item)
        skip = leg.path if leg.kind in AT_HOLDERS else 0
        second = spare = None
        for contact in self._candidates(leg, key):
            peer = contact.peer
            if peer == leg.origin.peer or peer == leg.source or peer in leg.avoid:
                continue
            if core.is_suspect(peer) and not (leg.kind == Kind.SEND and contact.key == key):  # nobody else will do
                continue
            if later and peer in used:
                second = second or contact
                continue
            # The closest may lie, and is where all paths would meet: a later path leaves it aside if others lead as far.
            if spare is not None and bucket_of(contact.key, core.me.key) != bucket_of(spare.key, core.me.key):
                return spare
            if not skip:
                return contact
            spare, skip = contact, skip - 1
        # At the origin a path needs a way of its own; elsewhere it may share the way of another.
        return spare or (None if leg.source is None else second)

    def _candidates(self, leg: Leg, key: int) -> Iterator[Contact]:
        table = self._core.table
        if leg.source is None and leg.path > 0:
            return chain(table.closer(key), table.further(key))
        return table.closer(key)

    def _used(self, leg: Leg, item: Item) -> tuple[PeerId, ...]:
        seen = self._seen.get((leg.token, item.index))
        return seen[1] if seen else ()

    def _remember(self, leg: Leg, items: list[Item], peer: PeerId) -> None:
        now = self._core.now
        seen = self._seen
        while seen:
            oldest = next(iter(seen))
            if len(seen) < SEEN_MAX and seen[oldest][0] > now - SEEN_S:
                break
            del seen[oldest]
        for item in items:
            place = (leg.token, item.index)
            used = seen.pop(place, (now, ()))[1]
            seen[place] = (now, (*used[-7:], peer))

    def _forward(self, leg: Leg, peer: PeerId, items: list[Item], *, hops_left: int) -> None:
        core = self._core
        remaining_s = leg.deadline - core.now
        if remaining_s <= 0 or len(self._forwards) >= core.config.relays_max:
            return
        self._remember(leg, items, peer)
        forward = _Forward(core.number(), leg, peer, {item.index: item for item in items})
        self._forwards[forward.hop] = forward
        if leg.source is not None:
            self._per_source[leg.source] = self._per_source.get(leg.source, 0) + 1
        avoid = [p.raw for p in leg.avoid]
        timeout_ms = int(remaining_s * 1000)
        bend = core.space.encode(leg.bend) if leg.bend else b""
        origin = leg.origin.peer.raw
        message = Request(forward.hop, leg.token, leg.kind, leg.path, hops_left, timeout_ms, origin, items, avoid, bend)
        core.send(peer, message)
        forward.timer = core.at(core.now + core.config.hop_timeout_s, self._check, forward)

    def _check(self, forward: _Forward) -> None:
        if self._forwards.get(forward.hop) is not forward:
            return
        if not forward.acked:
            self._core.on_miss(forward.peer)
            self._reroute(forward)
        elif self._core.now < forward.leg.deadline:
            forward.timer = self._core.at(forward.leg.deadline, self._check, forward)
        else:
            self._drop(forward)

    def _reroute(self, forward: _Forward) -> None:
        if self._forwards.get(forward.hop) is not forward:
            return  # a re-route before this one has seen to it
        self._drop(forward)
        leg = forward.leg
        leg.avoid = [*leg.avoid, forward.peer][-AVOID_MAX:]
        if self._core.now < leg.deadline:
            self.route(leg, list(forward.items.values()))

    def _drop(self, forward: _Forward) -> None:
        del self._forwards[forward.hop]
        if forward.timer is not None:
            self._core.cancel(forward.timer)
        source = forward.leg.source
        if source is not None:
            self._per_source[source] -= 1
            if not self._per_source[source]:
                del self._per_source[source]


def in_messages(parts: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Group parts so that each group fits in one message. A part that is too large alone goes alone."""
    room = MESSAGE_BYTES_MAX - MESSAGE_SLACK_BYTES
    group: list[T] = []
    used = 0
    for part in parts:
        if group and (used + size(part) > room or len(group) >= 256):
            yield group
            group, used = [], 0
        group.append(part)
        used += size(part)
    if group:
        yield group
