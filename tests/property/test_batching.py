"""Whatever is submitted, cancelled, dropped and finished in whatever order, batches keep their rules."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.experts.batching import (
    BATCH_COST_ROWS,
    Batcher,
    BatchingConfig,
    Cancelled,
    Dropped,
    Effect,
    Finished,
    Item,
    Kind,
    Refuse,
    Start,
    Submitted,
)
from agent.grid import ExpertId

UIDS = [ExpertId("ffn0", (i,)) for i in range(4)]
CONFIG = BatchingConfig(batch_rows_max=50, expert_rows_max=150, requests_max=12, caller_requests_max=6, slots=2)

submissions = st.tuples(
    st.just("submit"),
    st.integers(0, 3),
    st.integers(1, 60),
    st.sampled_from(list(Kind)),
    st.integers(0, 2),
    st.floats(0.0, 20.0),
)
others = st.tuples(st.sampled_from(["cancel", "drop", "finish", "wait"]), st.integers(0, 50))


class Model:
    """Follows what becomes of each item."""

    def __init__(self) -> None:
        self.batcher = Batcher(CONFIG)
        self.now = 0.0
        self.items: list[Item] = []
        self.waiting: dict[int, Item] = {}
        self.running: list[Start] = []

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Refuse(item, _, _):
                    del self.waiting[item.id]
                case Start(uid, kind, items):
                    assert uid not in [s.uid for s in self.running]
                    assert effect.rows <= CONFIG.batch_rows_max
                    assert {(i.uid, i.kind) for i in items} == {(uid, kind)}
                    mine = [i.id for i in self.waiting.values() if i.uid == uid]
                    assert items[0].id == mine[0], "the oldest first"
                    same = [i for i in mine if self.waiting[i].kind is kind]
                    assert [i.id for i in items] == same[: len(items)], "in order, none skipped"
                    assert all(i.deadline > self.now for i in items)
                    for i in items:
                        del self.waiting[i.id]
                    self.running.append(effect)
        assert len(self.running) <= CONFIG.slots
        assert self.batcher.queued_requests == len(self.waiting) <= CONFIG.requests_max
        assert self.batcher.queued_rows == sum(i.rows for i in self.waiting.values())
        idle = {i.uid for i in self.waiting.values()} - {s.uid for s in self.running}
        assert not idle or len(self.running) == CONFIG.slots, "somebody could compute"

    def step(self, action: tuple) -> None:  # type: ignore[type-arg]
        match action:
            case ("submit", uid, rows, kind, caller, patience):
                item = Item(len(self.items), UIDS[uid], kind, bytes([caller]), rows, self.now + patience)
                self.items.append(item)
                self.waiting[item.id] = item
                self.take(self.batcher.handle(Submitted(item), self.now))
            case ("cancel", which) if self.items:
                id = self.items[which % len(self.items)].id
                self.waiting.pop(id, None)
                self.take(self.batcher.handle(Cancelled(id), self.now))
            case ("drop", which):
                self.take(self.batcher.handle(Dropped(UIDS[which % 4]), self.now))
                self.take(self.batcher.tick(self.now))
            case ("finish", which) if self.running:
                start = self.running.pop(which % len(self.running))
                self.take(self.batcher.handle(Finished(start.uid), self.now))
            case ("wait", which):
                self.now += which / 10
                self.take(self.batcher.tick(self.now))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(submissions, submissions, others), max_size=60))
def test_every_item_has_one_end_and_nothing_waits_in_vain(actions: list[tuple]) -> None:  # type: ignore[type-arg]
    model = Model()
    for action in actions:
        model.step(action)
    while model.running:
        model.step(("finish", 0))
    assert not model.waiting
    assert model.batcher.next_deadline() is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=4))
def test_backlogged_experts_share_within_one_batch(sizes: list[int]) -> None:
    """Each expert always has requests of its own size waiting; rows and batches together are shared evenly."""
    batcher = Batcher(BatchingConfig(batch_rows_max=50, expert_rows_max=200))
    cost = [0] * len(sizes)
    ids = iter(range(1_000_000))
    running: list[Start] = []

    def fill(which: int) -> None:
        effects = batcher.handle(Submitted(Item(next(ids), UIDS[which], Kind.FORWARD, b"", sizes[which], 1e9)), 0.0)
        running.extend(e for e in effects if isinstance(e, Start))

    for which in range(len(sizes)):
        for _ in range(3):
            fill(which)
    for _ in range(200):
        start = running.pop()
        which = UIDS.index(start.uid)
        cost[which] += start.rows + BATCH_COST_ROWS
        for _ in start.items:
            fill(which)
        running.extend(e for e in batcher.handle(Finished(start.uid), 0.0) if isinstance(e, Start))
    assert max(cost) - min(cost) <= 2 * (50 + BATCH_COST_ROWS)
