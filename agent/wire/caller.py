"""Our calls on one connection: from request to answer, refusal, deadline or cancellation.

    waiting ──first byte──▶ begun ──answer, refusal, abort──▶ gone
       │                      │
       └─deadline, cancel─▶ gone   └─deadline, cancel─▶ abandoned ──answer, refusal, abort──▶ gone (silently)

An abandoned call stays on the books until the peer has ended it, which it does at once: the peer's credit bounds their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.errors import CallRefused, CallTimeout, HiveError, LocalError, ProtocolViolation
from agent.wire import codec
from agent.wire.body import IncomingBody, OutgoingBody
from agent.wire.codec import TIMEOUT_MS_MAX, Abort, Cancel, OpenRequest, OpenResponse, Refused, Request, Response
from agent.wire.config import WireConfig
from agent.wire.credits import Ledger
from agent.wire.deadlines import Deadlines
from agent.wire.events import Event, Failed, Responded
from agent.wire.outbox import Outbox, Transfer

DEADLINE_CODE = "deadline"
CANCELLED_CODE = "cancelled"
TOO_LARGE_CODE = "too-large"


@dataclass(slots=True, eq=False)
class _Call:
    number: int
    total: int
    timeout_s: float
    transfer: Transfer
    abandoned: bool = False
    arriving: IncomingBody | None = field(default=None)


class Caller:
    """Our half of the connection's calls."""

    def __init__(self, config: WireConfig, outbox: Outbox, ledger: Ledger, *, first_number: int) -> None:
        self._config = config
        self._outbox = outbox
        self._ledger = ledger
        self._next = first_number
        self._calls: dict[int, _Call] = {}
        self._waiting = 0
        self.deadlines = Deadlines()

    @property
    def open_calls(self) -> int:
        """Calls whose result is still awaited."""
        return len(self.deadlines)

    def request(self, method: str, header: bytes, buffers: Sequence[memoryview], *, now: float, timeout_s: float) -> int:
        """See Connection.request."""
        total = codec.total_bytes(header, buffers)
        self._check(method, total, len(buffers), timeout_s)
        timeout_s = min(timeout_s, TIMEOUT_MS_MAX / 1000)
        small = total <= self._config.small_total
        if len(self.deadlines) >= self._config.outbound_calls_max or not (small or self._outbox.has_room(total, is_request=True)):
            raise LocalError("too many calls to this peer are open: wait for some of them to end")
        number, self._next = self._next, self._next + 2
        deadline = now + timeout_s
        body = None if small else OutgoingBody(header, buffers)

        def opening(at: float) -> Request | OpenRequest:
            left_ms = min(max(0, math.ceil((deadline - at) * 1000)), TIMEOUT_MS_MAX)
            if body is None:
                return Request(number, left_ms, method, header, list(buffers))
            return OpenRequest(number, left_ms, method, body.header_size, body.buffer_sizes)

        transfer = Transfer(number, opening, body, True)
        self._calls[number] = _Call(number, total, timeout_s, transfer)
        self.deadlines.set(number, deadline)
        self._outbox.add(transfer)
        return number

    def _check(self, method: str, total: int, buffers: int, timeout_s: float) -> None:
        if not codec.is_name(method, codec.METHOD_LENGTH_MAX):
            raise ValueError(f"a method's name has 1 to {codec.METHOD_LENGTH_MAX} ASCII characters")
        if buffers > codec.BUFFERS_MAX:
            raise ValueError(f"a message has at most {codec.BUFFERS_MAX} buffers, not {buffers}")
        if total > self._config.message_bytes_max:
            raise ValueError(f"a message of {total} bytes is larger than the {self._config.message_bytes_max} allowed")
        if not timeout_s > 0:
            raise ValueError("timeout_s must be positive")
        limits = self._outbox.allowance.limits
        if limits is not None and total > limits.message_bytes and total > self._config.small_total:
            raise CallRefused(TOO_LARGE_CODE, f"the peer takes messages of at most {limits.message_bytes} bytes")

    def limits_came(self, message_bytes: int) -> list[Event]:
        """Fail the calls that turn out to be too large for the peer."""
        events: list[Event] = []
        for call in list(self._calls.values()):
            if call.total > message_bytes and call.total > self._config.small_total:
                self.deadlines.drop(call.number)
                self._abandon(call)
                error = CallRefused(TOO_LARGE_CODE, f"the peer takes messages of at most {message_bytes} bytes")
                events.append(Failed(call.number, error))
        return events

    def cancel(self, number: int) -> None:
        """See Connection.cancel."""
        call = self._calls.get(number)
        if call is not None and not call.abandoned:
            self.deadlines.drop(number)
            self._abandon(call)

    def tick(self, now: float) -> list[Event]:
        events: list[Event] = []
        for number in self.deadlines.due(now):
            call = self._calls[number]
            self._abandon(call)
            events.append(Failed(number, CallTimeout(f"no answer within {call.timeout_s:.3g} s")))
        return events

    def close(self, error: HiveError) -> list[Event]:
        events: list[Event] = [Failed(n, error) for n, call in self._calls.items() if not call.abandoned]
        self._calls.clear()
        self.deadlines = Deadlines()
        return events

    def _abandon(self, call: _Call) -> None:
        transfer = call.transfer
        call.abandoned = True
        if call.arriving is not None:
            call.arriving.discard()
        if not transfer.begun:
            self._outbox.remove(transfer)
            del self._calls[call.number]
            return
        self._stop_sending(transfer)

    def _stop_sending(self, transfer: Transfer) -> None:
        """Send Cancel on the lane of the request, so that it never arrives before it."""
        if not transfer.bulk:
            self._outbox.control(Cancel(transfer.call))
            return
        if not transfer.sent:
            self._outbox.remove(transfer)
        self._outbox.ending(Cancel(transfer.call))

    # What the peer sends about our calls

    def _known(self, number: int, *, whole: bool = True) -> _Call:
        call = self._calls.get(number)
        if call is None or not call.transfer.begun:
            raise ProtocolViolation(f"an answer came to call {number}, which is not open")
        if whole and not call.transfer.sent and not call.abandoned:
            raise ProtocolViolation(f"call {number} was answered before it was wholly asked")
        return call

    def on_response(self, frame: Response) -> list[Event]:
        call = self._known(frame.call)
        if call.arriving is not None:
            raise ProtocolViolation(f"call {frame.call} was answered twice")
        return self._end(call, Responded(frame.call, frame.header, copied(frame.buffers)))

    def on_refused(self, frame: Refused) -> list[Event]:
        call = self._known(frame.call, whole=False)
        transfer = call.transfer
        if call.arriving is not None:
            raise ProtocolViolation(f"call {frame.call} was answered and refused")
        if not transfer.sent and not call.abandoned:
            self._stop_sending(transfer)
        error: HiveError
        if frame.code == DEADLINE_CODE:
            error = CallTimeout("the peer gave the call up at its deadline")
        else:
            error = CallRefused(frame.code, frame.message)
        return self._end(call, Failed(frame.call, error))

    def on_abort(self, frame: Abort) -> list[Event]:
        call = self._known(frame.call)
        if call.arriving is None:
            raise ProtocolViolation(f"an answer to call {frame.call} was aborted that had not begun")
        self._ledger.response_bytes.give_back(call.arriving.total)
        return self._end(call, Failed(frame.call, CallTimeout("the peer gave its answer up at the deadline")))

    def on_open(self, frame: OpenResponse) -> list[Event]:
        call = self._known(frame.call)
        if call.arriving is not None:
            raise ProtocolViolation(f"call {frame.call} was answered twice")
        total = frame.header_size + sum(frame.buffer_sizes)
        check_bulk_total(total, self._config)
        self._ledger.response_bytes.take(total)
        call.arriving = IncomingBody(frame.header_size, frame.buffer_sizes, keep=not call.abandoned)
        return []

    def on_fragment(self, number: int, data: memoryview) -> list[Event]:
        call = self._calls.get(number)
        if call is None or call.arriving is None:
            raise ProtocolViolation(f"a fragment came for call {number}, whose answer has not begun")
        if not call.arriving.write(data):
            return []
        self._ledger.response_bytes.give_back(call.arriving.total)
        if call.abandoned:
            return self._end(call, None)
        header, buffers = call.arriving.parts()
        return self._end(call, Responded(number, header, buffers))

    def _end(self, call: _Call, event: Event | None) -> list[Event]:
        del self._calls[call.number]
        self.deadlines.drop(call.number)
        return [] if call.abandoned or event is None else [event]


def copied(buffers: Sequence[memoryview]) -> tuple[memoryview, ...]:
    """Own, writable copies of the buffers of a small message, which lie in memory of the link's."""
    return tuple(memoryview(bytearray(b)) for b in buffers)


def check_bulk_total(total: int, config: WireConfig) -> None:
    """Raises ProtocolViolation if no correct peer would send a bulk message of this size."""
    if not 1 <= total <= config.message_bytes_max:
        raise ProtocolViolation(f"a bulk message of {total} bytes was announced; 1 to {config.message_bytes_max} are allowed")
