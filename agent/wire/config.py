"""Limits and periods of one connection."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

ENVELOPE_BYTES_MAX = 2 * KIB
"""What a control frame may have besides its body: ids, method and the lengths of `codec.BUFFERS_MAX` buffers."""
SMALL_BYTES_LIMIT = 32 * KIB
"""No peer may set `small_bytes` higher, so no control frame is ever longer than this and the envelope."""
FRAGMENT_BYTES_MIN = 1 * KIB
CALLS_LIMIT = 65_536
"""No peer may grant more calls than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WireConfig:
    """Raises ValueError if the values do not fit together."""

    link_message_bytes_max: int = 64 * KIB
    """The longest message that the link takes (`Link.message_bytes_max`)."""
    fragment_bytes: int = 60 * KIB
    """Length of a bulk frame; shorter if the link demands it."""
    small_bytes: int = 16 * KIB
    """A message of at most this total goes whole on the control lane; shorter if the link demands it."""
    window_bytes: int = 16 * MIB
    """Bulk bytes that the peer may have under way without our acknowledgement: what a path of 160 MB/s and 100 ms holds."""
    message_bytes_max: int = 256 * MIB
    """Header and buffers of one message, in either direction."""
    request_bytes_max: int = 256 * MIB
    """Bulk requests of the peer that are arriving or being handled, together."""
    response_bytes_max: int = 256 * MIB
    """Bulk responses of the peer that are arriving, together."""
    inbound_calls_max: int = 1024
    """Calls of the peer that are arriving, being handled or being answered. Small ones hold `small_bytes` each at most."""
    outbound_calls_max: int = 4096
    """Our own calls that are open, those that still wait for the peer's credit included."""
    outbound_bytes_max: int = 1024 * MIB
    """Our unsent requests together, and our unsent responses together."""
    notify_bytes_max: int = 1 * MIB
    """Notifications that wait for room; more are dropped."""
    control_overdraft_bytes: int = 256 * KIB
    """Control frames may exceed the room that bulk is held to by this, so that they do not wait for bulk."""
    ping_period_s: float = 2.5
    pings_unanswered_max: int = 3
    """The peer counts as gone when this many pings in a row went by with nothing heard."""

    def __post_init__(self) -> None:
        if self.link_message_bytes_max < 8 * KIB:
            raise ValueError("a link must take messages of at least 8 KiB")
        if self.fragment_bytes < FRAGMENT_BYTES_MIN:
            raise ValueError(f"fragment_bytes must be at least {FRAGMENT_BYTES_MIN}")
        if not 0 <= self.small_bytes <= SMALL_BYTES_LIMIT:
            raise ValueError(f"small_bytes must be 0 to {SMALL_BYTES_LIMIT}")
        if self.window_bytes < 4 * FRAGMENT_BYTES_MIN:
            raise ValueError(f"window_bytes must be at least {4 * FRAGMENT_BYTES_MIN}")
        if not 1 <= self.message_bytes_max <= min(self.request_bytes_max, self.response_bytes_max, self.outbound_bytes_max):
            raise ValueError("message_bytes_max must be positive and fit into each of the bounds on several messages")
        if min(self.inbound_calls_max, self.outbound_calls_max, self.pings_unanswered_max) < 1:
            raise ValueError("the maxima must be positive")
        if self.inbound_calls_max > CALLS_LIMIT:
            raise ValueError(f"inbound_calls_max must be at most {CALLS_LIMIT}")
        if self.ping_period_s <= 0:
            raise ValueError("ping_period_s must be positive")

    @property
    def bulk_frame_bytes(self) -> int:
        return min(self.fragment_bytes, self.link_message_bytes_max)

    @property
    def small_total(self) -> int:
        """Largest message that goes whole on the control lane."""
        return min(self.small_bytes, self.link_message_bytes_max - ENVELOPE_BYTES_MAX)
