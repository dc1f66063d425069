"""What no correct peer can produce, each at the limit (accepted) and one past it (a violation)."""

from __future__ import annotations

import tracemalloc

import pytest

from agent.errors import ProtocolViolation
from agent.wire import codec
from agent.wire.codec import FRAGMENT_HEAD, FRAGMENT_MARK, MSGPACK_FRAME_BYTES_MAX, Frame, Lane
from agent.wire.config import MIB, WireConfig
from agent.wire.connection import Connection, Event, Requested

CONFIG = WireConfig(
    fragment_bytes=1024,
    window_bytes=4096,
    message_bytes_max=10_000,
    request_bytes_max=12_000,
    response_bytes_max=12_000,
    small_bytes=256,
    inbound_calls_max=3,
)
GENEROUS = codec.Limits(1 << 20, 10, 1 << 20, 1 << 20, 1 << 20)


class Victim:
    """A connection (the initiator) that the test feeds by hand; the peer's calls are odd."""

    def __init__(self, config: WireConfig = CONFIG) -> None:
        self.connection = Connection(config, initiator=True)
        self.send(GENEROUS)
        self.transmit()

    def send(self, frame: Frame, lane: Lane | None = None) -> list[Event]:
        if lane is None:
            lane = Lane.BULK if isinstance(frame, codec.OpenRequest | codec.OpenResponse | codec.Abort) else Lane.CONTROL
        return self.connection.receive(lane, memoryview(codec.encode(frame)), 0.0)

    def fragment(self, call: int, size: int, lane: Lane = Lane.BULK) -> list[Event]:
        return self.connection.receive(lane, memoryview(FRAGMENT_HEAD.pack(FRAGMENT_MARK, call) + bytes(size)), 0.0)

    def open(self, call: int, *sizes: int) -> list[Event]:
        return self.send(codec.OpenRequest(call, 1000, "m", 0, list(sizes)))

    def transmit(self) -> list[object]:
        return [m.data for m in self.connection.transmit(0.0, 1 << 20)]

    def ask(self, size: int = 0) -> int:
        call = self.connection.request("m", b"", [bytes(size)], now=0.0, timeout_s=1)
        self.transmit()
        return call


def violation(match: str) -> pytest.RaisesExc[ProtocolViolation]:
    return pytest.raises(ProtocolViolation, match=match)


@pytest.fixture
def victim() -> Victim:
    return Victim()


def test_frames_that_are_not_frames(victim: Victim) -> None:
    for junk in (
        b"",
        b"\x00",
        b"\x90",
        b"\x91\x63",
        b"hello",
        b"\xdd\xff\xff\xff\xff",
        b"\x93\x05\x00\xa2\xff\xff",
        b"\x91" * 30_000,
    ):
        for lane in Lane:
            with pytest.raises(ProtocolViolation):
                victim.connection.receive(lane, memoryview(junk), 0.0)


def test_frame_length(victim: Victim) -> None:
    overhead = len(codec.encode(codec.Notify("m", bytes(30_000)))) - 30_000
    victim.send(codec.Notify("m", bytes(MSGPACK_FRAME_BYTES_MAX - overhead)))
    with violation("longer than"):
        victim.send(codec.Notify("m", bytes(MSGPACK_FRAME_BYTES_MAX - overhead + 1)))


@pytest.mark.parametrize(
    ("frame", "lane"),
    [
        (codec.Notify("m", b""), Lane.BULK),
        (codec.Credit(), Lane.BULK),
        (codec.OpenRequest(1, 1, "m", 1, []), Lane.CONTROL),
        (codec.Abort(0), Lane.CONTROL),
    ],
)
def test_lanes(victim: Victim, frame: Frame, lane: Lane) -> None:
    with violation("wrong lane"):
        victim.send(frame, lane)
    with violation("wrong lane"):
        victim.fragment(1, 1, Lane.CONTROL)


def test_limits_come_once_and_make_sense(victim: Victim) -> None:
    with violation("second Limits"):
        victim.send(GENEROUS)
    fresh = Connection(CONFIG, initiator=True)
    for limits in (codec.Limits(4096, 1, 10, 9, 10), codec.Limits(4096, 1, 9, 10, 10)):
        with violation("contradictory"):
            fresh.receive(0, memoryview(codec.encode(limits)), 0.0)
    for limits in (codec.Limits(4095, 1, 9, 9, 9), codec.Limits(4096, 0, 9, 9, 9), codec.Limits(4096, 65_537, 9, 9, 9)):
        with violation("could not be read"):
            fresh.receive(0, memoryview(codec.encode(limits)), 0.0)
    with violation("before Limits"):
        fresh.receive(0, memoryview(codec.encode(codec.Credit(1))), 0.0)


def test_credit_is_not_more_than_was_taken(victim: Victim) -> None:
    victim.ask(9_000)
    victim.send(codec.Credit(9_000, 1, 9_000, 0))
    for credit in (codec.Credit(1), codec.Credit(0, 1), codec.Credit(0, 0, 1), codec.Credit(0, 0, 0, 1)):
        fresh = Victim()
        with violation("more credit"):
            fresh.send(credit)


def test_calls(victim: Victim) -> None:
    for call in (1, 3, 5):
        victim.send(codec.Request(call, 1000, "m", b"", []))
    with violation("spent 1 of calls, and had 0"):
        victim.send(codec.Request(7, 1000, "m", b"", []))


def test_numbers(victim: Victim) -> None:
    victim.send(codec.Request(1, 1000, "m", b"", []))
    with violation("twice"):
        victim.send(codec.Request(1, 1000, "m", b"", []))
    with violation("twice"):
        victim.open(1, 500)
    with violation("not its own"):
        victim.send(codec.Request(2, 1000, "m", b"", []))
    with violation("not its own"):
        victim.send(codec.Cancel(2))
    assert victim.send(codec.Cancel(9)) == []  # we may have ended it already


def test_window(victim: Victim) -> None:
    victim.open(1, 10_000)
    victim.fragment(1, 4096)
    with violation("of window"):
        victim.fragment(1, 1)
    victim.transmit()  # returns the credit
    victim.fragment(1, 4096)


def test_message_size(victim: Victim) -> None:
    victim.open(1, 9_999, 1)
    for sizes in ((10_000, 1), (), (0, 0)):
        with violation("was announced"):
            victim.open(3, *sizes)
    with violation("could not be read"):
        victim.open(3, *[1] * (codec.BUFFERS_MAX + 1))


def test_bytes_of_requests(victim: Victim) -> None:
    victim.open(1, 10_000)
    victim.open(3, 2_000)
    with violation("of request_bytes"):
        victim.open(5, 1)


def test_bytes_of_responses(victim: Victim) -> None:
    first, second, third = (victim.ask() for _ in range(3))
    victim.send(codec.OpenResponse(first, 0, [10_000]))
    victim.send(codec.OpenResponse(second, 0, [2_000]))
    with violation("of response_bytes"):
        victim.send(codec.OpenResponse(third, 0, [1]))


def test_fragments(victim: Victim) -> None:
    victim.open(1, 100)
    with violation("empty"):
        victim.fragment(1, 0)
    with violation("a fragment of 101 bytes"):
        victim.fragment(1, 101)
    with violation("not arriving"):
        victim.fragment(3, 1)
    with violation("not begun"):
        victim.fragment(0, 1)
    with violation("empty"):
        victim.connection.receive(Lane.BULK, memoryview(b"\xc1\x00"), 0.0)
    [event] = victim.fragment(1, 100)
    assert isinstance(event, Requested)
    with violation("not arriving"):
        victim.fragment(1, 1)


def test_answers_to_nothing(victim: Victim) -> None:
    frames: list[Frame] = [
        codec.Response(0, b"", []),
        codec.OpenResponse(0, 0, [1]),
        codec.Refused(0, "no"),
        codec.Abort(0),
    ]
    for frame in frames:
        with violation("not open"):
            victim.send(frame)
    victim.connection.request("m", b"", [], now=0.0, timeout_s=1)  # not sent yet
    for frame in frames:
        with violation("not open"):
            victim.send(frame)


def test_two_answers(victim: Victim) -> None:
    call = victim.ask()
    with violation("had not begun"):
        victim.send(codec.Abort(call))
    victim.send(codec.OpenResponse(call, 0, [10]))
    for frame in (codec.Response(call, b"", []), codec.OpenResponse(call, 0, [1]), codec.Refused(call, "no")):
        with violation("answered"):
            victim.send(frame)
    victim.fragment(call, 10)
    with violation("not open"):
        victim.send(codec.Response(call, b"", []))


def test_an_answer_before_the_question_was_sent_whole(victim: Victim) -> None:
    victim.connection.request("m", b"", [bytes(9_000)], now=0.0, timeout_s=1)
    victim.connection.transmit(0.0, 1)
    for frame in (codec.Response(0, b"", []), codec.OpenResponse(0, 0, [1])):
        with violation("before it was wholly asked"):
            victim.send(frame)
    assert len(victim.send(codec.Refused(0, "no"))) == 1  # a refusal may come early


def test_pong_without_ping(victim: Victim) -> None:
    for token in (0, 1):
        with violation("no Ping"):
            victim.send(codec.Pong(token))


def test_a_flood_of_pings_makes_no_queue(victim: Victim) -> None:
    for token in range(1000):
        victim.send(codec.Ping(token))
    assert victim.transmit() == [codec.encode(codec.Pong(999))]


def test_what_a_hostile_peer_can_make_us_hold() -> None:
    """Half of as many bulk messages as the limits allow, and small requests never answered."""
    config = WireConfig(message_bytes_max=MIB, request_bytes_max=4 * MIB, response_bytes_max=MIB, inbound_calls_max=64)
    victim = Victim(config)
    tracemalloc.start()
    try:
        for i in range(4):
            victim.open(2 * i + 1, *[MIB // 255] * 255)
            victim.fragment(2 * i + 1, MIB // 2)
        for i in range(4, 64):
            victim.send(codec.Request(2 * i + 1, 86_400_000, "m", b"", [memoryview(bytes(128))] * 128))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with violation("of request_bytes"):
        victim.open(201, MIB)
    assert held < 4 * MIB + 64 * 64 * 1024
