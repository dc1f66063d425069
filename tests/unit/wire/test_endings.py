"""How a call ends early: deadline or cancellation, at each stage of its life. No credit is ever lost over it."""

from __future__ import annotations

import pytest

from agent.errors import CallTimeout
from agent.wire.config import WireConfig
from agent.wire.connection import Cancelled, Failed, Lane, Requested
from tests.unit.wire.pair import Pair, requested

BULK = 1_000_000
TIMEOUT_S = 2.0


def assert_timed_out(pair: Pair, call: int) -> None:
    [event] = [e for e in pair.events[0] if isinstance(e, Failed)]
    assert event.call == call and isinstance(event.error, CallTimeout)


@pytest.mark.parametrize("size", [10, BULK])
@pytest.mark.parametrize("by_deadline", [True, False])
class TestAtEachStage:
    """The caller ends it: by its deadline, or by cancelling."""

    def end(self, pair: Pair, call: int, by_deadline: bool) -> None:
        if by_deadline:
            pair.now += TIMEOUT_S
            events = pair.sides[0].tick(pair.now)
            pair.events[0].extend(events)
            assert_timed_out(pair, call)
            assert f"{TIMEOUT_S:.3g} s" in str(events[0].error)  # type: ignore[union-attr]
        else:
            pair.sides[0].cancel(call, now=pair.now)
            assert pair.events[0] == []
        assert pair.sides[0].open_calls[0] == 0
        pair.sides[0].cancel(call, now=pair.now)  # once more is harmless

    def test_before_its_first_byte(self, size: int, by_deadline: bool) -> None:
        pair = Pair()
        call = pair.ask(0, bytes(size), TIMEOUT_S)
        self.end(pair, call, by_deadline)
        assert [m.data for m in pair.sides[0].transmit(pair.now, 1 << 20) if m.lane == Lane.BULK] == []
        assert not requested(pair.settle())
        pair.assert_nothing_left()

    def test_while_it_is_on_its_way(self, size: int, by_deadline: bool) -> None:
        pair = Pair()
        call = pair.ask(0, bytes(size), TIMEOUT_S)
        pair.transmit(0, 200_000)
        sent_before = sum(map(len, pair.lanes[0][Lane.BULK]))
        self.end(pair, call, by_deadline)
        pair.transmit(0)
        assert sum(map(len, pair.lanes[0][Lane.BULK])) - sent_before < 100, "no more of it is sent"
        pair.settle()
        assert not any(isinstance(e, Requested) for e in pair.events[1]) or size < 100
        pair.assert_nothing_left()

    def test_while_it_is_handled(self, size: int, by_deadline: bool) -> None:
        pair = Pair()
        call = pair.ask(0, bytes(size), TIMEOUT_S)
        pair.settle()
        self.end(pair, call, by_deadline)
        assert pair.settle() == [Cancelled(call)]
        pair.answer(1, call, bytes(size))  # the handler did not notice in time
        assert pair.settle() == []
        pair.assert_nothing_left()

    def test_while_the_answer_is_on_its_way(self, size: int, by_deadline: bool) -> None:
        pair = Pair()
        call = pair.ask(0, b"", TIMEOUT_S)
        pair.settle()
        pair.answer(1, call, bytes(size))
        pair.transmit(1, 200_000)
        pair.deliver(1, Lane.BULK, 2)
        self.end(pair, call, by_deadline)
        assert [e for e in pair.settle() if not isinstance(e, Cancelled)] == []
        pair.assert_nothing_left()

    def test_while_the_answer_waits_to_be_sent(self, size: int, by_deadline: bool) -> None:
        pair = Pair()
        call = pair.ask(0, b"", TIMEOUT_S)
        pair.settle()
        pair.answer(1, call, bytes(size))
        self.end(pair, call, by_deadline)
        pair.transmit(0)
        pair.deliver(0, Lane.CONTROL)
        assert pair.settle() == []
        pair.assert_nothing_left()


def test_remaining_time_travels_not_the_clock() -> None:
    """The request waits a second before it is sent, and the receiver's clock is another."""
    pair = Pair()
    pair.ask(0, b"", timeout_s=5)
    [message] = pair.sides[0].transmit(pair.now + 1, 1 << 20)
    [event] = pair.sides[1].receive(message.lane, memoryview(message.data), 7000.0)
    assert isinstance(event, Requested) and event.deadline == 7004.0


def late(pair: Pair) -> list[object]:
    """Only the callee's clock reaches the deadline; the caller's ticks later."""
    pair.now += TIMEOUT_S
    return list(pair.sides[1].tick(pair.now))


def test_the_callee_stops_handling_at_the_deadline_by_itself() -> None:
    pair = Pair()
    call = pair.ask(0, bytes(BULK), TIMEOUT_S)
    pair.settle()
    assert late(pair) == [Cancelled(call)]
    pair.settle()
    assert_timed_out(pair, call)
    pair.assert_nothing_left()


def test_the_callee_lets_go_of_half_a_request_at_the_deadline() -> None:
    pair = Pair()
    call = pair.ask(0, bytes(BULK), TIMEOUT_S)
    pair.transmit(0, 300_000)
    pair.deliver(0, Lane.BULK)
    assert late(pair) == []
    body = pair.sides[1]._callee._calls[call].arriving
    assert body is not None and body._memory is None
    pair.transmit(0, 300_000)  # more is under way before the refusal arrives
    pair.settle()
    assert_timed_out(pair, call)
    assert not requested(pair.events[1])
    pair.assert_nothing_left()


def test_the_rest_of_a_request_may_still_arrive_after_its_deadline() -> None:
    pair = Pair()
    call = pair.ask(0, bytes(BULK), TIMEOUT_S)
    pair.transmit(0, 300_000)
    pair.deliver(0, Lane.BULK)
    pair.transmit(0)
    assert late(pair) == []
    assert pair.deliver(0, Lane.BULK) == []
    assert pair.sides[1].open_calls == (0, 0)
    pair.settle()
    assert_timed_out(pair, call)
    pair.assert_nothing_left()


def test_the_callee_aborts_half_an_answer_at_the_deadline() -> None:
    pair = Pair()
    call = pair.ask(0, b"", TIMEOUT_S)
    pair.settle()
    pair.answer(1, call, bytes(BULK))
    pair.transmit(1, 300_000)
    assert late(pair) == []
    pair.settle()
    assert_timed_out(pair, call)
    pair.assert_nothing_left()


def test_a_cancelled_request_that_joined_the_turn_gives_its_credit_back() -> None:
    """Found by the random interleavings: it has taken the peer's credit, and the peer never hears of it."""
    pair = Pair()
    first, second = pair.ask(0, bytes(BULK)), pair.ask(0, bytes(BULK))
    pair.transmit(0, 1)  # both join, one fragment of the first goes
    for call in (first, second):
        pair.sides[0].cancel(call, now=pair.now)
    pair.settle()
    pair.assert_nothing_left()


def test_buffers_are_let_go_as_soon_as_they_are_sent() -> None:
    pair = Pair()
    body = bytearray(BULK)
    pair.sides[0].request("m", b"", [body], now=pair.now, timeout_s=5)
    with pytest.raises(BufferError):
        body.append(1)  # exported
    pair.settle()
    body.append(1)


def test_deadlines_drive_the_timer() -> None:
    pair = Pair()
    assert pair.sides[0].next_deadline() == 0.0  # the first ping
    pair.advance(0)
    ping_at = pair.now + WireConfig().ping_period_s
    assert pair.sides[0].next_deadline() == ping_at
    call = pair.ask(0, b"", timeout_s=1)
    assert pair.sides[0].next_deadline() == pair.now + 1
    pair.settle()
    assert pair.sides[1].next_deadline() == pair.now + 1
    pair.answer(1, call)
    pair.settle()
    assert pair.sides[0].next_deadline() == ping_at
