"""The peer's calls on one connection.

arriving ──last fragment──▶ handling ──respond──▶ responding ──last fragment──▶ gone
   │                           │ ├──small response, refuse──▶ gone    │
   │                           │ └──Cancel, deadline──▶ gone          └──Cancel, deadline──▶ gone (Refused or Abort)
   ├──Cancel──▶ gone (Refused) └ (Cancelled is told to the host)
   └──deadline──▶ discarding ──last fragment, Cancel──▶ gone
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from agent.errors import ProtocolViolation
from agent.wire import codec
from agent.wire.body import IncomingBody, OutgoingBody
from agent.wire.caller import CANCELLED_CODE, DEADLINE_CODE, TOO_LARGE_CODE, check_bulk_total, copied
from agent.wire.codec import Abort, Cancel, OpenRequest, OpenResponse, Refused, Request, Response
from agent.wire.config import WireConfig
from agent.wire.credits import Ledger
from agent.wire.deadlines import Deadlines
from agent.wire.events import Cancelled, Event, Requested
from agent.wire.outbox import Outbox, Transfer

OVERLOADED_CODE = "overloaded"


class _State(Enum):
    ARRIVING = auto()
    DISCARDING = auto()
    HANDLING = auto()
    RESPONDING = auto()


@dataclass(slots=True, eq=False)
class _Call:
    number: int
    method: str
    deadline: float
    state: _State
    arriving: IncomingBody | None = None
    taken_bytes: int = 0
    """Of request_bytes."""
    response: Transfer | None = None


class Callee:
    """The peer's half of the connection's calls."""

    def __init__(self, config: WireConfig, outbox: Outbox, ledger: Ledger, *, number_parity: int) -> None:
        self._config = config
        self._outbox = outbox
        self._ledger = ledger
        self._parity = number_parity
        self._calls: dict[int, _Call] = {}
        self.deadlines = Deadlines()

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    def respond(self, number: int, header: bytes, buffers: Sequence[memoryview]) -> None:
        """See Connection.respond."""
        total = codec.total_bytes(header, buffers)
        if total > self._config.message_bytes_max or len(buffers) > codec.BUFFERS_MAX:
            raise ValueError(f"a response of {total} bytes in {len(buffers)} buffers is more than a message may be")
        call = self._calls.get(number)
        if call is None or call.state is not _State.HANDLING:
            return
        limits = self._outbox.allowance.limits
        if total <= self._config.small_total:
            self._outbox.control(Response(number, header, list(buffers)))
            self._finish(call)
        elif limits is not None and total > limits.message_bytes:
            self._refuse(call, TOO_LARGE_CODE, f"the answer has {total} bytes; the caller takes {limits.message_bytes}")
        elif not self._outbox.has_room(total, is_request=False):
            self._refuse(call, OVERLOADED_CODE, "too many answers wait to be sent to this peer")
        else:
            self._respond_in_bulk(call, OutgoingBody(header, buffers))

    def _respond_in_bulk(self, call: _Call, body: OutgoingBody) -> None:
        def opening(_: float) -> OpenResponse:
            return OpenResponse(call.number, body.header_size, body.buffer_sizes)

        self._release_request(call)
        call.state = _State.RESPONDING
        call.response = Transfer(call.number, opening, body, False, on_sent=lambda: self._finish(call))
        self._outbox.add(call.response)

    def refuse(self, number: int, code: str, message: str) -> None:
        """See Connection.refuse."""
        if not codec.is_name(code, codec.CODE_LENGTH_MAX):
            raise ValueError(f"a refusal's code has 1 to {codec.CODE_LENGTH_MAX} ASCII characters")
        call = self._calls.get(number)
        if call is not None and call.state is _State.HANDLING:
            self._refuse(call, code, message)

    def tick(self, now: float) -> list[Event]:
        events: list[Event] = []
        for number in self.deadlines.due(now):
            call = self._calls[number]
            if call.state is _State.ARRIVING:
                assert call.arriving is not None
                call.arriving.discard()
                call.state = _State.DISCARDING
                self._outbox.control(Refused(number, DEADLINE_CODE))
            else:
                events += self._stop(call, DEADLINE_CODE)
        return events

    def close(self) -> list[Event]:
        events: list[Event] = [Cancelled(n) for n, call in self._calls.items() if call.state is _State.HANDLING]
        self._calls.clear()
        self.deadlines = Deadlines()
        return events

    # What the peer sends

    def on_request(self, frame: Request, now: float) -> list[Event]:
        call = self._open(frame.call, frame.method, now + frame.timeout_ms / 1000)
        call.state = _State.HANDLING
        return [Requested(frame.call, frame.method, frame.header, copied(frame.buffers), call.deadline)]

    def on_open(self, frame: OpenRequest, now: float) -> list[Event]:
        total = frame.header_size + sum(frame.buffer_sizes)
        check_bulk_total(total, self._config)
        self._ledger.request_bytes.take(total)
        call = self._open(frame.call, frame.method, now + frame.timeout_ms / 1000)
        call.arriving = IncomingBody(frame.header_size, frame.buffer_sizes)
        call.taken_bytes = total
        return []

    def on_fragment(self, number: int, data: memoryview) -> list[Event]:
        call = self._calls.get(number)
        if call is None or call.arriving is None:
            raise ProtocolViolation(f"a fragment came for call {number}, which is not arriving")
        if not call.arriving.write(data):
            return []
        arrived, call.arriving = call.arriving, None
        if call.state is _State.DISCARDING:
            self._finish(call)
            return []
        call.state = _State.HANDLING
        header, buffers = arrived.parts()
        return [Requested(number, call.method, header, buffers, call.deadline)]

    def on_cancel(self, frame: Cancel) -> list[Event]:
        if frame.call & 1 != self._parity:
            raise ProtocolViolation(f"the peer cancelled call {frame.call}, which is not its own")
        call = self._calls.get(frame.call)
        if call is None:  # we had ended it before the peer's change of mind arrived
            return []
        if call.state is _State.DISCARDING:
            self._finish(call)
            return []
        return self._stop(call, CANCELLED_CODE)

    # Changes of state

    def _open(self, number: int, method: str, deadline: float) -> _Call:
        if number & 1 != self._parity:
            raise ProtocolViolation(f"the peer began call {number}, which is not its own to number")
        if number in self._calls:
            raise ProtocolViolation(f"the peer began call {number} twice")
        self._ledger.calls.take(1)
        call = self._calls[number] = _Call(number, method, deadline, _State.ARRIVING)
        self.deadlines.set(number, deadline)
        return call

    def _stop(self, call: _Call, code: str) -> list[Event]:
        """End a call that nobody waits for any more."""
        events: list[Event] = [Cancelled(call.number)] if call.state is _State.HANDLING else []
        response = call.response
        if response is not None:
            self._outbox.remove(response)
        if response is not None and response.begun:
            self._outbox.ending(Abort(call.number))
            self._finish(call)
        else:
            self._refuse(call, code, "")
        return events

    def _refuse(self, call: _Call, code: str, message: str) -> None:
        sendable = message[: codec.REASON_LENGTH_MAX].encode(errors="replace").decode()
        self._outbox.control(Refused(call.number, code, sendable))
        self._finish(call)

    def _release_request(self, call: _Call) -> None:
        self._ledger.request_bytes.give_back(call.taken_bytes)
        call.taken_bytes = 0

    def _finish(self, call: _Call) -> None:
        self._release_request(call)
        self._ledger.calls.give_back(1)
        self.deadlines.drop(call.number)
        del self._calls[call.number]
