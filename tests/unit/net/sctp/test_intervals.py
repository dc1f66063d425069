from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.net.sctp.intervals import Interval, newly_covered, shifted


def intervals(numbers: set[int]) -> list[Interval]:
    """The same set as sorted disjoint intervals."""
    result: list[Interval] = []
    for number in sorted(numbers):
        if result and result[-1][1] == number - 1:
            result[-1] = (result[-1][0], number)
        else:
            result.append((number, number))
    return result


def numbers(parts: list[Interval]) -> list[int]:
    return [number for start, end in parts for number in range(start, end + 1)]


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_is_the_difference_of_sets(old: set[int], new: set[int]) -> None:
    assert numbers(list(newly_covered(intervals(old), intervals(new)))) == sorted(new - old)


def test_what_a_peer_counts_from_its_base_is_put_in_order_and_cut_off():
    assert shifted([(2, 3), (5, 9)], 100, 107) == [(102, 103), (105, 107)]
    assert shifted([(4, 6), (2, 5), (6, 8)], 100, 200) == [(104, 106), (107, 108)]
    assert shifted([(0, 1), (9, 3)], 100, 200) == [(101, 101)]
