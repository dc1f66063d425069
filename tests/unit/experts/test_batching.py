from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from agent.experts.batching import (
    BATCH_COST_ROWS,
    Batcher,
    BatchingConfig,
    Cancelled,
    Dropped,
    Finished,
    Item,
    Kind,
    Refuse,
    Start,
    Submitted,
)
from agent.grid import ExpertId

A, B, C = (ExpertId("ffn0", (i,)) for i in range(3))
ids: Iterator[int] = itertools.count(1)


def item(
    uid: ExpertId = A, rows: int = 10, *, kind: Kind = Kind.FORWARD, caller: bytes = b"alice", deadline: float = 100.0
) -> Item:
    return Item(next(ids), uid, kind, caller, rows, deadline)


def batcher(**limits: int) -> Batcher:
    return Batcher(BatchingConfig(**{"batch_rows_max": 100, "expert_rows_max": 1000, **limits}))


def submit(b: Batcher, i: Item, now: float = 0.0) -> list[object]:
    return list(b.handle(Submitted(i), now))


def finish(b: Batcher, uid: ExpertId = A, now: float = 0.0) -> list[object]:
    return list(b.handle(Finished(uid), now))


def test_an_idle_expert_starts_at_once() -> None:
    i = item()
    assert submit(batcher(), i) == [Start(A, Kind.FORWARD, (i,))]


def test_what_waits_meanwhile_goes_together() -> None:
    b = batcher()
    submit(b, item())
    waiting = [item(caller=bytes([c])) for c in range(3)]
    assert all(submit(b, i) == [] for i in waiting)
    assert b.queued_rows == 30
    assert b.queued_requests == 3
    assert finish(b) == [Start(A, Kind.FORWARD, tuple(waiting))]
    assert b.queued_rows == 0
    assert finish(b) == []


def test_a_batch_has_at_most_batch_rows_max_rows_and_keeps_the_order() -> None:
    b = batcher()
    submit(b, item())
    first, second, third, small = item(rows=60), item(rows=40), item(rows=1), item(rows=1)
    for i in (first, second, third, small):
        submit(b, i)
    assert finish(b) == [Start(A, Kind.FORWARD, (first, second))]  # exactly 100
    assert finish(b) == [Start(A, Kind.FORWARD, (third, small))]


def test_nobody_overtakes_a_large_request_of_the_same_kind() -> None:
    b = batcher()
    submit(b, item())
    first, large, small = item(rows=60), item(rows=41), item(rows=1)
    for i in (first, large, small):
        submit(b, i)
    assert finish(b) == [Start(A, Kind.FORWARD, (first,))]
    assert finish(b) == [Start(A, Kind.FORWARD, (large, small))]


def test_forward_and_backward_are_not_mixed_and_the_oldest_comes_first() -> None:
    b = batcher()
    submit(b, item())
    back, ahead, back_too = item(kind=Kind.BACKWARD), item(), item(kind=Kind.BACKWARD)
    for i in (back, ahead, back_too):
        submit(b, i)
    assert finish(b) == [Start(A, Kind.BACKWARD, (back, back_too))]
    assert finish(b) == [Start(A, Kind.FORWARD, (ahead,))]


def test_an_expert_computes_one_batch_at_a_time_and_the_host_slots() -> None:
    b = batcher(slots=2)
    assert len(submit(b, item(A))) == 1
    assert submit(b, item(A)) == []
    assert len(submit(b, item(B))) == 1
    assert submit(b, item(C)) == []
    (start,) = finish(b, B)
    assert isinstance(start, Start)
    assert start.uid == A or start.uid == C
    assert start.uid == C  # A still computes


def test_a_deep_queue_does_not_starve_another_expert() -> None:
    b = batcher(batch_rows_max=100, expert_rows_max=100_000)
    submit(b, item(A, 100))
    for _ in range(200):
        submit(b, item(A, 100))
    late = item(B, 5)
    submit(b, late)
    assert finish(b, A) == [Start(B, Kind.FORWARD, (late,))]


def test_experts_share_by_rows() -> None:
    """A with batches of 100 rows and B with batches of 10 get computing time in turn, weighted by what a batch costs."""
    b = batcher(expert_rows_max=100_000, requests_max=2000, caller_requests_max=2000)
    served = {A: 0, B: 0}
    (start,) = submit(b, item(A, 100))
    for _ in range(300):
        submit(b, item(A, 100))
        submit(b, item(B, 100))
    for _ in range(200):
        assert isinstance(start, Start)
        served[start.uid] += start.rows
        (start,) = finish(b, start.uid)
    assert abs(served[A] - served[B]) <= 100


def test_an_expert_that_was_idle_saves_up_nothing() -> None:
    b = batcher(expert_rows_max=100_000)
    for _ in range(50):  # A works alone for long
        submit(b, item(A, 100))
        finish(b, A)
    submit(b, item(A, 100))
    for _ in range(5):
        submit(b, item(A, 100))
        submit(b, item(B, 100))
    order = []
    uid = A
    for _ in range(6):
        (start,) = finish(b, uid)
        assert isinstance(start, Start)
        uid = start.uid
        order.append(uid)
    assert order.count(B) in (2, 3, 4)  # B all five times would be back pay
    assert BATCH_COST_ROWS > 0


@pytest.mark.parametrize(("rows", "fits"), [(1, True), (100, True), (101, False), (0, False)])
def test_rows_of_a_request(rows: int, fits: bool) -> None:
    (effect,) = submit(batcher(), item(rows=rows))
    assert isinstance(effect, Start) == fits
    if isinstance(effect, Refuse):
        assert effect.code == "bad-tensor"


def overloaded(effects: list[object]) -> bool:
    return len(effects) == 1 and isinstance(effects[0], Refuse) and effects[0].code == "overloaded"


def test_limit_of_rows_per_expert() -> None:
    b = batcher(expert_rows_max=200)
    submit(b, item())
    assert submit(b, item(rows=100)) == []
    assert submit(b, item(rows=100)) == []  # at the limit
    assert overloaded(submit(b, item(rows=1)))
    assert submit(b, item(B, rows=1)) == []  # another expert still has room


def test_limit_of_requests_per_host() -> None:
    b = batcher(requests_max=3)
    submit(b, item())
    assert all(submit(b, item(caller=bytes([c]))) == [] for c in range(3))
    assert overloaded(submit(b, item(B)))
    finish(b)
    assert submit(b, item(B)) == []


def test_limit_of_requests_per_caller() -> None:
    b = batcher(caller_requests_max=2)
    submit(b, item())
    assert submit(b, item()) == submit(b, item()) == []
    assert overloaded(submit(b, item()))
    assert submit(b, item(caller=b"bob")) == []
    finish(b)
    assert submit(b, item()) == []


def test_deadlines_pass_in_the_queue() -> None:
    b = batcher()
    submit(b, item())
    soon, later = item(deadline=5.0), item(deadline=9.0)
    submit(b, later)
    submit(b, soon)
    assert b.next_deadline() == 5.0
    assert b.tick(4.9) == []
    (refuse,) = b.tick(5.0)
    assert isinstance(refuse, Refuse)
    assert refuse.item is soon
    assert refuse.code == "overloaded"
    assert b.next_deadline() == 9.0
    assert finish(b, now=6.0) == [Start(A, Kind.FORWARD, (later,))]
    assert b.next_deadline() is None
    assert overloaded(submit(b, item(deadline=7.0), now=7.0))


def test_cancelled_requests_make_room() -> None:
    b = batcher(caller_requests_max=1)
    running, waiting = item(), item()
    submit(b, running)
    submit(b, waiting)
    assert overloaded(submit(b, item()))
    assert b.handle(Cancelled(waiting.id), 0.0) == []
    assert b.handle(Cancelled(waiting.id), 0.0) == []
    assert b.handle(Cancelled(running.id), 0.0) == []
    assert b.queued_rows == b.queued_requests == 0
    assert b.next_deadline() is None
    assert submit(b, item()) == []


def test_cancelling_does_not_grow_the_table_of_deadlines() -> None:
    b = batcher(requests_max=4)
    submit(b, item())
    for _ in range(100):
        i = item()
        submit(b, i)
        b.handle(Cancelled(i.id), 0.0)
    assert len(b._deadlines) <= 9


def test_dropping_an_expert_refuses_what_waits() -> None:
    b = batcher()
    submit(b, item(A))
    waiting = item(A)
    other = item(B)
    submit(b, waiting)
    submit(b, other)
    (refuse,) = b.handle(Dropped(A), 0.0)
    assert isinstance(refuse, Refuse)
    assert (refuse.item, refuse.code) == (waiting, "not-hosted")
    assert finish(b, A) == [Start(B, Kind.FORWARD, (other,))]
    assert b.handle(Dropped(C), 0.0) == []


def test_limits_that_cannot_work() -> None:
    for bad in ({"slots": 0}, {"batch_rows_max": 0}, {"batch_rows_max": 10, "expert_rows_max": 9}):
        with pytest.raises(ValueError, match=r"batching limits|at least"):
            BatchingConfig(**bad)
