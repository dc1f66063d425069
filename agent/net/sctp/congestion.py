"""How fast to send: the seam, and the loss-based strategy of the standard.

A strategy sees every acknowledgement as one `AckSample` and answers with a window (bytes in flight) and, if it wants
packets spread out in time, a pacing rate.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class AckSample(msgspec.Struct, gc=False):
    """What one SACK told us."""

    now: float
    acked_bytes: int
    """Newly acknowledged payload bytes."""
    lost_bytes: int
    """Payload bytes found lost by this acknowledgement."""
    in_flight: int
    """Payload bytes in flight after it."""
    window_limited: bool
    """Whether the congestion window, rather than a lack of data, has held us back since the last acknowledgement."""
    new_loss_round: bool
    """Whether the lost packets were sent after the last time we reacted to a loss."""
    rtt_s: float | None
    """A round-trip sample of a packet sent once, or None."""
    delivered_bytes: int
    """Total payload bytes acknowledged so far, this sample included."""
    delivered_before: int
    """The same total when the newest packet acknowledged here was sent."""
    interval_s: float
    """The time over which the difference of the two was delivered; 0 if no packet says so."""
    app_limited: bool
    """Whether that packet was sent while we had less to send than we were allowed."""


class CongestionControl(Protocol):
    """A strategy. All bytes are payload bytes of DATA chunks."""

    window: int
    """Most bytes that may be in flight."""
    pacing_rate: float | None
    """Bytes per second to spread packets at, or None to send at once whatever the window allows."""
    burst_s: float
    """How much of that rate, in seconds of it, may go out at once after the host was late; what a longer stall cost is lost."""

    def acked(self, sample: AckSample) -> None:
        """Take one acknowledgement."""
        ...

    def timed_out(self, now: float) -> None:
        """Nothing was acknowledged for a whole retransmission timeout."""
        ...

    def packet_size(self, payload_bytes: int) -> None:
        """The payload of a full packet is now this many bytes."""
        ...


class NewReno:
    """Slow start and additive increase, halving once per round trip with loss (RFC 9260 section 7.2).

    Windows grow by the bytes acknowledged, not by packets per SACK (RFC 3465), because our receiver sends one SACK for a
    whole batch of packets.
    """

    def __init__(self, *, payload_bytes: int, initial_packets: int = 10, window_bytes_max: int = 16 << 20) -> None:
        self._payload = payload_bytes
        self._window_max = window_bytes_max
        self._threshold = window_bytes_max
        self._credit = 0
        self.window = initial_packets * payload_bytes
        self.pacing_rate: float | None = None
        self.burst_s = 0.0

    def acked(self, sample: AckSample) -> None:
        """See CongestionControl."""
        if sample.lost_bytes and sample.new_loss_round:
            self._threshold = self.window = max(self.window // 2, 4 * self._payload)
            self._credit = 0
        elif sample.lost_bytes or not sample.window_limited:
            return
        elif self.window < self._threshold:
            self.window = min(self.window + sample.acked_bytes, self._window_max)
        else:
            self._credit += sample.acked_bytes
            if self._credit >= self.window:
                self._credit -= self.window
                self.window = min(self.window + self._payload, self._window_max)

    def timed_out(self, now: float) -> None:
        """See CongestionControl."""
        self._threshold = max(self.window // 2, 4 * self._payload)
        self.window = self._payload
        self._credit = 0

    def packet_size(self, payload_bytes: int) -> None:
        """See CongestionControl."""
        self._payload = payload_bytes
        self.window = max(self.window, 4 * payload_bytes)
