"""CUBIC's curve, what counts as an overflow, and when to stop yielding."""

from __future__ import annotations

import pytest

from agent.net.sctp.path_model import PathModel
from agent.net.sctp.yielding import CUT, CUT_LOSING, PRESS_AFTER_S, PRESS_QUIET_S, PRESS_S, Answer, Curve, Yielding

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
    assert curve.is_early(10.1, 100.0)
    assert not curve.is_early(10.0 + back_s / 2, 100.0)


def test_a_smaller_window_gives_room_to_newcomers():
    earlier = Curve(400 * PACKET, 0.0, None)
    curve = Curve(300 * PACKET, 5.0, earlier)
    assert curve.window(5.0, 1.0) == pytest.approx(CUT_LOSING * 300 * PACKET)
    assert curve.window(12.0, 100.0) < 400 * PACKET


def test_one_packet_lost_at_a_full_queue_is_an_overflow_where_nothing_is_lost_else():
    assert Yielding().overflowed(model(lost=1), PACKET, 1.0)
    assert not Yielding().overflowed(model(lost=1, queue_s=0.001), PACKET, 1.0)
    assert not Yielding().overflowed(model(), PACKET, 1.0)


@pytest.mark.parametrize(("full_s", "overflow"), [(0.006, True), (0.03, False)])
def test_a_short_queue_overflows_while_it_is_not_full_on_the_mean(full_s: float, overflow: bool):
    path = model(lost=12, queue_s=0.0006)
    path.rtt_s, path._queue_full = 0.04 + 0.0048, [full_s, full_s]
    assert Yielding().overflowed(path, PACKET, 1.0) is overflow


def test_what_a_full_queue_loses_is_not_the_paths_own():
    yielding = Yielding()
    for index in range(100):
        yielding.overflowed(model(lost=3), PACKET, float(index))
    assert yielding.background == 0
    yielding.overflowed(model(lost=3, queue_s=0.0), PACKET, 100.0)
    assert yielding.background > 0


def test_a_path_that_loses_by_itself_does_not_overflow():
    yielding = Yielding()
    for _ in range(300):
        yielding.overflowed(model(lost=3, queue_s=0.0), PACKET, 1.0)
    assert not yielding.overflowed(model(lost=3), PACKET, 2.0)
    assert yielding.overflowed(model(lost=20), PACKET, 3.0)


def test_whoever_never_yields_is_pressed_and_not_for_ever():
    yielding, curve, answers = Yielding(), None, []
    now = 0.0
    for index in range(8):
        now += 0.35
        path = model(lost=3, round_number=8 * index)
        assert yielding.overflowed(path, PACKET, now)
        answers.append(yielding.answer(curve, path, now))
        if answers[-1] is Answer.CUT:
            curve = Curve(200 * PACKET, now, curve)
    assert answers[0] is Answer.CUT
    assert Answer.HOLD in answers
    assert answers[-1] is Answer.PRESS
    assert now > PRESS_AFTER_S
    assert yielding.presses(now)
    assert not yielding.presses(now + PRESS_QUIET_S + 0.1)


def test_flows_that_yield_too_are_yielded_to():
    yielding, curve = Yielding(), None
    for index in range(10):
        now = 6.0 * index
        path = model(lost=1, round_number=100 * index)
        yielding.overflowed(path, PACKET, now)
        assert yielding.answer(curve, path, now) is Answer.CUT
        assert yielding.patient(path.round + 3) and not yielding.patient(path.round + 4)
        curve = Curve(200 * PACKET, now, curve)
        yielding.overflowed(model(queue_s=0.01), PACKET, now + 1)


@pytest.mark.parametrize("boot_s", [0.0, 1e6])
def test_the_first_time_is_the_first_time_whatever_the_clock_says(boot_s: float):
    yielding, now, answer = Yielding(), boot_s, Answer.CUT
    for index in range(20):
        now += 0.35
        yielding.overflowed(model(lost=3, round_number=8 * index), PACKET, now)
        answer = yielding.answer(Curve(200 * PACKET, now, None), model(lost=3, round_number=8 * index), now)
        if answer is Answer.PRESS:
            break
    assert answer is Answer.PRESS
    yielding.overflowed(model(lost=3), PACKET, now + PRESS_S - 0.1)
    assert yielding.presses(now + PRESS_S - 0.1)
    assert not yielding.presses(now + PRESS_S + 0.1)


def test_one_overflow_that_came_in_good_time_does_not_undo_all_evidence():
    yielding, now, answers = Yielding(), 10.0, []
    for index, early in enumerate([False, True, False, True]):
        now += 2.0
        path = model(lost=3, round_number=50 * index, queue_s=0.03)
        yielding.overflowed(path, PACKET, now)
        yielding._queue_low_s = 0.0  # the queue had run empty meanwhile
        curve = Curve(200 * PACKET, now if early else now - 100.0, None)
        answers.append(yielding.answer(curve, path, now))
    assert answers == [Answer.CUT, Answer.CUT, Answer.CUT, Answer.PRESS]


def test_whoever_takes_more_than_half_does_not_yield():
    yielding, curve, now, answers = Yielding(), None, 10.0, []
    for index, packets in enumerate([400, 300, 220, 170, 140]):
        now += 2.0
        path = model(lost=3, round_number=100 * index)
        yielding.overflowed(path, PACKET, now)
        yielding._queue_low_s = 0.0  # the queue had run empty meanwhile
        answers.append(yielding.answer(curve, path, now))
        curve = Curve(packets * PACKET, now, None, cut=1.0)
    assert answers == [Answer.CUT] * 5
    yielding.overflowed(path, PACKET, now + 2)
    assert yielding.answer(curve, path, now + 2) is Answer.PRESS


@pytest.mark.parametrize(
    ("between_s", "rounds", "pressed"), [(0.003, 20, True), (0.0175, 20, False), (0.003, 30, False), (0.02, 30, True)]
)
def test_overflows_out_of_a_short_queue_and_out_of_one_that_stands_are_others_doing(between_s: float, rounds: int, pressed: bool):
    """Long after the last cut, when a small window has come back: windows that grow together fill a queue bit by bit, and cuts of
    all would have left less of it."""
    yielding = Yielding()
    curve = Curve(20 * PACKET, 0.0, None)
    answers = []
    for index in range(12):
        for step in range(1, rounds + 1):
            path = model(
                lost=2 * (step == rounds), queue_s=0.03 if step == rounds else between_s, round_number=index * rounds + step
            )
            now = (index * rounds + step) * 0.05
            overflowed = yielding.overflowed(path, PACKET, now)
        assert overflowed
        answers.append(yielding.answer(curve, path, now))
        curve = Curve(20 * PACKET, now, None)
    assert (Answer.PRESS in answers) is pressed
