"""Rates."""

from __future__ import annotations

import pytest

from coordinator.limits import KeyedBuckets, TokenBucket, client_key


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


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", "unknown"),
        (None, "unknown"),
        ("/run/hive.sock", "unknown"),
        ("192.0.2.7, 10.0.0.1", "unknown"),
    ],
)
def test_whom_an_address_counts_as(address: str | None, key: str) -> None:
    assert client_key(address) == key
