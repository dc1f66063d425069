"""Peers that lie. Each has one manner; all acknowledge requests and answer pings, so that they look alive. They may work
together: one that answers a careful read or a write then has those of them sign for it that lie closest to the key."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING

import msgspec

from agent.dht.messages import (
    Ack,
    Answer,
    Attest,
    Attested,
    Entry,
    Kind,
    Near,
    NearPeers,
    Ping,
    Pong,
    Request,
    Result,
    Seek,
    Statement,
    Status,
    Store,
    Stored,
    decode,
    decode_records,
    encode,
)
from agent.dht.records import Record
from agent.dht.statements import STAMP_BYTES, receipt, signed, stamps
from agent.errors import ProtocolViolation
from tests.sim.engine.records import CheapSeal

if TYPE_CHECKING:
    from agent.identity import PeerId
    from tests.sim.engine.world import SimPeer, World

MANNERS = ("drop", "forge", "replay", "mislead")
SEEN_MAX = 4096
EMPTY = 16 * 256  # the reach of one who says that there is nearly nobody, so that far-off signers are believed
ACCOMPLICES = 8  # that sign what one of them answers


class Liar:
    """Takes messages before its node does. `drop`: requests vanish here. `forge`: reads are answered with altered records.
    `replay`: with the oldest version that came by, signed by accomplices, and newer ones are not kept. `mislead`: who asks for
    peers gets made-up ones. Writes that reach any of them are confirmed, signed by accomplices, and forgotten; what they are
    asked to attest they attest, except those that drop. `ring`: whom it has sign in its favour; itself, or all of them. `held`:
    what its node kept while it was honest."""

    def __init__(self, manner: str, rng: Random, ring: list[PeerId], held: Iterable[Record] = ()) -> None:
        self.manner = manner
        self.ring = ring
        self._rng = rng
        self._oldest: dict[tuple[bytes, str, PeerId], Record] = {}
        for record in held:
            self._note(record)

    def takes(self, world: World, me: SimPeer, source: PeerId, data: bytes) -> bool:
        """True if the node does not get to see the message."""
        message = decode(data)
        match message:
            case Ping():
                world.utter(me, source, Pong(message.call))
            case Store():
                for record in message.records:
                    self._note(record)
                world.utter(me, source, Stored(message.call, [], receipt(CheapSeal(me.peer), message.token, message.records)))
            case Attest() if self.manner != "drop":
                entries = [Entry(claim.index, self._besides(claim.key, me)) for claim in message.claims]
                subjects = [(c.key, c.stamps, stamps(e.extra)) for c, e in zip(message.claims, entries, strict=True)]
                statement = signed(CheapSeal(me.peer), Statement(me.peer.raw, entries), message.token, subjects)
                world.utter(me, source, Attested(message.call, statement, [self._rng.randbytes(STAMP_BYTES)]))
            case Attest():
                pass
            case Near() | Seek() if self.manner == "mislead":
                world.utter(me, source, NearPeers([self._made_up() for _ in range(16)], EMPTY))
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
        if request.kind == Kind.READ and self.manner in ("forge", "replay"):
            results = self._perjury(world, request, me)
        elif request.kind == Kind.GET and self.manner in ("forge", "replay"):
            results = [Result(i.index, Status.OK, encode(self._records(i.key, me))) for i in request.items]
        elif request.kind == Kind.FIND and self.manner == "mislead":
            results = [Result(i.index, Status.OK, encode([self._made_up() for _ in range(16)])) for i in request.items]
        elif request.kind == Kind.PUT:
            for item in request.items:
                for record in decode_records(item.body):
                    self._note(record)
            results = self._receipts(world, request)
        elif self.manner == "drop" or request.kind in (Kind.GET, Kind.READ):
            world.utter(me, source, Ack(request.hop))
            return True
        else:
            return False
        world.utter(me, source, Answer(request.hop, results, EMPTY))
        return True

    def _perjury(self, world: World, request: Request, me: SimPeer) -> list[Result]:
        """An answer to a careful read that looks complete: old or forged records, and statements of accomplices about each."""
        results: list[Result] = []
        for item in request.items:
            records = self._records(item.key, me)
            for peer in self._accomplices(world, item.key):
                bare = Statement(peer.raw, [Entry(item.index)])
                statement = signed(CheapSeal(peer), bare, request.token, [(item.key, stamps(records), b"")])
                results.append(Result(item.index, Status.STATEMENT, encode(statement), True))
            results.append(Result(item.index, Status.OK, encode(records)))
        return results

    def _receipts(self, world: World, request: Request) -> list[Result]:
        """An answer to a write that looks complete."""
        results: list[Result] = []
        for item in request.items:
            for peer in self._accomplices(world, item.key):
                signature = receipt(CheapSeal(peer), request.token, decode_records(item.body))
                statement = Statement(peer.raw, [Entry(item.index)], signature)
                results.append(Result(item.index, Status.STATEMENT, encode(statement), True))
            results.append(Result(item.index, Status.OK, b""))
        return results

    def _accomplices(self, world: World, key: bytes) -> list[PeerId]:
        target = world.space.decode(key)
        return sorted(self.ring, key=lambda p: world.space.contact(p).key ^ target)[:ACCOMPLICES]

    def _besides(self, key: bytes, me: SimPeer) -> list[Record]:
        return self._records(key, me) if self.manner == "forge" else []

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
                for record in decode_records(result.payload) if result.status == Status.OK else ():
                    self._note(record)
            except ProtocolViolation:
                continue  # it was not an answer to a read

    def _made_up(self) -> bytes:
        return self._rng.randbytes(32)
