from __future__ import annotations

import pytest

from agent.errors import LinkClosed, ProtocolViolation
from agent.wire.codec import Lane, Pong
from agent.wire.config import WireConfig
from agent.wire.keepalive import KeepAlive
from tests.unit.wire.pair import Pair

PERIOD_S = 5.0


def test_round_trip_time_is_measured_and_smoothed() -> None:
    pair = Pair(WireConfig(ping_period_s=PERIOD_S))
    assert pair.sides[0].rtt_s is None
    for delay, expected in ((0.2, 0.2), (1.0, 0.2 + 0.125 * 0.8)):
        pair.sides[0].tick(pair.now)
        pair.transmit(0)
        pair.now += delay
        pair.settle()
        assert pair.sides[0].rtt_s == pytest.approx(expected)
        pair.now += PERIOD_S


def test_a_silent_peer_is_given_up_after_its_pings() -> None:
    keep_alive = KeepAlive(WireConfig(ping_period_s=PERIOD_S, pings_unanswered_max=3))
    for i in range(3):
        assert keep_alive.tick(i * PERIOD_S) is not None
        assert keep_alive.tick(i * PERIOD_S + 4.9) is None
    with pytest.raises(LinkClosed, match=r"silent for 3 pings \(15 s\)"):
        keep_alive.tick(3 * PERIOD_S)


def test_anything_heard_counts_as_life() -> None:
    keep_alive = KeepAlive(WireConfig(ping_period_s=PERIOD_S))
    for i in range(20):
        assert keep_alive.tick(i * PERIOD_S) is not None
        if i % 2:
            keep_alive.heard()


def test_a_process_that_was_suspended_does_not_blame_its_peer() -> None:
    pair = Pair(WireConfig(ping_period_s=PERIOD_S))
    pair.advance(0)
    pair.transmit(0)
    pair.advance(3600)  # the answer waits in the socket meanwhile
    pair.settle()
    pair.advance(PERIOD_S)
    pair.settle()
    assert pair.sides[0].next_deadline() == pair.now + PERIOD_S


def test_a_peer_that_stops_answering_ends_the_connection() -> None:
    pair = Pair(WireConfig(ping_period_s=PERIOD_S))
    with pytest.raises(LinkClosed, match="silent"):
        for _ in range(10):
            pair.now += PERIOD_S
            pair.sides[0].tick(pair.now)
            pair.transmit(0)
            pair.lanes[0][Lane.CONTROL].clear()


def test_a_standing_link_makes_no_queue_of_pings() -> None:
    pair = Pair(WireConfig(ping_period_s=PERIOD_S))
    for _ in range(100):
        pair.now += PERIOD_S
        pair.sides[0].tick(pair.now)
        pair.sides[0]._keep_alive.heard()
    assert len(pair.sides[0].transmit(pair.now, 1 << 20)) == 1


def test_pongs_count_once_and_only_if_asked() -> None:
    keep_alive = KeepAlive(WireConfig(ping_period_s=PERIOD_S, pings_unanswered_max=2))
    for i in range(5):
        keep_alive.tick(i * PERIOD_S)
        keep_alive.heard()
    for token in (0, 6):
        with pytest.raises(ProtocolViolation):
            keep_alive.on_pong(Pong(token), 20.0)
    keep_alive.on_pong(Pong(1), 1000.0)  # forgotten, and too late to tell anything
    assert keep_alive.rtt_s is None and len(keep_alive._sent_at) <= 3
    keep_alive.on_pong(Pong(5), 20.5)
    keep_alive.on_pong(Pong(5), 90.0)
    assert keep_alive.rtt_s == pytest.approx(0.5)
