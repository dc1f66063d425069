"""Whether somebody on the link keeps BBR's time, how long to press, and when to cut with others."""

from __future__ import annotations

import itertools
import random

import pytest

from agent.net.sctp.bbr import PRESS_LENGTHS
from agent.net.sctp.path_model import PathModel
from agent.net.sctp.rivals import AGAIN_S, BEATS, LOOK_PRESS_S, OTHERS_CUTS, PRESS_QUIET_S, PRESS_S, PRESS_S_MAX, Beat, Rivals
from tests.unit.net.sctp.test_queue_watch import BBR_MS, CUBIC_MS, MIN_RTT_S

RTT_S = 0.04
BEAT_S = 8.2 * RTT_S


def path(floor_s: float = 0.06, mean_s: float | None = None, full_s: float = 0.03) -> PathModel:
    """A path of 40.4 ms with a queue."""
    model = PathModel(bridge_s=0.1, bridge_bytes=0)
    model._min_rtts[-1] = MIN_RTT_S
    model._queue_full[1] = full_s
    model._recent.append(1e6)
    model.floor_s, model.rtt_s = floor_s, mean_s or floor_s
    return model


def heard(times: list[float]) -> bool:
    beat = Beat()
    return any([beat.lost(time, RTT_S) for time in times])


def test_losses_in_time_are_heard_also_if_some_beats_are_missed():
    assert heard([index * BEAT_S for index in range(BEATS + 1)])
    assert not heard([index * BEAT_S for index in range(BEATS)])
    assert heard([index * BEAT_S for index in (0, 1, 3, 4, 9, 12, 18, 19)])
    assert not heard([index * 7 * BEAT_S for index in range(20)])


def test_bursts_count_once_and_need_not_be_exact():
    rng = random.Random(1)
    assert heard([index * BEAT_S + rng.uniform(-0.1, 0.1) * RTT_S + late for index in range(8) for late in (0, 0.005, 0.05)])


def test_two_that_press_are_heard_too():
    both = sorted(index * BEAT_S + offset for index in range(8) for offset in (0.0, 0.4 * BEAT_S))
    assert heard(both)


@pytest.mark.parametrize("later", [1.0, 1.02, 1.05])
def test_our_own_pressing_is_not_taken_for_bbrs(later: float):
    lengths = [later * PRESS_LENGTHS[index % len(PRESS_LENGTHS)] * RTT_S for index in range(60)]
    assert not heard(list(itertools.accumulate(lengths)))


def test_losses_by_chance_are_hardly_ever_in_time():
    rng = random.Random(7)
    hours, now, times = 1, 0.0, []
    while now < hours * 3600:
        now += rng.uniform(0.3, 1.5)
        times.append(now)
    beat = Beat()
    assert sum(beat.lost(time, RTT_S) for time in times) <= 1


def lose(rivals: Rivals, start: float, beats: int = BEATS + 1) -> float:
    now = start
    for index in range(beats):
        now = start + index * 8.2 * MIN_RTT_S
        rivals.lost(path(), now)
    return now


@pytest.mark.parametrize("boot_s", [0.0, 1e6])
def test_a_beat_is_pressed_against_for_a_while_and_longer_the_next_time(boot_s: float):
    rivals = Rivals()
    heard_at = lose(rivals, boot_s)
    assert rivals.presses(heard_at)
    for second in range(int(PRESS_S)):
        rivals.lost(path(), heard_at + second)
    assert rivals.presses(heard_at + PRESS_S - 0.5) and not rivals.presses(heard_at + PRESS_S)
    pressed_s = PRESS_S
    for _ in range(3):
        heard_at = lose(rivals, heard_at + pressed_s + 1.0)
        pressed_s = min(2 * pressed_s, PRESS_S_MAX)
        for second in range(int(pressed_s)):
            rivals.lost(path(), heard_at + second)
        assert rivals.presses(heard_at + pressed_s - 0.5) and not rivals.presses(heard_at + pressed_s)
    heard_at = lose(rivals, heard_at + pressed_s + AGAIN_S + 1.0)
    rivals.lost(path(), heard_at + PRESS_S - 0.5)
    assert not rivals.presses(heard_at + PRESS_S)


def test_pressing_ends_when_nobody_presses_back():
    rivals = Rivals()
    heard_at = lose(rivals, 0.0)
    assert rivals.presses(heard_at + PRESS_QUIET_S)
    assert not rivals.presses(heard_at + PRESS_QUIET_S + 0.1)


def watch(rivals: Rivals, floors_ms: list[float], start: float) -> float:
    now = start
    for floor_ms in floors_ms:
        now += floor_ms / 1e3
        assert not rivals.round(path(floor_ms / 1e3), now)
    return now


def test_a_look_is_pressed_against_until_the_next_is_due_and_a_sawtooth_is_not():
    rivals = Rivals()
    now = watch(rivals, BBR_MS, 0.0)
    rivals.lost(path(), now + LOOK_PRESS_S - 1)
    assert rivals.presses(now + LOOK_PRESS_S - 0.5) and not rivals.presses(now + LOOK_PRESS_S + 0.1)
    now = watch(rivals, BBR_MS, 60.0)
    assert rivals.presses(now)
    now = watch(rivals, BBR_MS, 63.0)
    assert not rivals.presses(now)


def test_on_a_short_queue_we_cut_after_others_have():
    rivals, cuts = Rivals(), []
    for fall in range(2 * OTHERS_CUTS + 1):
        for floor_ms, mean_ms in CUBIC_MS:
            if rivals.round(path(MIN_RTT_S + floor_ms / 1e3, MIN_RTT_S + mean_ms / 1e3, 0.0066), float(fall)):
                cuts.append(fall)
                rivals.cut()
    assert cuts == [OTHERS_CUTS - 1, 2 * OTHERS_CUTS - 1]
