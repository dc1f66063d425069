"""Two connections joined by four in-order queues, one per direction and lane, that deliver when told to."""

from __future__ import annotations

from collections import deque

from agent.wire.config import WireConfig
from agent.wire.connection import Connection, Event, Failed, Lane, Requested, Responded

ROOM = 1 << 20


class Pair:
    """`sides[0]` is the initiator. Every event is appended to `events[side]`."""

    def __init__(self, config: WireConfig | None = None, other: WireConfig | None = None, *, settled: bool = True) -> None:
        config = config or WireConfig()
        self.sides = (Connection(config, initiator=True), Connection(other or config, initiator=False))
        self.lanes = tuple({Lane.CONTROL: deque[bytes](), Lane.BULK: deque[bytes]()} for _ in range(2))
        self.events: tuple[list[Event], list[Event]] = ([], [])
        self.now = 100.0
        if settled:
            self.settle()

    def transmit(self, side: int, room: int = ROOM) -> int:
        """Put what `side` sends now on the way; returns how many messages that were."""
        out = self.sides[side].transmit(self.now, room)
        for lane, data in out:
            self.lanes[side][lane].append(data)
        return len(out)

    def deliver(self, sender: int, lane: Lane, count: int = 1 << 30) -> list[Event]:
        """Hand over up to `count` messages that are on the way from `sender`."""
        queue, new = self.lanes[sender][lane], []
        while queue and count:
            new += self.sides[1 - sender].receive(lane, memoryview(queue.popleft()), self.now)
            count -= 1
        self.events[1 - sender].extend(new)
        return new

    def settle(self) -> list[Event]:
        """Transmit and deliver until nothing moves any more; returns the events of both sides."""
        new: list[Event] = []
        for _ in range(100_000):
            for side in (0, 1):
                self.transmit(side)
            if not any(queue for lanes in self.lanes for queue in lanes.values()):
                return new
            for side in (0, 1):
                new += self.deliver(side, Lane.CONTROL) + self.deliver(side, Lane.BULK)
        raise AssertionError("the two connections never came to rest")

    def advance(self, seconds: float) -> list[Event]:
        """Move the clock and tick both sides."""
        self.now += seconds
        new: list[Event] = []
        for side in (0, 1):
            events = self.sides[side].tick(self.now)
            self.events[side].extend(events)
            new += events
        return new

    def ask(self, side: int = 0, body: bytes = b"", timeout_s: float = 10.0, header: bytes = b"h") -> int:
        return self.sides[side].request("method", header, [body], now=self.now, timeout_s=timeout_s)

    def answer(self, side: int, call: int, body: bytes = b"") -> None:
        self.sides[side].respond(call, b"r", [body], now=self.now)

    def assert_nothing_left(self) -> None:
        """Both sides agree that no call is open, and every credit has come back or is owed."""
        for side, connection in enumerate(self.sides):
            assert connection.open_calls == (0, 0)
            assert connection._caller._calls == {} and connection.idle
            allowance, ledger = connection._outbox.allowance, self.sides[1 - side]._ledger
            for name in ("window", "calls", "request_bytes", "response_bytes"):
                account = getattr(ledger, name)
                assert account.left == getattr(allowance, name), name
                assert account.left + account.owed == getattr(ledger.limits(), name), name
            assert connection._outbox._unsent_bytes == [0, 0]
            assert not connection._caller.deadlines and not connection._callee.deadlines


def requested(events: list[Event]) -> list[Requested]:
    return [e for e in events if isinstance(e, Requested)]


def responded(events: list[Event]) -> list[Responded]:
    return [e for e in events if isinstance(e, Responded)]


def failed(events: list[Event]) -> list[Failed]:
    return [e for e in events if isinstance(e, Failed)]
