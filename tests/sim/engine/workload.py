"""Records that peers keep in the overlay, and readers who know what they should find."""

from __future__ import annotations

from collections import Counter
from statistics import median, quantiles
from typing import Any

from agent.dht import events
from agent.dht.messages import Answer, Request, decode
from agent.dht.records import Record
from agent.identity import PeerId
from tests.sim.engine.records import cheap_verify, make_record
from tests.sim.engine.world import KINDS, SimPeer, World

AGAIN_S = 2.0  # before an owner that does not find its record writes it again
FAILED_MAX = 20  # operations whose numbers are kept, for --story


class Library:
    """One record per name; each has one owner, who may write newer ones. `written` is what was written last."""

    def __init__(self, world: World, *, ttl_s: float = 4 * 3600.0) -> None:
        self.world = world
        self.ttl_s = ttl_s
        self.written: dict[bytes, Record] = {}
        self.stored: dict[bytes, int] = {}  # replicas that the last write counted
        self.reads: Counter[str] = Counter()
        self.failed: list[int] = []  # operations that did not bring what they should
        self.times: list[float] = []
        self.confirm = False
        self._open: dict[int, SimPeer] = {}  # what is under way -> whose it is; a peer that stops takes its own with it
        self._opened = 0
        self.tries = 0  # writes, repeated ones included

    @property
    def running(self) -> bool:
        """True while anybody alive waits for something."""
        if any(not peer.alive for peer in self._open.values()):
            self._open = {number: peer for number, peer in self._open.items() if peer.alive}
        return bool(self._open)

    def _begin(self, peer: PeerId) -> int:
        self._opened += 1
        self._open[self._opened] = self.world.peers[peer]
        return self._opened

    def write(self, name: str, owner: PeerId, *, tries: int = 3) -> None:
        """Start to write the name's next record. An owner that is told of no replica tries again, as an agent does; if
        `confirm` is set, it also reads what it wrote, and writes it again if it does not find it."""
        world = self.world
        key = world.key(name)
        sequence = self.written[key].sequence + 1 if key in self.written else 1
        value = f"{name}/{sequence}".encode()
        record = make_record(key, owner, value, sequence=sequence, expires_at=world.now + self.ttl_s)
        self.written[key] = record
        self._put(record, tries)

    def _put(self, record: Record, tries: int) -> None:
        number = self._begin(record.owner)
        self.tries += 1

        def done(counts: Any) -> None:
            self._open.pop(number, None)
            self.stored[record.key] = counts[0]
            current = self.written[record.key] is record and self.world.peers[record.owner].alive
            if not counts[0] and tries > 1 and current:
                self._put(record, tries - 1)
            elif self.confirm and tries > 1 and current:
                self._confirm(record, tries - 1)

        self.world.start(record.owner, lambda op: events.Put(op, [record]), done)

    def _confirm(self, record: Record, tries: int) -> None:
        number = self._begin(record.owner)

        def done(found: Any) -> None:
            if record in (found.get(record.key) or ()):
                self._open.pop(number, None)
            else:
                self.world.at(self.world.now + AGAIN_S, self._put_again, record, tries, number)

        self.world.start(record.owner, lambda op: events.Get(op, [record.key]), done)

    def _put_again(self, record: Record, tries: int, number: int) -> None:
        peer = self._open.pop(number, None)
        if peer is not None and peer.alive:
            self._put(record, tries)

    def read(self, reader: PeerId, key: bytes, *, kind: str = "") -> None:
        """Start to read; the outcome is counted in `reads` as right, older, missing, silent or forged, after `kind`."""
        began, expected = self.world.now, self.written[key]
        number, running = 0, self._begin(reader)

        def make(op: int) -> events.Get:
            nonlocal number
            number = op
            return events.Get(op, [key])

        def done(found: Any) -> None:
            self._open.pop(running, None)
            outcome = self._judge(found.get(key), expected)
            self.reads[kind + outcome] += 1
            self.times.append(self.world.now - began)
            if outcome != "right" and len(self.failed) < FAILED_MAX:
                self.failed.append(number)

        self.world.start(reader, make, done)

    def _judge(self, found: list[Record] | None, expected: Record) -> str:
        if found is None:
            return "silent"
        if any(not cheap_verify(r) or r.key != expected.key for r in found):
            return "forged"
        mine = [r for r in found if r.owner == expected.owner]
        if not mine:
            return "missing"
        return "right" if mine[0].sequence >= expected.sequence else "older"

    def share(self, *outcomes: str, kind: str = "") -> float:
        """Which part of the reads of that kind ended so."""
        total = sum(n for outcome, n in self.reads.items() if outcome.startswith(kind))
        return sum(self.reads[kind + outcome] for outcome in outcomes) / total if total else 0.0

    def finish(self, *, within_s: float = 60.0) -> None:
        """Run until every operation has ended."""
        self.world.run_until(lambda: not self.running, within_s=within_s)


class Hops:
    """For each operation that is started from now on: how far away the peer was that answered first, in hops."""

    def __init__(self, world: World) -> None:
        self.found: list[int] = []
        self._pending: set[bytes] = set()  # tokens whose first answer has not been seen
        self._depth: dict[tuple[PeerId, PeerId, int], tuple[bytes, int]] = {}  # who asked whom -> token, hops so far
        self._depth_at: dict[tuple[PeerId, bytes, int], int] = {}  # where a path has come -> after how many hops
        world.on_start.append(self._started)
        world.on_delivered.append(self._delivered)

    def _started(self, peer: SimPeer, op: int, event: events.Event, effects: Any) -> None:
        if not isinstance(event, events.Get):
            return
        requests = [decode(e.data) for e in effects if isinstance(e, events.Send)]
        tokens = {r.token for r in requests if isinstance(r, Request)}
        self._pending |= tokens
        if not tokens:
            self.found.append(0)  # it held the record itself

    def _delivered(self, source: PeerId, target: PeerId, data: bytes) -> None:
        if KINDS[data[1]] not in ("Request", "Answer"):
            return
        message = decode(data)
        if isinstance(message, Request) and message.token in self._pending:
            depth = (
                self._depth_at.get((source, message.token, message.path), 0) + 1
            )  # not from hops_left: the last hop sets it to 0
            self._depth_at[target, message.token, message.path] = depth
            self._depth[source, target, message.hop] = (message.token, depth)
        elif isinstance(message, Answer):
            token, depth = self._depth.pop((target, source, message.hop), (b"", 0))
            if token in self._pending:  # the first link that it travels starts where it was made
                self._pending.discard(token)
                self.found.append(depth)


def spread(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    if len(values) < 2:
        return {"median": values[0] if values else 0.0, "p95": values[0] if values else 0.0}
    return {"median": round(median(values), 4), "p95": round(quantiles(values, n=20)[-1], 4)}
