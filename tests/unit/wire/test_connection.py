"""Calls over two connections: small and bulk, both ways, answers, refusals, limits."""

from __future__ import annotations

import random

import pytest

from agent.errors import CallRefused, LinkClosed, LocalError, ProtocolViolation
from agent.wire.codec import BUFFERS_MAX, METHOD_LENGTH_MAX
from agent.wire.config import ENVELOPE_BYTES_MAX, KIB, WireConfig
from agent.wire.connection import Cancelled, Connection, Failed, Lane, Notified, Requested, Responded
from tests.unit.wire.pair import Pair, failed, requested, responded

SMALL = WireConfig().small_bytes


def config(**changes: int) -> WireConfig:
    """Small enough to reach the limits quickly."""
    base = {
        "fragment_bytes": 1024,
        "small_bytes": 256,
        "window_bytes": 4096,
        "message_bytes_max": 10_000,
        "request_bytes_max": 12_000,
        "response_bytes_max": 12_000,
        "inbound_calls_max": 4,
        "outbound_calls_max": 8,
        "outbound_bytes_max": 30_000,
    }
    return WireConfig(**(base | changes))


@pytest.mark.parametrize("asking", [0, 1])
@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 60 * KIB, 1_000_003])
def test_request_and_response_arrive_intact(asking: int, size: int) -> None:
    pair = Pair()
    body = random.Random(size).randbytes(size)
    call = pair.ask(asking, body, header=b"")
    [event] = pair.settle()
    assert isinstance(event, Requested) and event.call == call and event.method == "method"
    assert event.header == b"" and event.buffers == (body,) and event.deadline == pair.now + 10
    pair.answer(1 - asking, call, body[::-1])
    [answer] = pair.settle()
    assert answer == Responded(call, b"r", (memoryview(body[::-1]),))
    pair.assert_nothing_left()


def test_buffers_of_any_shape_and_kind_arrive_writable_and_aligned() -> None:
    import numpy as np

    pair = Pair()
    array = np.arange(30_000, dtype=np.float32).reshape(100, 300)
    buffers = [array.data, b"", bytearray(b"x" * 7), memoryview(b"tail"), np.empty((0, 3), np.float32).data]
    pair.sides[0].request("m", b"head" * 5000, buffers, now=pair.now, timeout_s=1)
    [event] = requested(pair.settle())
    assert event.header == b"head" * 5000
    assert [bytes(b) for b in event.buffers] == [array.tobytes(), b"", b"x" * 7, b"tail", b""]
    assert not any(b.readonly for b in event.buffers)
    np.testing.assert_array_equal(np.frombuffer(event.buffers[0], np.float32).reshape(100, 300), array)
    addresses = [np.frombuffer(b, np.uint8).ctypes.data for b in event.buffers if len(b)]
    assert all(a % 16 == 0 for a in addresses)


def test_a_buffer_that_is_not_contiguous_is_refused_here() -> None:
    with pytest.raises(ValueError, match="contiguous"):
        Pair().sides[0].request("m", b"", [memoryview(b"abcdef")[::2]], now=0, timeout_s=1)


def test_a_message_of_the_small_size_goes_whole_on_the_control_lane_and_one_byte_more_in_bulk() -> None:
    for extra, lane in ((0, Lane.CONTROL), (1, Lane.BULK)):
        pair = Pair()
        pair.ask(0, bytes(SMALL + extra), header=b"")
        assert {m.lane for m in pair.sides[0].transmit(pair.now, 1 << 20)} == {lane}


def test_no_frame_is_longer_than_the_link_takes() -> None:
    limits = WireConfig(link_message_bytes_max=8 * KIB)
    pair = Pair(limits)
    assert limits.small_total == 8 * KIB - ENVELOPE_BYTES_MAX
    for size in (limits.small_total, 100_000):
        pair.sides[0].request("m" * METHOD_LENGTH_MAX, b"", [b""] * 254 + [bytes(size)], now=pair.now, timeout_s=1)
    sent = pair.sides[0].transmit(pair.now, 1 << 20)
    assert 8000 < max(len(m.data) for m in sent) <= 8 * KIB


def test_control_goes_first_and_bulk_messages_take_turns() -> None:
    pair = Pair()
    first, second = pair.ask(0, bytes(200_000)), pair.ask(0, bytes(200_000))
    pair.ask(0, b"small")
    pair.sides[0].notify("n", b"", now=pair.now)
    sent = pair.sides[0].transmit(pair.now, 1 << 20)
    lanes = [m.lane for m in sent]
    assert lanes == sorted(lanes) and lanes.count(Lane.CONTROL) == 2
    fragments = [int.from_bytes(m.data[1:9], "big") for m in sent if m.lane == Lane.BULK and m.data[0] == 0xC1]
    assert fragments == [first, second] * 4


def test_bulk_keeps_to_the_room_and_control_may_overdraw_it() -> None:
    pair = Pair()
    pair.ask(0, bytes(1_000_000))
    assert pair.sides[0].transmit(pair.now, 0) == []
    sent = pair.sides[0].transmit(pair.now, 1)
    assert len([m for m in sent if m.data[0] == 0xC1]) == 1
    overdraft = WireConfig().control_overdraft_bytes
    pair.ask(0, b"urgent")
    assert pair.sides[0].transmit(pair.now, -overdraft) == []
    assert [m.lane for m in pair.sides[0].transmit(pair.now, -overdraft + 1)] == [Lane.CONTROL]


def test_refusal() -> None:
    pair = Pair()
    call = pair.ask(0, bytes(100_000))
    pair.settle()
    pair.sides[1].refuse(call, "inputs-gone", "too old \udcff" + "x" * 1000, now=pair.now)
    [event] = failed(pair.settle())
    assert isinstance(event.error, CallRefused) and event.error.code == "inputs-gone"
    assert event.error.message.startswith("too old ?xxx") and len(event.error.message) == 400
    pair.assert_nothing_left()


def test_only_the_first_answer_counts_and_an_answer_to_nothing_is_ignored() -> None:
    pair = Pair()
    call = pair.ask(0)
    pair.settle()
    for _ in range(2):
        pair.answer(1, call, bytes(50_000))
    pair.sides[1].refuse(call, "no", now=pair.now)
    pair.answer(1, 999)
    assert len(pair.settle()) == 1
    pair.assert_nothing_left()


def test_notifications_arrive_in_order_and_are_dropped_beyond_their_bound() -> None:
    pair = Pair(config(notify_bytes_max=1000))
    results = [pair.sides[0].notify("n", bytes([i]) * 200, now=pair.now) for i in range(6)]
    assert results == [True] * 4 + [False] * 2
    assert pair.settle() == [Notified("n", bytes([i]) * 200) for i in range(4)]
    assert pair.sides[0].notify("n", b"", now=pair.now)
    with pytest.raises(ValueError, match="notification"):
        pair.sides[0].notify("n", bytes(257), now=pair.now)


def test_what_a_caller_may_not_ask() -> None:
    side = Pair(config()).sides[0]

    def ask(method: str = "m", size: int = 0, buffers: int = 0, timeout_s: float = 1.0) -> int:
        return side.request(method, bytes(size), [b""] * buffers, now=0, timeout_s=timeout_s)

    for wrong in ({"method": ""}, {"method": "m" * 65}, {"method": "é"}, {"size": 10_001}, {"buffers": BUFFERS_MAX + 1}):
        with pytest.raises(ValueError):
            ask(**wrong)  # type: ignore[arg-type]
    for timeout_s in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            ask(timeout_s=timeout_s)
    ask(method="m" * 64, size=10_000, timeout_s=float("inf"))
    ask(buffers=BUFFERS_MAX)


def test_too_many_open_calls_are_refused_here() -> None:
    pair = Pair(config())
    calls = [pair.ask(0) for _ in range(8)]
    with pytest.raises(LocalError, match="too many"):
        pair.ask(0)
    pair.sides[0].cancel(calls[0], now=pair.now)
    pair.ask(0)


def test_too_many_unsent_bytes_are_refused_here() -> None:
    pair = Pair(config())
    calls = [pair.ask(0, bytes(10_000), header=b"") for _ in range(3)]
    with pytest.raises(LocalError, match="too many"):
        pair.ask(0, bytes(257))
    pair.ask(0, bytes(255))  # small ones go on
    pair.sides[0].cancel(calls[1], now=pair.now)
    pair.ask(0, bytes(9_999))


def test_too_many_unsent_answers_become_refusals() -> None:
    pair = Pair(config(outbound_bytes_max=10_000))
    first, second = pair.ask(0), pair.ask(0)
    pair.settle()
    pair.answer(1, first, bytes(9_000))
    pair.answer(1, second, bytes(1_000))
    results = {e.call: e for e in pair.settle()}
    assert isinstance(results[first], Responded)
    error = results[second].error  # type: ignore[union-attr]
    assert isinstance(error, CallRefused) and error.code == "overloaded"


def test_a_message_larger_than_the_peer_takes_fails_at_once() -> None:
    small = config(message_bytes_max=5_000)
    pair = Pair(config(), small, settled=False)
    early = pair.ask(0, bytes(6_000))
    [event] = pair.settle()
    assert isinstance(event, Failed) and event.call == early and event.error.code == "too-large"  # type: ignore[attr-defined]
    with pytest.raises(CallRefused, match="too-large"):
        pair.ask(0, bytes(5_000))
    fits = pair.ask(0, bytes(4_999))
    assert [e.call for e in requested(pair.settle())] == [fits]
    asked = pair.ask(1)
    pair.settle()
    pair.answer(0, asked, bytes(6_000))
    assert failed(pair.settle())[0].error.code == "too-large"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="more than a message"):
        pair.answer(0, 1, bytes(10_001))


def test_messages_of_many_windows_cross_both_ways_at_once() -> None:
    pair = Pair(config())
    calls = [pair.ask(side, bytes([side]) * 9_000) for side in (0, 1) for _ in range(3)]
    seen = set()
    for _ in range(20):
        for event in pair.settle():
            if isinstance(event, Requested):
                pair.answer(1 - event.call % 2, event.call, bytes(9_500))
            else:
                assert isinstance(event, Responded)
                seen.add(event.call)
    assert seen == set(calls)
    pair.assert_nothing_left()


def test_answers_arrive_while_requests_wait_for_handlers() -> None:
    """The peer's handlers are full of our requests, and each of them needs an answer from us first."""
    pair = Pair(config())
    for _ in range(2):
        pair.ask(0, bytes(9_000))
    [held] = requested(pair.settle())  # the second waits for bytes
    nested = pair.ask(1, bytes(9_000))
    [event] = requested(pair.settle())
    assert event.call == nested
    pair.answer(0, nested, bytes(9_000))
    assert [e.call for e in responded(pair.settle())] == [nested]
    pair.answer(1, held.call)
    events = pair.settle()
    assert len(responded(events)) == 1 and len(requested(events)) == 1


def test_calls_beyond_the_peers_maximum_wait_their_turn() -> None:
    pair = Pair(config())
    calls = [pair.ask(0) for _ in range(6)]
    assert [e.call for e in requested(pair.settle())] == calls[:4]
    pair.answer(1, calls[0])
    events = pair.settle()
    assert [e.call for e in requested(events)] == [calls[4]]


def test_close_fails_what_is_open_and_stops_what_is_handled() -> None:
    pair = Pair()
    mine, theirs = pair.ask(0, bytes(100_000)), pair.ask(1)
    pair.settle()
    error = LinkClosed("gone")
    assert pair.sides[0].close(error) == [Failed(mine, error), Cancelled(theirs)]
    assert pair.sides[0].close(error) == [] and pair.sides[0].next_deadline() is None
    assert pair.sides[0].tick(1e9) == [] and pair.sides[0].transmit(1e9, 1 << 20) == []
    assert pair.sides[0].receive(0, memoryview(b"junk"), 1e9) == [] and not pair.sides[0].notify("n", b"", now=0)
    pair.answer(0, theirs)
    with pytest.raises(LinkClosed, match="gone"):
        pair.ask(0)


def test_two_initiators_do_not_get_along() -> None:
    a, b = (Connection(WireConfig(), initiator=True) for _ in range(2))
    for message in a.transmit(0, 1 << 20):
        b.receive(message.lane, memoryview(message.data), 0)
    b.request("m", b"", [], now=0, timeout_s=1)
    with pytest.raises(ProtocolViolation, match="not its own"):
        for message in b.transmit(0, 1 << 20):
            a.receive(message.lane, memoryview(message.data), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"link_message_bytes_max": 8 * KIB - 1},
        {"fragment_bytes": 1023},
        {"small_bytes": 32 * KIB + 1},
        {"window_bytes": 4095},
        {"message_bytes_max": 0},
        {"message_bytes_max": 12_001},
        {"inbound_calls_max": 0},
        {"inbound_calls_max": 65_537},
        {"outbound_calls_max": 0},
        {"ping_period_s": 0},
    ],
)
def test_unfit_configuration(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        config(**changes)


def test_each_side_keeps_to_the_others_window() -> None:
    pair = Pair(WireConfig(small_bytes=256), config(window_bytes=4096))
    call = pair.ask(0, bytes(9_000), header=b"")
    pair.transmit(0)
    sent = [data for data in pair.lanes[0][Lane.BULK] if data[0] == 0xC1]
    assert [len(data) - 9 for data in sent] == [1024] * 4, "a quarter of the window at a time, and no more than all of it"
    assert [e.call for e in requested(pair.settle())] == [call]


def test_a_message_may_come_in_as_many_small_pieces_as_it_likes() -> None:
    """Sides with different settings for everything that is the sender's to choose."""
    pair = Pair(config(small_bytes=0, fragment_bytes=1024), config(small_bytes=9_000, fragment_bytes=8_000))
    for side in (0, 1):
        call = pair.ask(side, b"x" * 9_000)
        [event] = requested(pair.settle())
        pair.answer(1 - side, call, bytes(event.buffers[0]))
        assert [bytes(e.buffers[0]) for e in responded(pair.settle())] == [b"x" * 9_000]
    pair.assert_nothing_left()


def test_a_refusals_code_is_a_short_word() -> None:
    pair = Pair()
    call = pair.ask(0)
    pair.settle()
    for code in ("", "x" * 65, "é"):
        with pytest.raises(ValueError, match="code"):
            pair.sides[1].refuse(call, code, now=pair.now)
    pair.sides[1].refuse(call, "x" * 64, now=pair.now)
    assert len(failed(pair.settle())) == 1
