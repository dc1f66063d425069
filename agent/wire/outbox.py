"""What waits to be sent on one connection, and in which order it goes.

Control frames go first, then small requests, then the frames that end bulk messages, then credit, then fragments of bulk
messages, one of each message in turn. A bulk message waits (in order of arrival, requests and responses apart) until the
peer's allowance covers all of it; then it joins the turn.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent.wire import codec
from agent.wire.body import OutgoingBody
from agent.wire.codec import FRAGMENT_HEAD, FRAGMENT_MARK, Frame, Lane, Ping, Pong
from agent.wire.config import WireConfig
from agent.wire.credits import Allowance, Ledger


class Outgoing(NamedTuple):
    """One message for `Link.send`."""

    lane: Lane
    data: bytes


@dataclass(slots=True, eq=False)
class Transfer:
    """One message of ours that is not a plain control frame."""

    call: int
    opening: Callable[[float], Frame] | None
    """Makes the frame that begins it (bulk) or is it (a small request), when it is sent: remaining time is in it."""
    body: OutgoingBody | None
    """None for a small request."""
    is_request: bool
    on_sent: Callable[[], None] | None = None
    bulk: bool = field(init=False)
    total: int = field(init=False)
    """Bytes of a bulk message; 0 for a small request, which costs no bytes."""
    begun: bool = field(default=False, init=False)
    sent: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.bulk = self.body is not None
        self.total = 0 if self.body is None else self.body.total

    def begin(self, now: float) -> bytes:
        assert self.opening is not None and not self.begun
        self.begun = True
        return codec.encode(self.opening(now))

    def release(self) -> None:
        """Let the caller's buffers go."""
        self.body = self.opening = None

    def finish(self) -> None:
        self.sent = True
        self.release()
        if self.on_sent is not None:
            self.on_sent()


class Outbox:
    """Holds frames until `transmit` takes them. Every queue's bound: see the attribute."""

    def __init__(self, config: WireConfig, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self.allowance = Allowance()
        self._control: deque[tuple[bytes, bool]] = deque()
        """Answers to what the peer began, bounded by what it was granted, and notifications (notify_bytes_max)."""
        self._notify_bytes = 0
        self._endings: deque[bytes] = deque()
        """At most one per bulk message that has begun."""
        self._small: OrderedDict[int, Transfer] = OrderedDict()  # outbound_calls_max
        self._requests: OrderedDict[int, Transfer] = OrderedDict()  # outbound_calls_max, outbound_bytes_max
        self._responses: OrderedDict[int, Transfer] = OrderedDict()  # inbound_calls_max, outbound_bytes_max
        self._active: OrderedDict[int, Transfer] = OrderedDict()  # both of these
        self._unsent_bytes = [0, 0]
        self._latest: dict[type[Frame], Frame] = {}
        """Ping and Pong, one of each: a flood of pings, or a link that stands still, makes no queue."""

    def clear(self) -> None:
        """Let everything go."""
        for queue in self._queues():
            queue.clear()

    def _queues(self) -> tuple[dict[Any, Any] | deque[Any], ...]:
        return self._latest, self._control, self._endings, self._small, self._requests, self._responses, self._active

    def latest(self, frame: Ping | Pong) -> None:
        """Queue a frame in place of an earlier one of its type."""
        self._latest[type(frame)] = frame

    def control(self, frame: Frame) -> None:
        self._control.append((codec.encode(frame), False))

    def notify(self, frame: Frame) -> bool:
        """False, and nothing happens, if too many notifications wait already."""
        data = codec.encode(frame)
        if self._notify_bytes + len(data) > self._config.notify_bytes_max:
            return False
        self._notify_bytes += len(data)
        self._control.append((data, True))
        return True

    def ending(self, frame: Frame) -> None:
        """A frame that must not overtake the fragments that it ends."""
        self._endings.append(codec.encode(frame))

    def has_room(self, total: int, *, is_request: bool) -> bool:
        """Whether outbound_bytes_max allows another bulk message of `total` bytes."""
        return self._unsent_bytes[is_request] + total <= self._config.outbound_bytes_max

    def add(self, transfer: Transfer) -> None:
        if transfer.body is None:
            self._small[transfer.call] = transfer
        else:
            (self._requests if transfer.is_request else self._responses)[transfer.call] = transfer
            self._unsent_bytes[transfer.is_request] += transfer.total

    def remove(self, transfer: Transfer) -> None:
        """Send no more of it. It must not be wholly sent."""
        if self._active.pop(transfer.call, None) is not None:
            if not transfer.begun:
                self._refund(transfer)
        else:
            for queue in (self._small, self._requests, self._responses):
                queue.pop(transfer.call, None)
        self._unsent_bytes[transfer.is_request] -= transfer.total
        transfer.release()

    @property
    def idle(self) -> bool:
        """Nothing waits, not even for credit."""
        return not any(self._queues())

    def transmit(self, now: float, room_bytes: int) -> list[Outgoing]:
        """What to send now; see Connection.transmit."""
        out: list[Outgoing] = []
        used = self._transmit_control(out, now, room_bytes + self._config.control_overdraft_bytes)
        room = room_bytes - used
        if room > 0 and (self._requests or self._responses):
            self._admit()
        active = self._active
        while room > 0 and active:
            transfer = next(iter(active.values()))
            size = self._fragment(out, transfer, now)
            if not size:
                break
            room -= size
        return out

    def _transmit_control(self, out: list[Outgoing], now: float, room: int) -> int:
        used = 0
        while self._latest and used < room:
            data = codec.encode(self._latest.popitem()[1])
            out.append(Outgoing(Lane.CONTROL, data))
            used += len(data)
        while self._control and used < room:
            data, is_notify = self._control.popleft()
            self._notify_bytes -= len(data) if is_notify else 0
            out.append(Outgoing(Lane.CONTROL, data))
            used += len(data)
        while self._small and used < room and self.allowance.calls:
            _, transfer = self._small.popitem(last=False)
            self.allowance.calls -= 1
            data = transfer.begin(now)
            transfer.finish()
            out.append(Outgoing(Lane.CONTROL, data))
            used += len(data)
        while self._endings and used < room:
            data = self._endings.popleft()
            out.append(Outgoing(Lane.BULK, data))
            used += len(data)
        # Credit goes last: it lets the peer begin what makes us queue more, so the queues above must be empty first.
        if not self._control and not self._endings and used < room:
            credit = self._ledger.due()
            if credit is not None:
                data = codec.encode(credit)
                out.append(Outgoing(Lane.CONTROL, data))
                used += len(data)
        return used

    def _admit(self) -> None:
        """Let bulk messages join the turn while the allowance covers them."""
        for queue in (self._responses, self._requests):
            while queue and self._reserve(next(iter(queue.values()))):
                call, transfer = queue.popitem(last=False)
                self._active[call] = transfer

    def _reserve(self, transfer: Transfer) -> bool:
        allowance, total = self.allowance, transfer.total
        if not transfer.is_request:
            if total > allowance.response_bytes:
                return False
            allowance.response_bytes -= total
            return True
        if total > allowance.request_bytes or not allowance.calls:
            return False
        allowance.request_bytes -= total
        allowance.calls -= 1
        return True

    def _refund(self, transfer: Transfer) -> None:
        """Of a message in the turn of which the peer has not heard yet, and never will."""
        if transfer.is_request:
            self.allowance.request_bytes += transfer.total
            self.allowance.calls += 1
        else:
            self.allowance.response_bytes += transfer.total

    def _fragment(self, out: list[Outgoing], transfer: Transfer, now: float) -> int:
        """Send the next fragment of a message whose turn it is. 0 if the window does not allow it."""
        body, limits = transfer.body, self.allowance.limits
        assert body is not None and limits is not None
        size = min(self._config.bulk_frame_bytes - FRAGMENT_HEAD.size, limits.window // 4, body.left)
        if size > self.allowance.window:
            return 0
        used = 0
        if not transfer.begun:
            opening = transfer.begin(now)
            out.append(Outgoing(Lane.BULK, opening))
            used = len(opening)
        self.allowance.window -= size
        data = body.take(FRAGMENT_HEAD.pack(FRAGMENT_MARK, transfer.call), size)
        out.append(Outgoing(Lane.BULK, data))
        if body.left:
            self._active.move_to_end(transfer.call)
        else:
            del self._active[transfer.call]
            self._unsent_bytes[transfer.is_request] -= transfer.total
            transfer.finish()
        return used + len(data)
