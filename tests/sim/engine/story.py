"""The causal history of one operation: `./hive sim NAME … --story ID` runs the simulation again and prints it.

An operation's requests carry its tokens on every link, and acknowledgements and answers carry the number of the request that they
are for on that link; so every message that an operation causes can be told from the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from agent.dht import events
from agent.dht.messages import Ack, Answer, Item, Request, Result, decode
from agent.identity import PeerId
from tests.sim.engine.world import SimPeer, World

AFTERMATH_S = 5.0  # how long what is still on its way is told of after the end


class Story:
    """Prints what operation number `op` causes, as it happens."""

    def __init__(self, world: World, op: int, out: TextIO | None = None) -> None:
        self._world = world
        self._op = op
        self._out = out or sys.stderr
        self._ended_at = float("inf")
        self._tokens: set[bytes] = set()
        self._hops: set[tuple[PeerId, PeerId, int]] = set()  # who asked whom, by which number
        self._began = 0.0
        world.on_start.append(self._started)
        world.on_end.append(self._ended)
        world.on_sent.append(self._sent)
        world.on_delivered.append(self._delivered)

    def _started(self, peer: SimPeer, op: int, event: events.Event, effects: Sequence[events.Effect]) -> None:
        if op != self._op:
            return
        self._began = self._world.now
        self._say(f"{peer.peer.short} begins operation {op}: {_about(event)}")
        for effect in effects:
            if isinstance(effect, events.Send):
                message = decode(effect.data)
                if isinstance(message, Request):
                    self._tokens.add(message.token)

    def _ended(self, op: int, result: Any) -> None:
        if op == self._op:
            self._ended_at = self._world.now
            self._say(f"operation {op} ends: {_result(result)}")

    def _sent(self, source: PeerId, target: PeerId, data: bytes, lost: bool) -> None:
        text = self._mine(source, target, data)
        if text:
            self._say(f"{source.short} -> {target.short}  {text}{'   LOST' if lost else ''}")

    def _delivered(self, source: PeerId, target: PeerId, data: bytes) -> None:
        text = self._mine(source, target, data)
        if text:
            self._say(f"{source.short} => {target.short}  {text}   arrives")

    def _mine(self, source: PeerId, target: PeerId, data: bytes) -> str:
        """What the message says, if it belongs to the operation."""
        if not self._tokens or self._world.now > self._ended_at + AFTERMATH_S:
            return ""
        message = decode(data)
        if isinstance(message, Request) and message.token in self._tokens:
            self._hops.add((source, target, message.hop))
            keys = ", ".join(_item(item) for item in message.items[:3])
            return f"{message.kind.name} path {message.path} hop {message.hop} [{keys}] {message.hops_left} hops left"
        if isinstance(message, (Ack, Answer)) and (target, source, message.hop) in self._hops:
            if isinstance(message, Ack):
                return f"acknowledges hop {message.hop}"
            return f"answers hop {message.hop}: " + ", ".join(_part(result) for result in message.results[:3])
        return ""

    def _say(self, text: str) -> None:
        print(f"{1e3 * (self._world.now - self._began):9.1f} ms  {text}", file=self._out)


def _about(event: events.Event) -> str:
    match event:
        case events.Get(_, keys):
            return f"get {len(keys)} keys, first {keys[0].hex()[:12]}" if keys else "get nothing"
        case events.Put(_, records):
            return f"put {len(records)} records, first {records[0].key.hex()[:12]}" if records else "put nothing"
        case events.Find(_, key):
            return f"find {key.hex()[:12]}"
        case events.Route(_, peer, kind):
            return f"route {kind!r} to {peer.short}"
    return repr(event)[:100]


def _item(item: Item) -> str:
    return f"#{item.index} {item.key.hex()[:12]}"


def _part(result: Result) -> str:
    return f"#{result.index} {result.status.name} {len(result.payload)} bytes{' and more' if result.more else ''}"


def _result(result: Any) -> str:
    if isinstance(result, dict):
        return ", ".join(f"{key.hex()[:12]}: {len(records)} records" for key, records in result.items()) or "nobody answered"
    return repr(result)[:200]
