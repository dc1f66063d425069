"""One DhtNode with neighbours that the test plays."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.keys import Contact
from agent.dht.messages import Answer, Item, Kind, Message, Near, Request, Result, Status, decode, encode
from agent.dht.node import DhtNode
from tests.sim.engine import START, CheapSeal, cheap_verify
from tests.unit.dht.peers import SPACE, at


class Played:
    """The node with key `me`. Its neighbours answer its own upkeep with nothing new; the rest is for the test."""

    def __init__(self, me: int, *neighbours: int, config: DhtConfig | None = None) -> None:
        config = config or DhtConfig(
            siblings=4, replicas=3, read_paths=1, write_paths=1, read_confirmations=1, write_confirmations=1
        )
        self.node = DhtNode(
            at(me).peer, config, verify=cheap_verify, seal=CheapSeal(at(me).peer), rng=random.Random(0), space=SPACE
        )
        self.now = START
        self.node.begin(self.now)
        self.effects: list[events.Effect] = []
        for key in neighbours:
            self.handle(events.PeerOpened(at(key).peer))
        self.take()

    def handle(self, event: events.Event) -> None:
        self._perform(self.node.handle(event, self.now))

    def receive(self, source: int, message: Message) -> None:
        self.handle(events.Received(at(source).peer, encode(message)))

    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.node.next_deadline()) is not None and due <= end:
            self.now = due
            self._perform(self.node.tick(self.now))
        self.now = end

    def _perform(self, effects: list[events.Effect]) -> None:
        for effect in effects:
            message = decode(effect.data) if isinstance(effect, events.Send) else None
            if isinstance(message, Request) and message.origin == self.node.core.me.peer.raw and message.kind == Kind.FIND:
                answer = Answer(message.hop, [Result(item.index, Status.OK, encode([])) for item in message.items])
                self.handle(events.Received(effect.peer, encode(answer)))  # type: ignore[union-attr]
            elif not isinstance(message, Near):
                self.effects.append(effect)

    def take(self, kind: type[Any] = object) -> list[tuple[int, Any]]:
        """Messages of that kind since the last `take`, as (neighbour's key, message)."""
        sent = [(SPACE.contact(e.peer).key, decode(e.data)) for e in self.effects if isinstance(e, events.Send)]
        self.effects = [e for e in self.effects if not isinstance(e, events.Send)]
        return [(key, message) for key, message in sent if isinstance(message, kind)]

    def done(self) -> list[Any]:
        found = [e.result for e in self.effects if isinstance(e, events.Done)]
        self.effects = [e for e in self.effects if not isinstance(e, events.Done)]
        return found


def request(
    kind: Kind,
    *keys: int,
    hop: int = 7,
    origin: Contact | None = None,
    body: bytes = b"",
    path: int = 0,
    hops_left: int = 9,
    avoid: Sequence[int] = (),
) -> Request:
    items = [Item(i, bytes([key]), body) for i, key in enumerate(keys)]
    raw = (origin or at(0b0101_0101)).peer.raw
    return Request(hop, b"t" * 8, kind, path, hops_left, 5000, raw, items, [at(key).peer.raw for key in avoid])
