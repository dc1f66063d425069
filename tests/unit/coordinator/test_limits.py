"""Rates."""

from __future__ import annotations

from coordinator.limits import KeyedBuckets, TokenBucket


def test_a_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(per_s=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.49)
    assert bucket.take(0.5)
    assert bucket.take(100, amount=3) and not bucket.take(100)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(per_s=1, burst=1, now=10)
    assert bucket.take(10) and not bucket.take(5) and not bucket.take(5.5)


def test_keys_are_apart_and_bounded() -> None:
    buckets = KeyedBuckets(per_s=0.001, burst=1, keys_max=2)
    assert buckets.take("a", 0) and not buckets.take("a", 0)
    assert buckets.take("b", 0) and len(buckets) == 2
    assert buckets.take("c", 0) and len(buckets) == 2
    assert not buckets.take("b", 0)  # still known
    assert buckets.take("a", 0)  # was forgotten
