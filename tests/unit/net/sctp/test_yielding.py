"""CUBIC's curve, and what counts as an overflow."""

from __future__ import annotations

import pytest

from agent.net.sctp.path_model import PathModel
from agent.net.sctp.yielding import CUT, CUT_LOSING, PATIENCE_ROUNDS, Curve, Yielding

PACKET = 1448


def model(*, lost: int = 0, queue_s: float = 0.03, round_number: int = 0) -> PathModel:
    """A path of 40 ms with a queue, after a round with so many packets lost of 300."""
    path = PathModel(bridge_s=0.1, bridge_bytes=0)
    path._min_rtts[-1] = 0.04
    path._queue_full[1] = 0.03
    path.rtt_s = path.floor_s = 0.04 + queue_s
    path.acked_bytes, path.lost_bytes = (300 - lost) * PACKET, lost * PACKET
    path.round = round_number
    return path


def test_the_curve_begins_at_seven_tenths_and_comes_back():
    curve = Curve(400 * PACKET, 10.0, None)
    assert curve.window(10.0, 1.0) == pytest.approx(CUT * 400 * PACKET)
    back_s = (0.3 * 400 / 0.4) ** (1 / 3)
    assert curve.window(10.0 + back_s, 100.0) == pytest.approx(400 * PACKET)


def test_a_smaller_window_gives_room_to_newcomers():
    earlier = Curve(400 * PACKET, 0.0, None)
    curve = Curve(300 * PACKET, 5.0, earlier)
    assert curve.window(5.0, 1.0) == pytest.approx(CUT_LOSING * 300 * PACKET)
    assert curve.window(12.0, 100.0) < 400 * PACKET


def test_one_packet_lost_at_a_full_queue_is_an_overflow_where_nothing_is_lost_else():
    assert Yielding().overflowed(model(lost=1), PACKET)
    assert not Yielding().overflowed(model(lost=1, queue_s=0.001), PACKET)
    assert not Yielding().overflowed(model(), PACKET)


@pytest.mark.parametrize(("full_s", "overflow"), [(0.006, True), (0.03, False)])
def test_a_short_queue_overflows_while_it_is_not_full_on_the_mean(full_s: float, overflow: bool):
    path = model(lost=12, queue_s=0.0006)
    path.rtt_s, path._queue_full = 0.04 + 0.0048, [full_s, full_s]
    assert Yielding().overflowed(path, PACKET) is overflow


def test_what_a_full_queue_loses_is_not_the_paths_own():
    yielding = Yielding()
    for _ in range(100):
        yielding.overflowed(model(lost=3), PACKET)
    assert yielding.background == 0
    yielding.overflowed(model(lost=3, queue_s=0.0), PACKET)
    assert yielding.background > 0


def test_a_path_that_loses_by_itself_does_not_overflow():
    yielding = Yielding()
    for _ in range(300):
        yielding.overflowed(model(lost=3, queue_s=0.0), PACKET)
    assert not yielding.overflowed(model(lost=3), PACKET)
    assert yielding.overflowed(model(lost=20), PACKET)


def test_what_is_lost_soon_after_a_cut_may_be_of_the_same_overflow():
    yielding = Yielding()
    assert not yielding.patient(7)
    yielding.cut(model(round_number=7))
    assert yielding.patient(7 + PATIENCE_ROUNDS - 1) and not yielding.patient(7 + PATIENCE_ROUNDS)
