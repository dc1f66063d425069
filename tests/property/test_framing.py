"""Framing: several messages cut into fragments of any size, sent in turns, arrive whole; what does not fit is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from agent.errors import ProtocolViolation
from agent.wire import codec
from agent.wire.body import ALIGNMENT, IncomingBody, OutgoingBody
from agent.wire.codec import FRAGMENT_HEAD, FRAGMENT_MARK, Lane

SIZES = st.one_of(st.integers(0, 40), st.sampled_from([ALIGNMENT - 1, ALIGNMENT, ALIGNMENT + 1, 999]))
PREFIX = b"prefix"


class Message:
    """One on its way: its halves, and what was sent."""

    def __init__(self, seed: int, header_size: int, sizes: list[int]) -> None:
        rng = random.Random(seed)
        self.header = rng.randbytes(header_size)
        self.buffers = [rng.randbytes(size) for size in sizes]
        self.out = OutgoingBody(self.header, [memoryview(b) for b in self.buffers])
        self.into = IncomingBody(header_size, sizes)
        self.discarded = False


class Framing(RuleBasedStateMachine):
    messages: Bundle[Message] = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Message] = []

    @rule(target=messages, seed=st.integers(0, 2**32), header=SIZES, sizes=st.lists(SIZES, max_size=6))
    def begin(self, seed: int, header: int, sizes: list[int]) -> Message:
        message = Message(seed, header, sizes)
        assert message.out.total == message.into.total == header + sum(sizes)
        if message.out.total:
            self.open.append(message)
        return message

    @rule(message=messages, size=st.integers(1, 300))
    def send(self, message: Message, size: int) -> None:
        if not message.out.left:
            return
        before = message.out.left
        fragment = message.out.take(PREFIX, size)
        data = memoryview(fragment)[len(PREFIX) :]
        assert fragment.startswith(PREFIX)
        assert len(data) == min(size, before) == before - message.out.left
        complete = message.into.write(data)
        assert complete == (message.out.left == 0)
        if complete:
            self.open.remove(message)
            if not message.discarded:
                self.arrived(message)

    def arrived(self, message: Message) -> None:
        header, buffers = message.into.parts()
        assert (header, [bytes(b) for b in buffers]) == (message.header, message.buffers)
        assert not any(b.readonly for b in buffers)

    @rule(message=messages, more=st.integers(1, 50))
    def one_byte_too_many(self, message: Message, more: int) -> None:
        """It is refused, and nothing has changed by it."""
        left = message.into.left
        with pytest.raises(ProtocolViolation):
            message.into.write(memoryview(bytes(left + more)))
        with pytest.raises(ProtocolViolation):
            message.into.write(memoryview(b""))
        assert message.into.left == left

    @rule(message=messages)
    def give_memory_back(self, message: Message) -> None:
        message.into.discard()
        message.discarded = True

    @rule(message=consumes(messages))
    def forget(self, message: Message) -> None:
        if message in self.open:
            self.open.remove(message)

    @rule(target=messages, seed=st.integers(0, 2**32))
    def nothing_at_all(self, seed: int) -> object:
        """A message without a byte has no fragments."""
        message = Message(seed, 0, [0, 0])
        assert message.into.left == message.out.left == 0
        assert message.into.parts() == (b"", (memoryview(b""), memoryview(b"")))
        return multiple()

    @invariant()
    def both_ends_agree_on_what_is_missing(self) -> None:
        assert all(message.out.left == message.into.left > 0 for message in self.open)


TestFraming = Framing.TestCase
TestFraming.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


class Lanes(RuleBasedStateMachine):
    """Frames of both lanes in any order decode to what was encoded, on their own lane only."""

    @rule(call=st.integers(0, 2**53), size=st.integers(0, 300), timeout_ms=st.integers(0, codec.TIMEOUT_MS_MAX))
    def a_control_frame(self, call: int, size: int, timeout_ms: int) -> None:
        frame = codec.Request(call, timeout_ms, "method", bytes(size), [memoryview(bytes(size))])
        decoded = codec.decode(Lane.CONTROL, memoryview(codec.encode(frame)))
        assert isinstance(decoded, codec.Request)
        assert (decoded.call, bytes(decoded.header), len(decoded.buffers)) == (call, bytes(size), 1)
        with pytest.raises(ProtocolViolation):
            codec.decode(Lane.BULK, memoryview(codec.encode(codec.Notify("n", bytes(size)))))

    @rule(call=st.integers(0, 2**53), sizes=st.lists(st.integers(0, 2**20), max_size=5))
    def the_opening_of_a_bulk_message(self, call: int, sizes: list[int]) -> None:
        frame = codec.OpenResponse(call, 7, sizes)
        assert codec.decode(Lane.BULK, memoryview(codec.encode(frame))) == frame
        with pytest.raises(ProtocolViolation):
            codec.decode(Lane.CONTROL, memoryview(codec.encode(frame)))

    @rule(call=st.integers(0, 2**53), junk=st.binary(max_size=60))
    def a_fragment_is_no_frame(self, call: int, junk: bytes) -> None:
        with pytest.raises(ProtocolViolation):
            codec.decode(Lane.BULK, memoryview(FRAGMENT_HEAD.pack(FRAGMENT_MARK, call) + junk))


TestLanes = Lanes.TestCase
TestLanes.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
