"""What this node asks of the overlay: reads, writes, searches for peers, and messages to one peer.

An operation sends its items along several paths, merges what comes back, tries further paths for items that nobody has
answered for, and ends when all paths have answered, or soon after the first useful answer, or at its deadline. An eager read
(GET) ends with the first answer; a careful one (READ) and a write (PUT) when enough of the holders have signed (evidence.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from agent.dht.config import AVOID_MAX, ITEMS_MAX
from agent.dht.core import Core
from agent.dht.events import Done
from agent.dht.evidence import Evidence
from agent.dht.keys import Contact
from agent.dht.messages import Item, Kind, Letter, Result, Status, decode_peers, decode_records, encode
from agent.dht.records import Record
from agent.dht.router import Leg, Router
from agent.dht.routing_table import FAR
from agent.dht.search import Search
from agent.errors import CallRefused, CallTimeout, HiveError, NotReachable, ProtocolViolation
from agent.identity import PeerId

READS = (Kind.GET, Kind.READ)
OFF_THE_KEY = (Status.LOST_WAY, Status.DEAD_END)
AT_ONCE_MAX = 3  # further paths that a careful read tries at once
AVOIDING_MAX = 4  # keys up to which a further path avoids some of those closest to them
ANOTHER_WAY_MAX = 4  # paths after which an answer from somewhere off the key is taken for the best there is


Found = tuple[Contact, PeerId | None]
"""A peer that was named, and the neighbour that the path to whoever named it began with, if that was chosen."""


class _PathSink:
    """Where the answers of one path arrive."""

    __slots__ = ("_operations", "_path", "_search", "answered")

    def __init__(self, operations: Operations, search: Search, path: int) -> None:
        self._operations = operations
        self._search = search
        self._path = path
        self.answered = False

    def deliver(self, results: list[Result]) -> None:
        self._operations.on_results(self._search, self._path, results)


class Operations:
    """Starts operations and gathers their answers."""

    __slots__ = ("_core", "_router", "running")

    def __init__(self, core: Core, router: Router) -> None:
        self._core = core
        self._router = router
        self.running = 0  # searches under way

    # -- what callers start ------------------------------------------------------------------------------------------

    def get(self, op: int, keys: Sequence[bytes], *, eager: bool = False) -> None:
        """Read; ends with Done(op, {key: [Record]}). `eager`: with the first answer for each key, whoever gives it."""
        core = self._core
        result: dict[bytes, list[Record]] = {key: [] for key in keys if eager and core.nothing.holds(key, core.now)}
        unique = [key for key in dict.fromkeys(keys) if key not in result]
        batches = [[Item(i, key) for i, key in enumerate(unique[n : n + ITEMS_MAX])] for n in range(0, len(unique), ITEMS_MAX)]
        pending = len(batches)

        def finished(search: Search) -> None:
            nonlocal pending
            pending -= 1
            for index in search.answered:
                key = search.items[index].key
                result[key] = self._live(search.found.get(index))
                if not result[key]:
                    core.nothing.note(key, core.now)
            if pending == 0:
                self._finish(op, result)

        if not batches:
            self._finish(op, result)
        for batch in batches:
            config = core.config
            paths = config.read_paths if eager else config.read_confirmations
            timeout_s = config.operation_timeout_s if eager else config.careful_timeout_s
            self.start(Kind.GET if eager else Kind.READ, batch, finished, paths=paths, timeout_s=timeout_s)

    def put(self, op: int, records: Sequence[Record]) -> None:
        """Write; ends with Done(op, [replicas that signed for it, per record]); 0 if these are fewer than half."""
        counts = [0] * len(records)
        for record in records:
            self._core.nothing.forget(record.key)
        pending = -(-len(records) // ITEMS_MAX)

        def finished_at(first: int) -> Callable[[Search], None]:
            def finished(search: Search) -> None:
                nonlocal pending
                pending -= 1
                if search.evidence is not None:
                    for index in search.items:
                        counts[first + index] = search.evidence.kept_by(index)
                if pending == 0:
                    self._finish(op, counts)

            return finished

        if not records:
            self._finish(op, counts)
        for first in range(0, len(records), ITEMS_MAX):
            batch = [Item(i, r.key, encode([r])) for i, r in enumerate(records[first : first + ITEMS_MAX])]
            self.start(Kind.PUT, batch, finished_at(first), paths=self._core.config.write_paths)

    def find(self, key: bytes, on_done: Callable[[list[Found]], None], *, starts: Sequence[PeerId | None]) -> None:
        """Who is close to `key`; closest first. One path for each of `starts`, which names the neighbour that it begins with."""
        space = self._core.space

        def finished(search: Search) -> None:
            found = cast(dict[bytes, PeerId | None], search.found.get(0, {}))
            named = [(space.contact(raw), via) for raw, via in found.items()]
            target = space.decode(key)
            on_done(sorted(named, key=lambda entry: entry[0].key ^ target))

        self.start(Kind.FIND, [Item(0, key)], finished, paths=len(starts), starts=starts)

    def send(self, op: int, peer: PeerId, letter: Letter, timeout_s: float) -> None:
        """To one peer exactly; ends with Done(op, its answer or an error)."""
        contact = self._core.space.contact(peer)

        def finished(search: Search) -> None:
            found = search.found.get(0)
            if isinstance(found, bytes):
                self._finish(op, found)
            else:
                self._finish(op, search.error or CallTimeout(f"{peer.short} did not answer within {timeout_s:.1f} s"))

        item = Item(0, self._core.space.encode(contact.key), peer.raw + encode(letter))
        introducer = self._core.table.introducers.get(peer)
        self.start(Kind.SEND, [item], finished, paths=1, timeout_s=timeout_s, starts=(introducer,))

    def start(
        self,
        kind: Kind,
        items: list[Item],
        on_done: Callable[[Search], None],
        *,
        paths: int,
        timeout_s: float | None = None,
        starts: Sequence[PeerId | None] = (),
    ) -> None:
        """Start a search along `paths` paths. Too many at once: it ends at once, unanswered."""
        core = self._core
        token = core.rng.getrandbits(64).to_bytes(8, "big")
        search = Search(kind, token, items, core.now + (timeout_s or core.config.operation_timeout_s), on_done)
        if self.running >= core.config.operations_max:
            on_done(search)
            return
        self.running += 1
        search.starts = starts
        search.attempt_s = core.config.attempt_timeout_s
        search.timers.append(core.at(search.deadline, self._end, search))
        if kind in (Kind.READ, Kind.PUT):
            search.evidence = Evidence(core, kind, token, search.items)
            search.offset = core.rng.randrange(max(1, core.replica_count() - 1))
            for item in items if kind == Kind.READ else ():
                self._take_in(search, item, core.store.get(item.key, core.now))
        for _ in range(paths):
            self._launch(search)
        search.starting = False
        self._settle(search)
        if not search.done:
            search.retry = core.at(core.now + search.attempt_s, self._retry, search)

    # -- how a search goes on ----------------------------------------------------------------------------------------

    def _launch(self, search: Search) -> None:
        """Send all items, or later those that nobody has answered for, along a further path."""
        core = self._core
        path = search.paths
        wanted = [item for index, item in search.items.items() if search.starting or index not in search.answered]
        if not wanted or path >= core.config.paths_max:
            return
        search.paths += 1
        search.open[path] = {item.index for item in wanted}
        number = path + search.offset if path else 0
        leg = Leg(search.token, search.kind, number, core.me, _PathSink(self, search, path))
        leg.start = search.starts[path] if path < len(search.starts) else None
        if path > 0 and search.evidence is not None and core.table.reach() < FAR:
            leg.bend = core.rng.randrange(1, 2 + core.table.reach() // 2)
            leg.avoid = self._to_avoid(search, wanted) if path >= 2 else []
        if path >= 2 and core.table.connected and (search.kind == Kind.GET or (search.evidence is not None and path % 2)):
            # The two that lead there most directly are taken; a random one, so that trying again is not doing the same again.
            leg.start = core.table.anyone(core.rng)
        leg.hops_left = core.config.hop_limit
        leg.deadline = search.deadline
        self._router.route(leg, wanted)

    def _to_avoid(self, search: Search, wanted: list[Item]) -> list[PeerId]:
        """Some of those that lie closest to the key, so that liars among them do not end every path. Of many keys each has its
        own surroundings, and paths differ anyway."""
        core = self._core
        if search.evidence is None or len(wanted) > AVOIDING_MAX:
            return []
        key = core.space.decode(wanted[0].key)
        named = {core.space.contact(peer) for peer in search.evidence.holders[wanted[0].index]}
        named.update(core.table.closest(key, core.config.replicas))
        close = sorted(named, key=lambda c: c.key ^ key)[: core.replica_count()]
        return [c.peer for c in core.rng.sample(close, min(len(close) // 2, AVOID_MAX - 1))]

    def on_results(self, search: Search, path: int, results: list[Result]) -> None:
        """Take in what came back on a path."""
        if search.done:
            return
        for result in results:
            item = search.items.get(result.index)
            if item is None or result.index not in search.open[path]:
                continue
            if result.status == Status.NO_PEER and search.kind != Kind.SEND:
                search.open[path].discard(result.index)
                continue
            if not self._absorb(search, item, result, path):
                if search.kind in READS:  # whoever is on this path lies: nothing more is expected of it
                    search.open[path].discard(result.index)
                if search.evidence is not None:
                    search.evidence.spoil(path, result.index)
                continue  # as if it had not come
            if result.status in OFF_THE_KEY:
                search.lost_way.add(result.index)
            if not result.more:
                search.open[path].discard(result.index)
                if search.evidence is not None:
                    search.evidence.close(path, result.index)
        if search.evidence is not None:
            self._weigh(search, search.evidence, path)
        self._settle(search)

    def _weigh(self, search: Search, evidence: Evidence, path: int) -> None:
        """Take in what holders have signed on a path. If paths are open while this one is over, do not wait for them long."""
        for index, extra in evidence.checked(path):
            self._take_in(search, search.items[index], extra)
        search.answered.update(index for index in search.items if not evidence.short_of(index))
        if not search.open[path] and not search.hedging:
            search.hedging = True
            search.timers.append(self._core.at(self._core.now + self._core.config.grace_s, self._hedge, search))

    def _hedge(self, search: Search) -> None:
        search.hedging = False
        if not search.done:
            self._launch_more(search)

    def _settle(self, search: Search) -> None:
        """End the search if it has what it can get, or soon if it has something of use for every item."""
        if search.done or search.starting:
            return
        every = len(search.items)
        if len(search.answered) == every and search.kind != Kind.FIND:
            self._end(search)
        elif not any(search.open.values()):
            if len(search.answered) == every:
                self._end(search)
            elif search.kind != Kind.SEND and search.paths < self._ways(search):
                self._core.at(self._core.now, self._resend, search)
            elif search.evidence is not None or (
                search.kind != Kind.SEND and len(search.answered | search.lost_way | search.useful) == every
            ):
                self._end(search)
            elif search.kind == Kind.SEND and search.error is not None and search.paths < 3:
                self._core.at(self._core.now + 0.1 * search.paths, self._resend, search)
            elif search.kind == Kind.SEND and search.error is not None:
                self._end(search)
        elif len(search.useful) == every and not search.ending and search.evidence is None:
            search.ending = True
            search.timers.append(self._core.at(self._core.now + self._core.config.grace_s, self._end, search))

    def _ways(self, search: Search) -> int:
        """How many paths are tried while nothing but what they bring is waited for."""
        return ANOTHER_WAY_MAX if search.evidence is None else self._core.config.paths_max

    def _resend(self, search: Search) -> None:
        if not search.done and not any(search.open.values()):
            self._launch_more(search)

    def _retry(self, search: Search) -> None:
        if search.done:
            return
        if search.evidence is not None and search.kind == Kind.READ:  # a write may take its time
            search.evidence.lenience += 1
            search.answered.update(index for index in search.items if not search.evidence.short_of(index))
        search.attempt_s *= 1.25
        search.retry = self._core.at(self._core.now + search.attempt_s, self._retry, search)
        self._launch_more(search)

    def _launch_more(self, search: Search) -> None:
        """As many further paths as are wanted to confirm what has come; one if that does not count."""
        evidence = search.evidence
        short_of = max((evidence.short_of(i) for i in search.items if i not in search.answered), default=1) if evidence else 1
        for _ in range(min(short_of, AT_ONCE_MAX)):
            self._launch(search)
        self._settle(search)

    def _end(self, search: Search) -> None:
        if not search.done:
            search.done = True
            if search.evidence is None:
                search.answered |= search.lost_way | search.useful
            else:
                search.answered.update(i for i in search.items if search.evidence.is_acceptable(i))
            for timer in (*search.timers, search.retry):
                if timer is not None:
                    self._core.cancel(timer)
            self.running -= 1
            search.on_done(search)

    def _finish(self, op: int, result: dict[bytes, list[Record]] | list[int] | bytes | HiveError) -> None:
        self._core.effects.append(Done(op, result))

    # -- answers -----------------------------------------------------------------------------------------------------

    def _absorb(self, search: Search, item: Item, result: Result, path: int) -> bool:
        """Merge one part of an answer. False if it is malformed."""
        index = item.index
        try:
            if result.status == Status.STATEMENT and search.evidence is not None:
                search.evidence.note_statement(path, result.payload)
            elif search.kind in READS:
                records = decode_records(result.payload)
                if search.evidence is not None:
                    search.evidence.note_records(path, index, records)
                self._absorb_records(search, item, records)
            elif search.kind == Kind.PUT:
                pass  # what counts is signed
            elif search.kind == Kind.SEND:
                return self._absorb_letter(search, index, result)
            else:
                found = cast(dict[bytes, PeerId | None], search.found.setdefault(index, {}))
                peers = decode_peers(result.payload)
                via = search.starts[path] if path < len(search.starts) else None
                for raw in peers[: self._core.config.answer_peers_max]:
                    found.setdefault(raw, via)
                if peers:
                    search.useful.add(index)
        except ProtocolViolation:
            return False
        if result.more or result.status in OFF_THE_KEY:
            return True
        if search.evidence is None:
            search.answered.add(index)
        return True

    def _absorb_records(self, search: Search, item: Item, records: list[Record]) -> None:
        """Raises ProtocolViolation for a record that nobody honest sends."""
        if self._take_in(search, item, records):
            raise ProtocolViolation("a forged record")

    def _take_in(self, search: Search, item: Item, records: Sequence[Record]) -> bool:
        """Merge records, the newest of each place. True if there are forged ones among them."""
        core = self._core
        forged = False
        merged = cast(dict[tuple[str, PeerId], Record], search.found.setdefault(item.index, {}))
        for record in records:
            place = (record.subkey, record.owner)
            held = merged.get(place)
            if held is not None and held.sequence >= record.sequence:
                continue
            if record.key == item.key and core.store.is_acceptable(record, core.now):
                if held is not None or len(merged) < core.config.limits.per_key_max:
                    merged[place] = record
                    search.useful.add(item.index)
            elif record.expires_at > core.now:  # one that has just expired comes from a clock a little behind ours
                forged = True
        return forged

    def _absorb_letter(self, search: Search, index: int, result: Result) -> bool:
        if result.status == Status.OK:
            search.found[index] = result.payload
            search.answered.add(index)
        elif result.status == Status.REFUSED:
            search.error = CallRefused("refused", result.payload[:200].decode(errors="replace"))
            search.answered.add(index)
        else:
            search.error = NotReachable("no peer of the overlay is connected to it")
        return True

    def _live(self, found: object) -> list[Record]:
        now = self._core.now
        return [r for r in found.values() if r.expires_at > now] if isinstance(found, dict) else []
