"""Two connections under random interleavings: everything sent arrives exactly once and intact, or fails with a named error."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import CallRefused, CallTimeout, LocalError
from agent.wire.config import WireConfig
from agent.wire.connection import Cancelled, Event, Failed, Lane, Notified, Requested, Responded
from tests.unit.wire.pair import Pair

# Everything so small that every limit is met all the time. One message in flight may be several windows long.
TINY = WireConfig(
    link_message_bytes_max=8192,
    fragment_bytes=1024,
    small_bytes=300,
    window_bytes=4096,
    message_bytes_max=20_000,
    request_bytes_max=24_000,
    response_bytes_max=20_000,
    inbound_calls_max=3,
    outbound_calls_max=12,
    outbound_bytes_max=60_000,
    notify_bytes_max=2000,
)
SIDES = st.integers(0, 1)
SIZES = st.one_of(st.integers(0, 320), st.sampled_from([292, 299, 300, 301, 1015, 1016, 4096, 19_900]), st.integers(300, 19_900))
TIMEOUTS = st.sampled_from([0.5, 5.0, 1e6])


def payload(seed: int, size: int) -> tuple[bytes, list[bytes]]:
    """A header that names the contents, and buffers of random lengths that make up `size` bytes."""
    rng = random.Random(seed)
    buffers = []
    left = size
    while left:
        n = left if len(buffers) == 50 else min(left, rng.choice([0, 1, 15, 17, 1000, 9000, left]))
        buffers.append(rng.randbytes(n))
        left -= n
    return f"{seed}/{size}".encode(), buffers


def intact(header: bytes, buffers: tuple[memoryview, ...]) -> int:
    seed, size = map(int, header.split(b"/"))
    assert [bytes(b) for b in buffers] == payload(seed, size)[1]
    assert not any(b.readonly for b in buffers)
    return seed


class Conversation(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.pair = Pair(TINY, settled=False)
        self.seed = 0
        self.asked: list[dict[int, int]] = [{}, {}]  # side: call -> seed of its request
        self.asked_ever: list[set[int]] = [set(), set()]
        self.handling: list[dict[int, Requested]] = [{}, {}]
        self.answered: list[dict[int, int]] = [{}, {}]  # by the side that answered: call -> seed of the answer
        self.notes: list[list[bytes]] = [[], []]

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed

    def observe(self, side: int, events: list[Event]) -> None:
        """Check events against what was sent. Nothing comes twice, since every entry is removed."""
        for event in events:
            match event:
                case Requested():
                    assert event.call not in self.handling[side]
                    assert event.call in self.asked_ever[1 - side]
                    self.asked_ever[1 - side].remove(event.call)
                    intact(event.header, event.buffers)
                    self.handling[side][event.call] = event
                case Cancelled():
                    del self.handling[side][event.call]
                case Responded():
                    del self.asked[side][event.call]
                    assert self.answered[1 - side].pop(event.call) == intact(event.header, event.buffers)
                case Failed():
                    del self.asked[side][event.call]
                    assert isinstance(event.error, CallTimeout | CallRefused), event.error
                case Notified():
                    assert event.header == self.notes[1 - side].pop(0)

    def answerable(self, side: int, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.handling[side])))

    @rule(side=SIDES, size=SIZES, timeout=TIMEOUTS)
    def request(self, side: int, size: int, timeout: float) -> None:
        seed = self.next_seed()
        header, buffers = payload(seed, size)
        try:
            call = self.pair.sides[side].request("m", header, buffers, now=self.pair.now, timeout_s=timeout)
        except LocalError:
            return
        self.asked[side][call] = seed
        self.asked_ever[side].add(call)

    @rule(side=SIDES, data=st.data())
    def cancel(self, side: int, data: st.DataObject) -> None:
        if self.asked[side]:
            call = data.draw(st.sampled_from(sorted(self.asked[side])))
            del self.asked[side][call]
            self.pair.sides[side].cancel(call, now=self.pair.now)

    @precondition(lambda self: any(self.handling))
    @rule(data=st.data(), size=SIZES)
    def respond(self, data: st.DataObject, size: int) -> None:
        side = data.draw(st.sampled_from([s for s in (0, 1) if self.handling[s]]))
        self.respond_to(side, self.answerable(side, data), size)

    def respond_to(self, side: int, call: int, size: int) -> None:
        del self.handling[side][call]
        seed = self.next_seed()
        self.answered[side][call] = seed
        header, buffers = payload(seed, size)
        self.pair.sides[side].respond(call, header, buffers, now=self.pair.now)

    @precondition(lambda self: any(self.handling))
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        side = data.draw(st.sampled_from([s for s in (0, 1) if self.handling[s]]))
        call = self.answerable(side, data)
        del self.handling[side][call]
        self.pair.sides[side].refuse(call, "no", "thanks", now=self.pair.now)

    @rule(side=SIDES, size=st.integers(0, 300))
    def notify(self, side: int, size: int) -> None:
        header = random.Random(self.next_seed()).randbytes(size)
        if self.pair.sides[side].notify("n", header, now=self.pair.now):
            self.notes[side].append(header)

    @rule(side=SIDES, room=st.sampled_from([-(1 << 20), -200_000, 0, 1, 3000, 1 << 20]))
    def transmit(self, side: int, room: int) -> None:
        self.pair.transmit(side, room)

    @rule(sender=SIDES, lane=st.sampled_from(Lane), count=st.integers(1, 20))
    def deliver(self, sender: int, lane: Lane, count: int) -> None:
        self.observe(1 - sender, self.pair.deliver(sender, lane, count))

    @rule(seconds=st.sampled_from([0.0, 0.3, 0.6, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.pair.now += seconds
        for side in (0, 1):
            # Nothing may ever arrive in a long run of these, so the keep-alive of this machine hears what it needs.
            self.pair.sides[side]._keep_alive.heard()
            self.observe(side, self.pair.sides[side].tick(self.pair.now))

    @invariant()
    def bounded(self) -> None:
        for connection in self.pair.sides if hasattr(self, "pair") else ():
            calls = connection._callee._calls.values()
            assert len(calls) <= TINY.inbound_calls_max
            assert sum(c.taken_bytes for c in calls) <= TINY.request_bytes_max
            ours = connection._caller._calls.values()
            assert sum(c.arriving.total for c in ours if c.arriving) <= TINY.response_bytes_max
            assert max(connection._outbox._unsent_bytes) <= TINY.outbound_bytes_max

    def teardown(self) -> None:
        """Without another second passing, everything must come to its end: nothing waits in a circle."""
        if not hasattr(self, "pair"):
            return
        for _ in range(1000):
            before = [len(events) for events in self.pair.events]
            self.pair.settle()
            for side in (0, 1):
                self.observe(side, self.pair.events[side][before[side] :])
            if not any(self.handling):
                break
            for side in (0, 1):
                for call in list(self.handling[side]):
                    self.respond_to(side, call, 9000)
        assert self.asked == [{}, {}] and self.notes == [[], []]
        self.pair.assert_nothing_left()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
