"""One peer's part in the distributed hash table, as a machine: events in, effects out (agent/machine.py).

    routing      router.py        requests hop by hop toward a key, and answers back
    operations   operations.py    what this peer asks: get, put, find, route
    replication  replication.py   records at the peers closest to them
    republisher  republish.py     our own records again and again
    upkeep       upkeep.py        which connections to have
    reunion      reunion.py       one overlay again after a split
    witnesses    witnesses.py     what holders sign, for careful reads

Times are Unix seconds that never go backwards. What a neighbour sends is untrusted: anything malformed makes `handle` raise
ProtocolViolation before any state has changed, and its host closes that connection.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from agent.dht import density, events, messages
from agent.dht.config import DhtConfig
from agent.dht.core import Core
from agent.dht.keys import KeySpace
from agent.dht.messages import Item, Kind, Letter, Result, Status, encode
from agent.dht.operations import Found, Operations
from agent.dht.records import RecordStore, Verify
from agent.dht.replication import Replication
from agent.dht.republish import Republisher
from agent.dht.reunion import Reunion
from agent.dht.router import Leg, Router, Sink
from agent.dht.statements import Seal
from agent.dht.upkeep import Upkeep
from agent.dht.witnesses import Witnesses
from agent.errors import ProtocolViolation
from agent.identity import PEER_ID_BYTES, PeerId

DELIVERY_S = 60.0  # how long an answer is remembered, for copies of a message that come by another way


class _Delivery:
    """A routed message that reached this peer, by one way or several."""

    __slots__ = ("answer", "expires_at", "place", "sinks")

    def __init__(self, place: tuple[PeerId, bytes], expires_at: float) -> None:
        self.place = place
        self.expires_at = expires_at
        self.sinks: list[tuple[Sink, int]] = []
        self.answer: tuple[Status, bytes] | None = None


class DhtNode:
    """The machine. `verify` checks records' signatures (records.SignatureCheck), `seal` signs and checks statements
    (statements.IdentitySeal); simulations pass cheaper ones."""

    __slots__ = (
        "_by_place", "_deliveries", "_operations", "_replication", "_republisher", "_reunion", "_router", "_upkeep",
        "_witnesses", "core",
    )  # fmt: skip

    def __init__(
        self, peer: PeerId, config: DhtConfig, *, verify: Verify, seal: Seal, rng: Random, space: KeySpace | None = None
    ) -> None:
        space = space or KeySpace()
        store = RecordStore(config.limits, verify, key_bytes=space.key_bytes)
        core = self.core = Core(space.contact(peer), space, store, config, rng, seal)
        self._router = Router(core, self._end)
        self._operations = Operations(core, self._router)
        self._replication = Replication(core)
        self._witnesses = Witnesses(core, self._replication)
        self._upkeep = Upkeep(core, self._operations, self._replication)
        self._republisher = Republisher(core, self._operations)
        self._reunion = Reunion(core, self._operations, self._upkeep)
        self._deliveries: dict[int, _Delivery] = {}
        self._by_place: dict[tuple[PeerId, bytes], int] = {}

    @property
    def neighbours(self) -> list[PeerId]:
        """Connected peers, closest first."""
        table = self.core.table
        return [c.peer for c in table.closest(self.core.me.key, len(table.connected))]

    @property
    def siblings(self) -> list[PeerId]:
        return [c.peer for c in self.core.table.siblings()]

    def begin(self, now: float) -> None:
        """Start the clockwork. Once, before anything else."""
        self.core.now = now
        self._replication.begin()
        self._reunion.begin()

    def handle(self, event: events.Event, now: float) -> list[events.Effect]:
        """Take one event. Raises ProtocolViolation for what a peer may not send, ValueError for a caller's mistake.

        What is due waits for `tick`, so that a host that was held up can hand in what came meanwhile before time-outs count.
        """
        core = self.core
        if now > core.now:
            core.now = now
        match event:  # the most frequent first, here and below
            case events.Received(peer, data):
                self._received(peer, data)
            case events.PeerOpened(peer, subnet):
                self._upkeep.opened(peer, subnet)
                self._reunion.opened(peer)
            case events.PeerClosed(peer):
                self._upkeep.closed(peer)
                self._router.on_closed(peer)
                self._replication.on_closed(peer)
                self._witnesses.on_closed(peer)
            case events.ConnectFailed(peer):
                self._upkeep.connect_failed(peer)
                self._reunion.failed(peer)
            case events.Heard(peers):
                self._upkeep.heard([(core.space.contact(peer), None) for peer in peers])
            case events.Entrances(peers):
                self._reunion.set_entrances(peers)
            case events.Reply():
                self._reply(event)
            case _:
                self._operate(event)
        return self._take()

    def tick(self, now: float) -> list[events.Effect]:
        """Do what is due."""
        self.core.now = max(self.core.now, now)
        self.core.run_due()
        self.core.store.expire(self.core.now)
        return self._take()

    def next_deadline(self) -> float | None:
        return self.core.next_timer()

    def _take(self) -> list[events.Effect]:
        effects, self.core.effects = self.core.effects, []
        return effects

    # -- messages ----------------------------------------------------------------------------------------------------

    def _received(self, peer: PeerId, data: bytes | memoryview) -> None:
        neighbour = self.core.table.connected.get(peer)
        if neighbour is None:
            return  # its connection closed while the message was on its way to us
        message = messages.decode(data)
        self._upkeep.spoke(neighbour)
        match message:
            case messages.Request():
                self._router.on_request(peer, message)
            case messages.Answer():
                density.hear(neighbour, message.reach, self.core.now)
                self._router.on_answer(peer, message)
            case messages.Near():
                self._upkeep.on_near(peer, message)
            case messages.NearPeers():
                density.hear(neighbour, message.reach, self.core.now)
                self._upkeep.on_near_peers(peer, message)
            case messages.Ack():
                self._router.on_ack(peer, message)
            case messages.Store():
                self._replication.on_store(peer, message)
            case messages.Stored():
                self._replication.on_stored(peer, message)
            case messages.Offer():
                self._replication.on_offer(peer, message)
            case messages.Want():
                self._replication.on_want(peer, message)
            case messages.Ping():
                self.core.send(peer, messages.Pong(message.call))
            case messages.Seek():
                self._upkeep.on_seek(peer, message)
            case messages.Attest():
                self._witnesses.on_attest(peer, message)
            case messages.Attested():
                self._witnesses.on_attested(peer, message)
            case messages.Bridge():
                self._reunion.on_bridge(peer, message)

    def _operate(self, event: events.Event) -> None:
        operations, space = self._operations, self.core.space
        match event:
            case events.Get(op, keys, eager):
                _check_keys(keys, space)
                operations.get(op, keys, eager=eager)
            case events.Put(op, records):
                _check_keys([record.key for record in records], space)
                self._republisher.note(records)
                operations.put(op, records)
            case events.Find(op, key):
                _check_keys([key], space)

                def found(named: list[Found]) -> None:
                    self.core.effects.append(events.Done(op, [contact.peer for contact, _ in named]))

                operations.find(key, found, starts=[None] * self.core.config.read_paths)
            case events.Route(op, peer, kind, body, timeout_s):
                if len(body) > messages.PAYLOAD_BYTES_MAX or len(kind) > 64:
                    raise ValueError(f"a routed message has at most {messages.PAYLOAD_BYTES_MAX} bytes and its kind 64 letters")
                operations.send(op, peer, Letter(kind, body), timeout_s)
            case _:
                raise ValueError(f"not an event of a DHT node: {event!r}")

    # -- the end of a route ------------------------------------------------------------------------------------------

    def _end(self, leg: Leg, items: list[Item]) -> None:
        """Answer for items that go no further."""
        if leg.kind == Kind.PUT:
            self._replication.write(leg, [(item, self._status(leg, item)) for item in items])
        elif leg.kind == Kind.READ:
            self._witnesses.read(leg, [(item, self._status(leg, item)) for item in items])
        elif leg.kind == Kind.SEND:
            for item in items:
                self._deliver(leg, item)
        else:
            answer: Callable[[Leg, Item], list[Result]] = self._records if leg.kind == Kind.GET else self._peers
            leg.sink.deliver([result for item in items for result in answer(leg, item)])

    def _status(self, leg: Leg, item: Item) -> Status:
        """OK if this node is near enough to the key to speak for it. A search for any peer of a region, which may be empty, is
        content with less, unless somebody searches for its own place."""
        core = self.core
        key = core.space.decode(item.key)
        if core.is_near(key) or (leg.kind == Kind.FIND and leg.origin.key != key):
            return Status.OK
        return Status.LOST_WAY

    def _records(self, leg: Leg, item: Item) -> list[Result]:
        return self._replication.read(item, self._status(leg, item))

    def _peers(self, leg: Leg, item: Item) -> list[Result]:
        core = self.core
        key = core.space.decode(item.key)
        n = core.config.answer_peers_max
        near = [c for c in core.table.closest(key, n + 1) if c.peer != leg.origin.peer and not core.is_suspect(c.peer)]
        if leg.source is not None:
            near.append(core.me)
        near.sort(key=lambda c: c.key ^ key)
        return [Result(item.index, self._status(leg, item), encode([c.peer.raw for c in near[:n]]))]

    def _deliver(self, leg: Leg, item: Item) -> None:
        """Hand a message to its handler, if it is for this peer; a copy by another way waits for the same answer."""
        core = self.core
        if item.body[:PEER_ID_BYTES] != core.me.peer.raw or leg.source is None:
            status = Status.NO_PEER if self._status(leg, item) == Status.OK else Status.LOST_WAY
            leg.sink.deliver([Result(item.index, status, b"")])
            return
        place = (leg.origin.peer, leg.token)
        number = self._by_place.get(place)
        delivery = self._deliveries[number] if number is not None else None
        if delivery is None:
            try:
                letter = messages.decode_letter(item.body[PEER_ID_BYTES:])
            except ProtocolViolation:
                leg.sink.deliver([Result(item.index, Status.REFUSED, b"malformed")])
                return
            if len(self._deliveries) >= core.config.deliveries_max:
                leg.sink.deliver([Result(item.index, Status.REFUSED, b"overloaded")])
                return
            number = core.number()
            delivery = _Delivery(place, core.now + DELIVERY_S)
            self._deliveries[number] = delivery
            self._by_place[place] = number
            if len(self._deliveries) == 1:
                core.at(delivery.expires_at, self._forget_old)
            core.effects.append(events.Deliver(number, leg.origin.peer, letter.kind, letter.body))
        if delivery.answer is not None:
            leg.sink.deliver([Result(item.index, *delivery.answer)])
        elif len(delivery.sinks) < core.config.paths_max:
            delivery.sinks.append((leg.sink, item.index))

    def _reply(self, event: events.Reply) -> None:
        if len(event.body) > messages.PAYLOAD_BYTES_MAX:
            raise ValueError(f"an answer has at most {messages.PAYLOAD_BYTES_MAX} bytes")
        delivery = self._deliveries.get(event.delivery)
        if delivery is None or delivery.answer is not None:
            return
        delivery.answer = (Status.OK if event.ok else Status.REFUSED, event.body)
        for sink, index in delivery.sinks:
            sink.deliver([Result(index, *delivery.answer)])
        delivery.sinks.clear()

    def _forget_old(self, _: object) -> None:
        """All that are over, and again soon while there are others: they last equally long, so the first are the oldest."""
        while self._deliveries:
            number = next(iter(self._deliveries))
            delivery = self._deliveries[number]
            if delivery.expires_at > self.core.now:
                self.core.at(self.core.now + DELIVERY_S / 4, self._forget_old)
                break
            del self._deliveries[number]
            del self._by_place[delivery.place]


def _check_keys(keys: Any, space: KeySpace) -> None:
    if any(len(key) != space.key_bytes for key in keys):
        raise ValueError(f"a key has {space.key_bytes} bytes")
