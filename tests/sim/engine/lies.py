"""Peers that lie. Each has one manner; all acknowledge requests and answer pings, so that they look alive."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import msgspec

from agent.dht.messages import (
    Ack,
    Answer,
    Kind,
    Near,
    NearPeers,
    Ping,
    Pong,
    Request,
    Result,
    Seek,
    Status,
    Store,
    Stored,
    decode,
    decode_records,
    encode,
)
from agent.dht.records import Record
from agent.errors import ProtocolViolation

if TYPE_CHECKING:
    from agent.identity import PeerId
    from tests.sim.engine.world import SimPeer, World

MANNERS = ("drop", "forge", "replay", "mislead")
SEEN_MAX = 4096


class Liar:
    """Takes messages before its node does. `drop`: requests vanish here. `forge`: reads are answered with altered records.
    `replay`: with the oldest version that came by, and newer ones are not kept. `mislead`: who asks for peers gets made-up ones.
    Writes that reach any of them are confirmed and forgotten."""

    def __init__(self, manner: str, rng: Random) -> None:
        self.manner = manner
        self._rng = rng
        self._oldest: dict[tuple[bytes, str, PeerId], Record] = {}

    def takes(self, world: World, me: SimPeer, source: PeerId, data: bytes) -> bool:
        """True if the node does not get to see the message."""
        message = decode(data)
        match message:
            case Ping():
                world.utter(me, source, Pong(message.call))
            case Store():
                for record in message.records:
                    self._note(record)
                world.utter(me, source, Stored(message.call))
            case Near() | Seek() if self.manner == "mislead":
                world.utter(me, source, NearPeers([self._made_up() for _ in range(16)]))
            case Request():
                return self._request(world, me, source, message)
            case Answer() if self.manner == "replay":
                self._watch(message)
                return False
            case _:
                return False
        return True

    def _request(self, world: World, me: SimPeer, source: PeerId, request: Request) -> bool:
        """Only what concerns its manner is treated badly: it wants to stay connected."""
        if request.kind == Kind.GET and self.manner in ("forge", "replay"):
            results = [Result(i.index, Status.OK, encode(self._records(i.key, me))) for i in request.items]
        elif request.kind == Kind.FIND and self.manner == "mislead":
            results = [Result(i.index, Status.OK, encode([self._made_up() for _ in range(16)])) for i in request.items]
        elif request.kind == Kind.PUT:
            for item in request.items:
                for record in decode_records(item.body):
                    self._note(record)
            results = [Result(i.index, Status.OK, encode([self._made_up() for _ in range(5)])) for i in request.items]
        elif self.manner == "drop" or request.kind == Kind.GET:
            world.utter(me, source, Ack(request.hop))
            return True
        else:
            return False
        world.utter(me, source, Answer(request.hop, results))
        return True

    def _records(self, key: bytes, me: SimPeer) -> list[Record]:
        known = [record for (k, _, _), record in self._oldest.items() if k == key]
        if self.manner == "replay":
            return known
        if not known:  # invent one
            return [Record(key, "", me.peer, 2**40, 2e9, b"forged", self._rng.randbytes(8))]
        return [msgspec.structs.replace(record, value=b"forged", sequence=record.sequence + 1000) for record in known]

    def _note(self, record: Record) -> None:
        place = (record.key, record.subkey, record.owner)
        held = self._oldest.get(place)
        if (held is None and len(self._oldest) < SEEN_MAX) or (held is not None and record.sequence < held.sequence):
            self._oldest[place] = record

    def _watch(self, answer: Answer) -> None:
        for result in answer.results:
            try:
                for record in decode_records(result.payload):
                    self._note(record)
            except ProtocolViolation:
                continue  # it was not an answer to a read

    def _made_up(self) -> bytes:
        return self._rng.randbytes(32)
