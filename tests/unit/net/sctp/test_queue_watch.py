"""What a queue tells of others; the long lists are round trips of ours that were measured beside the kernel's own flows."""

from __future__ import annotations

import pytest

from agent.net.sctp.queue_watch import CUT_ROUNDS, Falls, Looks, Sign

STOOD_MS = [59.4, 59.8, 60.9, 60.6, 60.7, 61.6, 62.3, 62.8, 63.0, 63.7, 64.2, 64.5, 65.1, 65.2, 65.5]
EMPTY_MS = [40.4] * 6
BACK_MS = [42.1, 47.8, 50.5, 51.6, 54.0]
BBR_MS = [*STOOD_MS, 47.6, *EMPTY_MS, *BACK_MS]
"""Shortest round trips of a path of 40.4 ms with a queue of 36, which BBR version 1 keeps and looks past after 65.5."""
GROWN_MS = [(6.0, 6.4), (5.8, 6.4), (5.5, 6.6), (6.0, 6.8), (6.3, 6.8), (6.6, 7.0), (6.4, 7.0)]
CUT_MS = [(4.1, 6.4), (2.1, 3.1), (2.0, 3.4), (3.7, 4.3)]
CUBIC_MS = GROWN_MS + CUT_MS
"""The least and the mean that stood in a queue of 7 ms while the kernel's CUBIC grew beside us, and cut after 6.4."""
MIN_RTT_S, RATE = 0.0404, 1e6


def signs(looks: Looks, floors_ms: list[float], *, at: float = 0.0, rate: float = RATE) -> list[Sign]:
    now, found = at, []
    for floor_ms in floors_ms:
        now += floor_ms / 1e3
        sign = looks.round(now, floor_ms / 1e3, MIN_RTT_S, rate)
        found += [sign] if sign else []
    return found


def test_bbr_that_looks_at_the_empty_path_is_seen():
    looks = Looks()
    for minute in range(3):
        assert signs(looks, BBR_MS, at=60.0 * minute) == [Sign.LOOKED]


@pytest.mark.parametrize(
    "floors_ms",
    [
        [*STOOD_MS, 52.0, *[45.0] * 6, *BACK_MS],  # never empty
        [*STOOD_MS, 47.6, *EMPTY_MS[:3], *BACK_MS],  # empty for a moment
        [*STOOD_MS, 47.6, *EMPTY_MS * 3, *BACK_MS],  # somebody has left, and another come
        [*STOOD_MS, *[58.0 - 2 * index for index in range(8)], *EMPTY_MS, *BACK_MS],  # bit by bit
        [*STOOD_MS, 47.6, *EMPTY_MS, *[40.4 + 0.7 * index for index in range(12)]],  # windows that grow
        [42.0] * 15 + EMPTY_MS + BACK_MS,  # nothing stood before
    ],
)
def test_other_ups_and_downs_are_no_looks(floors_ms: list[float]):
    assert signs(Looks(), floors_ms) == []


def test_a_queue_that_our_own_cut_emptied_is_no_look():
    looks = Looks()
    signs(looks, STOOD_MS)
    looks.cut()
    assert signs(looks, BBR_MS[len(STOOD_MS) :]) == []
    assert signs(looks, STOOD_MS[:CUT_ROUNDS]) == []


def test_what_was_seen_before_we_looked_ourselves_is_forgotten():
    looks = Looks()
    signs(looks, BBR_MS[:-4])
    looks.forget()
    assert signs(looks, BACK_MS) == []


def test_a_queue_that_few_packets_fill_may_be_filled_by_reno():
    assert signs(Looks(), BBR_MS, rate=0.1 * RATE) == []


def test_a_sawtooth_is_told_from_looks_by_how_often_it_comes():
    looks = Looks()
    assert signs(looks, BBR_MS) == [Sign.LOOKED]
    assert signs(looks, BBR_MS, at=3.0) == [Sign.MISTAKEN]
    assert signs(looks, BBR_MS, at=20.0) == []
    assert signs(looks, BBR_MS, at=90.0) == [Sign.LOOKED]


def falls(watch: Falls, rounds_ms: list[tuple[float, float]], *, full_ms: float = 6.6) -> int:
    return sum(watch.round(floor / 1e3, mean / 1e3, full_ms / 1e3, MIN_RTT_S) for floor, mean in rounds_ms)


def test_cubic_that_cuts_out_of_a_short_queue_is_seen_once():
    watch = Falls()
    assert falls(watch, CUBIC_MS) == 1
    assert falls(watch, CUBIC_MS) == 1


def test_a_queue_that_is_long_or_not_full_or_only_now_and_then_short_does_not_count():
    assert falls(Falls(), CUBIC_MS, full_ms=20.0) == 0
    assert falls(Falls(), CUBIC_MS, full_ms=10.0) == 0
    dip = [(1.9, mean) if index == 5 else (floor, mean) for index, (floor, mean) in enumerate(CUBIC_MS[:8])]
    assert falls(Falls(), dip[:7]) == 0


def test_falls_after_a_cut_of_ours_are_ours():
    watch = Falls()
    falls(watch, GROWN_MS)
    watch.cut()
    assert falls(watch, CUT_MS) == 0
    assert falls(watch, CUBIC_MS) == 1
