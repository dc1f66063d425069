"""Flow control: four counts that the receiver of messages grants and the sender of them spends.

- `window`: bulk bytes under way. Given back as fragments are taken in, whatever becomes of them, so it bounds what waits
  in the link and never stops for long.
- `calls`: calls of the peer that are arriving, being handled or being answered.
- `request_bytes`: bulk requests that are arriving or being handled. Given back when they are answered.
- `response_bytes`: bulk responses that are arriving. Given back when they are complete, which depends on nobody's handler:
  so requests that fill their share never keep responses from arriving, and nothing can wait in a circle.

A message takes its whole size before its first byte is sent. So a message that has begun can always end, and one larger
than the window passes through it in pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import ProtocolViolation
from agent.wire.codec import Credit, Limits
from agent.wire.config import WireConfig


@dataclass(slots=True)
class Allowance:
    """What we may still send: granted by the peer, spent by us. All zero until its Limits come."""

    window: int = 0
    calls: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    limits: Limits | None = None

    def begin(self, limits: Limits) -> None:
        """Raises ProtocolViolation on a second Limits, or if a message would not fit into what is granted."""
        if self.limits is not None:
            raise ProtocolViolation("a second Limits came")
        if limits.message_bytes > min(limits.request_bytes, limits.response_bytes):
            raise ProtocolViolation("the limits are contradictory")
        self.limits = limits
        self.window, self.calls = limits.window, limits.calls
        self.request_bytes, self.response_bytes = limits.request_bytes, limits.response_bytes

    def add(self, credit: Credit) -> None:
        """Raises ProtocolViolation if more comes back than was ever granted."""
        limits = self.limits
        if limits is None:
            raise ProtocolViolation("Credit came before Limits")
        self.window += credit.window
        self.calls += credit.calls
        self.request_bytes += credit.request_bytes
        self.response_bytes += credit.response_bytes
        if (
            self.window > limits.window
            or self.calls > limits.calls
            or self.request_bytes > limits.request_bytes
            or self.response_bytes > limits.response_bytes
        ):
            raise ProtocolViolation("more credit came back than was taken")


class Account:
    """One count that we grant: what the peer has left, and what we owe it."""

    __slots__ = ("left", "name", "owed")

    def __init__(self, name: str, granted: int) -> None:
        self.name = name
        self.left = granted
        self.owed = 0

    def take(self, amount: int) -> None:
        """Raises ProtocolViolation if the peer spends more than it was granted."""
        if amount > self.left:
            raise ProtocolViolation(f"the peer spent {amount} of {self.name}, and had {self.left}")
        self.left -= amount

    def give_back(self, amount: int) -> None:
        self.owed += amount

    def settle(self) -> int:
        owed, self.owed = self.owed, 0
        self.left += owed
        return owed


class Ledger:
    """All that we grant to the peer."""

    def __init__(self, config: WireConfig) -> None:
        self._config = config
        self.window = Account("window", config.window_bytes)
        self.calls = Account("calls", config.inbound_calls_max)
        self.request_bytes = Account("request_bytes", config.request_bytes_max)
        self.response_bytes = Account("response_bytes", config.response_bytes_max)

    def limits(self) -> Limits:
        c = self._config
        return Limits(c.window_bytes, c.inbound_calls_max, c.request_bytes_max, c.response_bytes_max, c.message_bytes_max)

    def due(self) -> Credit | None:
        """The Credit to send now, if there is reason enough for a frame of its own.

        Bytes of messages are returned at once, since a large message may wait for the last of them. Calls and window are
        returned in lots, but never while the peer has fewer left than are owed to it, so it cannot be left waiting.
        """
        if not (
            self.request_bytes.owed
            or self.response_bytes.owed
            or self.window.owed * 8 >= self._config.window_bytes
            or (self.calls.owed and self.calls.owed >= self.calls.left)
        ):
            return None
        return Credit(self.window.settle(), self.calls.settle(), self.request_bytes.settle(), self.response_bytes.settle())
