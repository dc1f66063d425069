"""What the sending half remembers: chunks on the way, where it started, and what it has counted."""

from __future__ import annotations

from dataclasses import dataclass

IN_FLIGHT, LOST, ACKED = 0, 1, 2
"""States of a chunk. LOST ones wait to be sent again."""


class Sent:
    """One DATA chunk, from its first transmission to its acknowledgement."""

    __slots__ = ("app_limited", "delivered", "delivered_at", "order", "packet", "repeats", "sent_at", "size", "state", "tsn")

    order: int
    sent_at: float
    delivered: int
    delivered_at: float
    app_limited: bool

    def __init__(self, tsn: int, size: int, packet: bytes) -> None:
        self.tsn = tsn
        self.size = size
        self.packet = packet
        self.state = IN_FLIGHT
        self.repeats = 0
        # The others are written at every transmission, the first of which follows at once.


@dataclass(frozen=True, kw_only=True)
class SenderStart:
    """What the handshake settled for the sending direction."""

    tsn: int
    """Unwrapped TSN of the first chunk."""
    peer_window: int
    packet_bytes: int
    """Size of a full packet, common header included."""
    interleave: bool


@dataclass(kw_only=True)
class SenderCounts:
    """What has happened so far."""

    packets: int = 0
    retransmitted: int = 0
    probes: int = 0
    timeouts: int = 0
    duplicates: int = 0
    """Chunks that the peer got more than once: retransmissions that were not needed, or copies made on the way."""
