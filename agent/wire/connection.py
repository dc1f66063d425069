"""One connection's protocol: calls with deadlines and cancellation, bulk bodies in fragments, flow control, keep-alive.

Sans-IO: bytes and times go in, bytes and events come out. The host (net/network.py) does this:

    link message      -> events = connection.receive(lane, data, now)
    link has room     -> for lane, data in connection.transmit(now, room): link.send(lane, data)     (also after any call)
    next_deadline()   -> events = connection.tick(now)
    RemoteError raised by receive or tick, or the link closed -> events = connection.close(error), and close the link

The rules of the protocol stand in codec.py (frames), credits.py (flow control), caller.py and callee.py (states of a call).
What the peer may make us hold is bounded by WireConfig: one allocation per message that it was granted, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.errors import HiveError, LinkClosed, ProtocolViolation
from agent.wire import codec
from agent.wire.callee import Callee
from agent.wire.caller import Caller
from agent.wire.codec import FRAGMENT_HEAD, FRAGMENT_MARK, Lane
from agent.wire.config import WireConfig
from agent.wire.credits import Ledger
from agent.wire.events import Buffer, Cancelled, Event, Failed, Notified, Requested, Responded
from agent.wire.keepalive import KeepAlive
from agent.wire.outbox import Outbox, Outgoing

__all__ = [
    "Buffer",
    "Cancelled",
    "Connection",
    "Event",
    "Failed",
    "Lane",
    "Notified",
    "Outgoing",
    "Requested",
    "Responded",
    "WireConfig",
]


class Connection:
    """Both sides make one when their handshake is done, exactly one of them with `initiator` true.

    The initiator's calls have even numbers and the other's odd ones, so a number names a call to both.
    """

    def __init__(self, config: WireConfig, *, initiator: bool) -> None:
        self._config = config
        self._ledger = Ledger(config)
        self._outbox = Outbox(config, self._ledger)
        mine = 0 if initiator else 1
        self._caller = Caller(config, self._outbox, self._ledger, first_number=mine)
        self._callee = Callee(config, self._outbox, self._ledger, number_parity=1 - mine)
        self._mine = mine
        self._keep_alive = KeepAlive(config)
        self._closed: HiveError | None = None
        self._outbox.control(self._ledger.limits())
        caller, callee = self._caller, self._callee
        self._on_frame: dict[type, Callable[[Any, float], list[Event]]] = {
            codec.Limits: self._on_limits,
            codec.Credit: self._on_credit,
            codec.Request: callee.on_request,
            codec.OpenRequest: callee.on_open,
            codec.Cancel: lambda frame, now: callee.on_cancel(frame),
            codec.Response: lambda frame, now: caller.on_response(frame),
            codec.OpenResponse: lambda frame, now: caller.on_open(frame),
            codec.Refused: lambda frame, now: caller.on_refused(frame),
            codec.Abort: lambda frame, now: caller.on_abort(frame),
            codec.Notify: lambda frame, now: [Notified(frame.method, frame.header)],
            codec.Ping: self._on_ping,
            codec.Pong: self._on_pong,
        }

    # Calls of our own

    def request(self, method: str, header: bytes, buffers: Sequence[Buffer], *, now: float, timeout_s: float) -> int:
        """Begin a call and return its number. One Responded or Failed event with it follows, unless it is cancelled.

        The buffers are not copied: leave them unchanged until that event. Raises ValueError if the message is not
        acceptable (method's name, number of buffers, size over `message_bytes_max`), LocalError if too many calls or bytes
        are waiting already, CallRefused `too-large` if the peer does not take that size, LinkClosed after `close`.
        """
        if self._closed is not None:
            raise LinkClosed(f"the connection is closed: {self._closed}")
        views = [codec.flat(b) for b in buffers]
        return self._caller.request(method, header, views, now=now, timeout_s=timeout_s)

    def cancel(self, call: int, *, now: float) -> None:
        """Give a call up: no more of it is sent, no event comes of it. A call that has ended is ignored."""
        self._caller.cancel(call)

    def notify(self, method: str, header: bytes, *, now: float) -> bool:
        """Send a one-way message. False if it was dropped because `notify_bytes_max` wait already, or after `close`.

        Raises ValueError if it is too long for the control lane (`small_bytes`).
        """
        if not codec.is_name(method, codec.METHOD_LENGTH_MAX) or len(header) > self._config.small_total:
            raise ValueError(f"a notification has a name and at most {self._config.small_total} bytes, not {len(header)}")
        return self._closed is None and self._outbox.notify(codec.Notify(method, header))

    # Calls of the peer

    def respond(self, call: int, header: bytes, buffers: Sequence[Buffer] = (), *, now: float) -> None:
        """Answer a call. Ignored if nobody waits for it any more.

        The buffers are not copied: leave them unchanged from now on. Raises ValueError if it is larger than a message may
        be. A response that the peer does not take, or that finds too many waiting, becomes a refusal (`too-large`,
        `overloaded`).
        """
        self._callee.respond(call, header, [codec.flat(b) for b in buffers])

    def refuse(self, call: int, code: str, message: str = "", *, now: float) -> None:
        """Answer a call with an error: `code` is a short stable word. Ignored if nobody waits for it any more."""
        self._callee.refuse(call, code, message)

    # Bytes

    def receive(self, lane: int, data: memoryview, now: float) -> list[Event]:
        """Take one message of the link; `data` is not kept. Raises ProtocolViolation: call `close` with it."""
        if self._closed is not None:
            return []
        self._keep_alive.heard()
        if len(data) and data[0] == FRAGMENT_MARK:
            return self._on_fragment(lane, data)
        frame = codec.decode(lane, data)
        return self._on_frame[type(frame)](frame, now)

    def transmit(self, now: float, room_bytes: int) -> list[Outgoing]:
        """What to send now, in order: control frames, then fragments of bulk messages in turn.

        `room_bytes` is how much more the link should have buffered for bulk. Pass a negative number if it has more than
        that: control frames may exceed the room by `control_overdraft_bytes`, so they do not wait until bulk has gone.
        May return one frame more than there is room for.
        """
        return [] if self._closed is not None else self._outbox.transmit(now, room_bytes)

    # Time

    def tick(self, now: float) -> list[Event]:
        """Do what is due. Raises LinkClosed if the peer is silent for too long: call `close` with it."""
        if self._closed is not None:
            return []
        ping = self._keep_alive.tick(now)
        if ping is not None:
            self._outbox.latest(ping)
        return self._caller.tick(now) + self._callee.tick(now)

    def next_deadline(self) -> float | None:
        """When to call `tick` next; 0.0 right after construction."""
        if self._closed is not None:
            return None
        times = (self._keep_alive.next_deadline(), self._caller.deadlines.next(), self._callee.deadlines.next())
        return min(t for t in times if t is not None)

    def close(self, error: HiveError) -> list[Event]:
        """End everything: Failed with `error` for each open call of ours, Cancelled for each that we are handling."""
        if self._closed is not None:
            return []
        self._closed = error
        events = self._caller.close(error) + self._callee.close()
        self._outbox.clear()
        return events

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time of pings."""
        return self._keep_alive.rtt_s

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent."""
        return self._outbox.idle

    @property
    def open_calls(self) -> tuple[int, int]:
        """(ours that await a result, the peer's that have not ended)"""
        return self._caller.open_calls, self._callee.open_calls

    # What comes in

    def _on_fragment(self, lane: int, data: memoryview) -> list[Event]:
        if lane != Lane.BULK or len(data) <= FRAGMENT_HEAD.size:
            raise ProtocolViolation("a fragment came empty or on the wrong lane")
        _, call = FRAGMENT_HEAD.unpack_from(data)
        body = data[FRAGMENT_HEAD.size :]
        self._ledger.window.take(len(body))
        self._ledger.window.give_back(len(body))
        if call & 1 == self._mine:
            return self._caller.on_fragment(call, body)
        return self._callee.on_fragment(call, body)

    def _on_limits(self, frame: codec.Limits, now: float) -> list[Event]:
        self._outbox.allowance.begin(frame)
        return self._caller.limits_came(frame.message_bytes)

    def _on_credit(self, frame: codec.Credit, now: float) -> list[Event]:
        self._outbox.allowance.add(frame)
        return []

    def _on_ping(self, frame: codec.Ping, now: float) -> list[Event]:
        self._outbox.latest(codec.Pong(frame.token))
        return []

    def _on_pong(self, frame: codec.Pong, now: float) -> list[Event]:
        self._keep_alive.on_pong(frame, now)
        return []
