"""What this node asks of the overlay: reads, writes, searches for peers, and messages to one peer.

An operation sends its items along several paths, merges what comes back, tries further paths for items that nobody has
answered for, and ends when all paths have answered, or soon after the first useful answer, or at its deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from agent.dht.config import ITEMS_MAX
from agent.dht.core import Core, Timer
from agent.dht.events import Done
from agent.dht.keys import Contact
from agent.dht.messages import Item, Kind, Letter, Result, Status, decode_peers, decode_records, encode
from agent.dht.records import Record
from agent.dht.router import Leg, Router
from agent.errors import CallRefused, CallTimeout, HiveError, NotReachable, ProtocolViolation
from agent.identity import PeerId

OFF_THE_KEY = (Status.LOST_WAY, Status.DEAD_END)
ANOTHER_WAY_MAX = 4  # paths after which an answer from somewhere off the key is taken for the best there is


Found = tuple[Contact, PeerId | None]
"""A peer that was named, and the neighbour that the path to whoever named it began with, if that was chosen."""


class Search:
    """At most ITEMS_MAX items of one operation, with one token. Its answers gather in `found`:
    by index, `{(subkey, owner): Record}` (GET), `{peer id bytes: the neighbour that its path began with, if it was chosen}` (PUT,
    FIND) or the answer's bytes (SEND)."""

    __slots__ = (
        "answered", "attempt_s", "deadline", "done", "eager", "ending", "error", "found", "heard",
        "items", "kind", "lost_way", "on_done", "open", "paths", "retry", "starting", "starts", "timers", "token", "useful",
    )  # fmt: skip

    def __init__(self, kind: Kind, token: bytes, items: list[Item], deadline: float, on_done: Callable[[Search], None]) -> None:
        self.kind = kind
        self.token = token
        self.items = {item.index: item for item in items}
        self.deadline = deadline
        self.on_done = on_done
        self.found: dict[int, dict[tuple[str, PeerId], Record] | dict[bytes, PeerId | None] | bytes] = {}
        self.starts: Sequence[PeerId | None] = ()  # the neighbours that the first paths begin with; None: whoever is closest
        self.heard: dict[int, int] = {}  # GET: how many paths have answered for the item
        self.answered: set[int] = set()  # items that enough paths have answered for
        self.useful: set[int] = set()  # items with an answer that is not empty
        self.lost_way: set[int] = (
            set()
        )  # items for which a path ended far from the key; what it brought counts if nothing else comes
        self.open: dict[int, set[int]] = {}  # path -> items that it has not answered
        self.paths = 0
        self.error: HiveError | None = None  # SEND: what the last answer that was no success said
        self.starting = True  # its first paths are being sent; answers of this node itself come in the midst of that
        self.ending = False
        self.eager = False  # ends as soon as every item is answered, on whatever path
        self.done = False
        self.attempt_s = 0.0
        self.retry: Timer | None = None  # when it tries a further path
        self.timers: list[Timer] = []  # its deadline, and its end if that is near


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
        """Read; ends with Done(op, {key: [Record]}). `eager`: with the first answer for each key."""
        unique = list(dict.fromkeys(keys))
        result: dict[bytes, list[Record]] = {}
        batches = [[Item(i, key) for i, key in enumerate(unique[n : n + ITEMS_MAX])] for n in range(0, len(unique), ITEMS_MAX)]
        pending = len(batches)

        def finished(search: Search) -> None:
            nonlocal pending
            pending -= 1
            for index in search.answered:
                result[search.items[index].key] = self._live(search.found.get(index))
            if pending == 0:
                self._finish(op, result)

        if not batches:
            self._finish(op, result)
        for batch in batches:
            self.start(Kind.GET, batch, finished, paths=self._core.config.read_paths, eager=eager)

    def put(self, op: int, records: Sequence[Record]) -> None:
        """Write; ends with Done(op, [replicas that stored it, per record])."""
        counts = [0] * len(records)
        pending = -(-len(records) // ITEMS_MAX)

        def finished_at(first: int) -> Callable[[Search], None]:
            def finished(search: Search) -> None:
                nonlocal pending
                pending -= 1
                for index, found in search.found.items():
                    counts[first + index] = len(found)
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
        eager: bool = False,
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
        search.eager = eager
        search.timers.append(core.at(search.deadline, self._end, search))
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
        leg = Leg(search.token, search.kind, path, core.me, _PathSink(self, search, path))
        leg.start = search.starts[path] if path < len(search.starts) else None
        if path >= 2 and search.kind in (Kind.GET, Kind.PUT) and core.table.connected:
            # The two that lead there most directly are taken; a random one, so that trying again is not doing the same again.
            neighbours = list(core.table.connected)
            leg.start = neighbours[core.rng.randrange(len(neighbours))]
        leg.hops_left = core.config.hop_limit
        leg.deadline = search.deadline
        self._router.route(leg, wanted)

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
                if search.kind == Kind.GET:  # whoever is on this path lies: nothing more is expected of it
                    search.open[path].discard(result.index)
                continue  # as if it had not come
            if result.status in OFF_THE_KEY:
                search.lost_way.add(result.index)
            if not result.more:
                search.open[path].discard(result.index)
        self._settle(search)

    def _settle(self, search: Search) -> None:
        """End the search if it has what it can get, or soon if it has something of use for every item."""
        if search.done or search.starting:
            return
        every = len(search.items)
        if len(search.answered) == every and (search.eager or search.kind == Kind.SEND):
            self._end(search)
        elif not any(search.open.values()):
            if len(search.answered) == every:
                self._end(search)
            elif search.kind != Kind.SEND and search.paths < ANOTHER_WAY_MAX:
                self._core.at(self._core.now, self._resend, search)
            elif (
                search.kind != Kind.SEND and len(search.answered | search.lost_way | search.heard.keys() | search.useful) == every
            ):
                self._end(search)
            elif search.kind == Kind.SEND and search.error is not None and search.paths < 3:
                self._core.at(self._core.now + 0.1 * search.paths, self._resend, search)
            elif search.kind == Kind.SEND and search.error is not None:
                self._end(search)
        elif len(search.useful) == every and not search.ending and self._is_enough(search):
            search.ending = True
            search.timers.append(self._core.at(self._core.now + self._core.config.grace_s, self._end, search))

    def _is_enough(self, search: Search) -> bool:
        """True if enough paths have answered for what is read to be believed the newest."""
        return search.kind != Kind.GET or all(n >= self._core.config.read_answers for n in search.heard.values())

    def _resend(self, search: Search) -> None:
        if not search.done and not any(search.open.values()):
            self._launch(search)
            self._settle(search)

    def _retry(self, search: Search) -> None:
        if search.done:
            return
        short_of = self._core.config.read_answers - min(search.heard.values(), default=0) if search.kind == Kind.GET else 1
        for _ in range(max(1, short_of)):
            self._launch(search)
        self._settle(search)
        search.attempt_s *= 1.25
        search.retry = self._core.at(self._core.now + search.attempt_s, self._retry, search)

    def _end(self, search: Search) -> None:
        if not search.done:
            search.done = True
            search.answered |= search.lost_way | search.heard.keys() | search.useful
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
            if search.kind == Kind.GET:
                self._absorb_records(search, item, decode_records(result.payload))
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
        search.heard[index] = search.heard.get(index, 0) + 1
        config = self._core.config
        enough = config.read_answers if index in search.useful else config.empty_answers
        if search.kind != Kind.GET or search.eager or search.heard[index] >= enough:
            search.answered.add(index)
        return True

    def _absorb_records(self, search: Search, item: Item, records: list[Record]) -> None:
        """Raises ProtocolViolation for a record that nobody honest sends."""
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
        if forged:
            raise ProtocolViolation("a forged record")

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
