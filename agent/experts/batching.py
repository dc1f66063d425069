"""Merges what several callers ask of an expert into batches. Sans-IO: the runtime feeds it events and performs its effects.

Rules:
- An expert computes one batch at a time, the host at most `slots` batches. What arrives meanwhile waits, and goes together
  into the next batch; nothing waits for company.
- Within an expert the oldest request comes first, and takes along the following ones of its kind while they fit in
  `batch_rows_max`.
- Between experts: start-time fair queueing (Goyal, Vin, Cheng 1996) with rows as cost, so an expert with a deep queue
  delays another one by at most a batch.
- Queues are bounded in requests (per caller, per host) and in rows (per expert). Past that: `overloaded`.
- A request whose deadline passes while it waits is refused and never computed.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from agent.experts.messages import BAD_TENSOR, NOT_HOSTED, OVERLOADED
from agent.grid import ExpertId

BATCH_COST_ROWS = 64
"""What starting a batch costs, in rows, for fairness between experts with small and large batches."""


class Kind(Enum):
    """What is asked of an expert. REPLAY is a backward that must not step again."""

    FORWARD = "forward"
    BACKWARD = "backward"
    REPLAY = "replay"


@dataclass(frozen=True, kw_only=True)
class BatchingConfig:
    """Limits of one host."""

    batch_rows_max: int = 8192
    """Rows merged into one batch. A single request may have as many."""
    expert_rows_max: int = 65_536
    """Rows that may wait for one expert."""
    requests_max: int = 1024
    """Requests that may wait on the host."""
    caller_requests_max: int = 256
    """Of these, one caller's."""
    slots: int = 1
    """Batches that compute at the same time."""

    def __post_init__(self) -> None:
        if min(self.batch_rows_max, self.requests_max, self.caller_requests_max, self.slots) < 1:
            raise ValueError(f"unusable batching limits: {self}")
        if self.expert_rows_max < self.batch_rows_max:
            raise ValueError("expert_rows_max must be at least batch_rows_max")


@dataclass(frozen=True, slots=True)
class Item:
    """One request: `id` is the host's own, unique. `deadline` is on the clock of `now`."""

    id: int
    uid: ExpertId
    kind: Kind
    caller: bytes
    rows: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Submitted:
    item: Item


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody waits for it any more. Too late, and without effect, once its batch has started."""

    id: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The batch of this expert is done, in whatever way."""

    uid: ExpertId


@dataclass(frozen=True, slots=True)
class Dropped:
    """The expert is no longer hosted: everything that waits for it is refused."""

    uid: ExpertId


Event = Submitted | Cancelled | Finished | Dropped


@dataclass(frozen=True, slots=True)
class Start:
    """Compute these together; then report Finished."""

    uid: ExpertId
    kind: Kind
    items: tuple[Item, ...]

    @property
    def rows(self) -> int:
        return sum(item.rows for item in self.items)


@dataclass(frozen=True, slots=True)
class Refuse:
    item: Item
    code: str
    message: str


Effect = Start | Refuse


@dataclass(slots=True)
class _Line:
    """What waits for one expert, oldest first."""

    waiting: OrderedDict[int, Item] = field(default_factory=OrderedDict)
    rows: int = 0
    tag: float = 0.0
    """Virtual time at which its last batch ends, in rows."""


class Batcher:
    """The machine. `queued_rows` and `queued_requests` are what waits on the whole host."""

    def __init__(self, config: BatchingConfig) -> None:
        self._config = config
        self._lines: dict[ExpertId, _Line] = {}
        self._busy: set[ExpertId] = set()
        self._items: dict[int, Item] = {}
        self._callers: Counter[bytes] = Counter()
        self._deadlines: list[tuple[float, int]] = []
        self._virtual = 0.0
        self.queued_rows = 0

    @property
    def queued_requests(self) -> int:
        return len(self._items)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event. Effects are in order; a Start is never for an expert that is computing."""
        match event:
            case Submitted(item):
                refusal = self._refusal(item, now)
                if refusal is not None:
                    return [refusal]
                self._enqueue(item)
            case Cancelled(id):
                if id in self._items:
                    self._take(self._items[id])
            case Finished(uid):
                assert uid in self._busy, f"{uid} was not computing"
                self._busy.discard(uid)
            case Dropped(uid):
                line = self._lines.get(uid)
                gone = list(line.waiting.values()) if line else []
                for item in gone:
                    self._take(item)
                self._lines.pop(uid, None)
                return [Refuse(item, NOT_HOSTED, f"{item.uid} has moved") for item in gone]
        return self.tick(now)

    def tick(self, now: float) -> list[Effect]:
        """Refuse what has expired, start what can start."""
        effects: list[Effect] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            item = self._items.get(heapq.heappop(self._deadlines)[1])
            if item is not None:
                self._take(item)
                effects.append(Refuse(item, OVERLOADED, "the deadline passed while the request waited"))
        while len(self._busy) < self._config.slots and (start := self._next()) is not None:
            effects.append(start)
        return effects

    def next_deadline(self) -> float | None:
        while self._deadlines and self._deadlines[0][1] not in self._items:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _refusal(self, item: Item, now: float) -> Refuse | None:
        config = self._config
        line = self._lines.get(item.uid)
        if not 1 <= item.rows <= config.batch_rows_max:
            return Refuse(item, BAD_TENSOR, f"a request has 1 to {config.batch_rows_max} rows, not {item.rows}")
        if item.deadline <= now:
            return Refuse(item, OVERLOADED, "the deadline had passed on arrival")
        if len(self._items) >= config.requests_max:
            return Refuse(item, OVERLOADED, f"{config.requests_max} requests wait here")
        if self._callers[item.caller] >= config.caller_requests_max:
            return Refuse(item, OVERLOADED, f"{config.caller_requests_max} requests of this caller wait here")
        if line is not None and line.rows + item.rows > config.expert_rows_max:
            return Refuse(item, OVERLOADED, f"{line.rows} rows wait for {item.uid}")
        return None

    def _enqueue(self, item: Item) -> None:
        assert item.id not in self._items, "item ids are unique"
        line = self._lines.setdefault(item.uid, _Line())
        if not line.waiting:
            line.tag = max(line.tag, self._virtual)  # an idle expert saves up no claim on the past
        line.waiting[item.id] = item
        line.rows += item.rows
        self._items[item.id] = item
        self._callers[item.caller] += 1
        self.queued_rows += item.rows
        heapq.heappush(self._deadlines, (item.deadline, item.id))
        if len(self._deadlines) > 2 * self._config.requests_max:
            self._deadlines = [(i.deadline, i.id) for i in self._items.values()]
            heapq.heapify(self._deadlines)

    def _take(self, item: Item) -> None:
        line = self._lines[item.uid]
        del line.waiting[item.id], self._items[item.id]
        line.rows -= item.rows
        self.queued_rows -= item.rows
        self._callers[item.caller] -= 1
        if not self._callers[item.caller]:
            del self._callers[item.caller]

    def _next(self) -> Start | None:
        """The expert with the lowest virtual time among those that wait and do not compute; ties go to the oldest request."""
        best: tuple[float, int, ExpertId] | None = None
        for uid, line in self._lines.items():
            if line.waiting and uid not in self._busy:
                rank = (line.tag, next(iter(line.waiting)), uid)
                best = rank if best is None else min(best, rank)
        if best is None:
            return None
        uid = best[2]
        line = self._lines[uid]
        items = self._batch(list(line.waiting.values()))
        for item in items:
            self._take(item)
        start = Start(uid, items[0].kind, tuple(items))
        self._virtual = line.tag
        line.tag += start.rows + BATCH_COST_ROWS
        self._busy.add(uid)
        return start

    def _batch(self, waiting: Sequence[Item]) -> list[Item]:
        """The oldest item, and those of its kind behind it, in order, up to the first that does not fit."""
        items: list[Item] = []
        rows = 0
        for item in waiting:
            if item.kind is not waiting[0].kind:
                continue
            if rows + item.rows > self._config.batch_rows_max:
                break
            items.append(item)
            rows += item.rows
        return items
