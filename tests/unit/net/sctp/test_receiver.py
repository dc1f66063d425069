"""Acknowledgements, duplicates, and the limits on what a peer can make us hold."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.packet import Data
from agent.net.sctp.partial import FRAGMENT_BYTES_MIN, MESSAGE_BYTES, STRAY_BYTES
from agent.net.sctp.reassembly import Reassembler
from agent.net.sctp.receiver import INTERVALS_MAX, SACK_DUPLICATES_MAX, SACK_GAPS_MAX, Receiver

MASK = 0xFFFFFFFF


def receiver(
    initial_tsn: int = 1,
    *,
    window: int = 1 << 20,
    window_max: int = 4 << 20,
    message_max: int = 1 << 20,
    budget: WindowBudget | None = None,
) -> Receiver:
    reassembler = Reassembler(message_bytes_max=message_max, interleave=False, streams=2)
    return Receiver(
        initial_tsn, reassembler, budget or WindowBudget(window_max), window_bytes=window, window_bytes_max=window_max
    )


def whole(tsn: int, size: int = 1) -> Data:
    """An unordered message of one fragment."""
    return Data(tsn & MASK, 7, 1, 0, -1, 53, memoryview(bytes(size)))


def middle(tsn: int, size: int = 1) -> Data:
    """A fragment that completes nothing."""
    return Data(tsn & MASK, 0, 1, 0, -1, 53, memoryview(bytes(size)))


def begin(tsn: int, size: int = 1) -> Data:
    """The first fragment of a message."""
    return Data(tsn & MASK, 2, 1, 0, -1, 53, memoryview(bytes(size)))


@given(
    st.integers(0, MASK),
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
)
def test_sack_says_exactly_what_came(initial: int, offsets: list[int]) -> None:
    r = receiver(initial)
    delivered = sum(len(r.data(whole(initial + offset))) for offset in offsets)
    came = set(offsets)
    assert delivered == len(came)
    sack = r.sack()
    first_missing = next(n for n in range(42) if n not in came)
    assert sack.cumulative == (initial + first_missing - 1) & MASK
    acknowledged = {first_missing - 1 + n for start, end in sack.gaps for n in range(start, end + 1)}
    assert acknowledged == {n for n in came if n > first_missing}
    assert sack.gaps == sorted(sack.gaps)
    assert len(sack.duplicates) == min(len(offsets) - len(came), SACK_DUPLICATES_MAX)
    assert not r.ack_due


def test_old_numbers_are_duplicates_across_the_wrap() -> None:
    r = receiver(0xFFFFFFFE)
    for tsn in range(0xFFFFFFFE, 0xFFFFFFFE + 5):
        assert len(r.data(whole(tsn))) == 1
    assert r.data(whole(0xFFFFFFFF)) == []
    assert r.sack().cumulative == 2


def test_holes_are_bounded() -> None:
    r = receiver()
    for number in range(INTERVALS_MAX + 1):
        r.data(middle(3 + 2 * number))
    assert r.packets_dropped == 1
    assert len(r.sack().gaps) == SACK_GAPS_MAX
    r.data(middle(3 + 2 * INTERVALS_MAX - 1))  # closes a hole: taken
    assert r.packets_dropped == 1


def test_out_of_order_data_beyond_the_window_is_dropped_and_in_order_data_is_not() -> None:
    r = receiver(window=2000, window_max=4000)
    r.data(middle(3, 900))
    assert r.window == 1100 - STRAY_BYTES
    r.data(middle(5, r.window + 1))
    assert r.packets_dropped == 1
    r.data(begin(1, 500))
    assert r.packets_dropped == 1
    assert r.window == 0
    assert r.sack().window == 0


def test_twice_the_largest_window_is_a_violation() -> None:
    r = receiver(window=1000, window_max=1000)
    with pytest.raises(ProtocolViolation):
        for tsn in range(1, 10):
            r.data(middle(tsn, 600))
    assert r.reassembler.held_bytes <= 2 * 1000 + 600 + STRAY_BYTES


def test_small_fragments_fill_the_window_as_the_memory_that_they_take() -> None:
    r = receiver(window=64_000, window_max=64_000)
    for number in range(1000):
        r.data(middle(2 + number))
    held = 64_000 // (FRAGMENT_BYTES_MIN + STRAY_BYTES) + 1
    assert (r.packets_dropped, r.window) == (1000 - held, 0)


def test_full_fragments_fill_the_window_as_their_payload() -> None:
    r = receiver(window=64_000, window_max=64_000)
    r.data(begin(1, 1000))
    for tsn in range(2, 61):
        r.data(middle(tsn, 1000))
    assert r.window == 4000 - MESSAGE_BYTES


def test_the_window_grows_with_use_and_stops_at_its_limit() -> None:
    r = receiver(window=1000, window_max=4000)
    now, tsn = 0.0, 1
    seen = []
    for _ in range(5):
        for _ in range(20):
            r.data(whole(tsn, 200))
            tsn += 1
        r.tune(now, 0.05)
        seen.append(r.window)
        now += 0.06
    assert seen == [2000, 4000, 4000, 4000, 4000]


def test_the_window_does_not_grow_when_idle() -> None:
    r = receiver(window=1000, window_max=4000)
    for round_number in range(5):
        r.data(whole(1 + round_number, 200))
        r.tune(round_number * 1.0, 0.05)
    assert r.window == 1000


def busy(r: Receiver, now: float, rounds: int = 5) -> None:
    """More arrives than the window holds, in every round."""
    for number in range(rounds):
        for _ in range(20):
            r.data(whole(r.cumulative + 1, r.window // 20 + 1))
        r.tune(now + 0.06 * number, 0.05)


def test_windows_grow_as_far_as_all_together_may() -> None:
    budget = WindowBudget(7000)
    one, other = (receiver(window=1000, window_max=4000, message_max=500, budget=budget) for _ in range(2))
    busy(one, 100.0)
    busy(other, 100.0)
    assert (one.window, other.window, budget.left) == (4000, 4000, 1000)
    third = receiver(window=1000, window_max=4000, message_max=500, budget=budget)
    busy(third, 100.0)
    assert (third.window, budget.left) == (2000, 0)
    one.close()
    one.close()
    busy(third, 200.0)
    assert (third.window, budget.left) == (4000, 1000)


def test_two_messages_always_fit_whatever_is_left() -> None:
    r = receiver(window=1000, window_max=16_000, message_max=2000, budget=WindowBudget(0))
    busy(r, 100.0)
    assert r.window == 4000


def test_a_window_that_is_not_needed_for_a_minute_is_given_back_by_halves() -> None:
    budget = WindowBudget(3000)
    r = receiver(window=1000, window_max=4000, message_max=500, budget=budget)
    busy(r, 100.0)
    windows = []
    for now in range(105, 300, 5):
        r.data(whole(r.cumulative + 1))
        r.tune(float(now), 0.05)
        windows.append(r.window)
    assert windows[:10] == [4000] * 10
    assert sorted(set(windows), reverse=True) == [4000, 2000, 1000]
    assert budget.left == 3000
    busy(r, 400.0)
    assert r.window == 4000, "and grows again"


def test_a_window_that_is_in_use_does_not_shrink() -> None:
    r = receiver(window=1000, window_max=4000, message_max=500)
    busy(r, 100.0)
    for now in range(105, 300, 5):
        r.data(whole(r.cumulative + 1, 600))
        r.tune(float(now), 0.05)
    assert r.window == 4000


def test_random_arrivals_reach_the_end() -> None:
    rng = random.Random(3)
    tsns = list(range(1, 500)) * 2
    rng.shuffle(tsns)
    r = receiver()
    assert sum(len(r.data(whole(tsn))) for tsn in tsns) == 499
    assert r.sack().gaps == []
    assert r.cumulative == 499
