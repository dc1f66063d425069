"""What the sending half remembers: chunks on the way, where it started, and what it has counted."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

IN_FLIGHT, LOST, ACKED = 0, 1, 2
"""States of a chunk. LOST ones wait to be sent again."""
KEPT_BYTES_MAX = 64 << 20
"""Chunks, counted as full ones, that may be kept since the peer has not acknowledged all before them: it may take gap
acknowledgements back (RFC 9260 section 6.2.1). At that limit nothing new is sent. Four times the largest congestion window."""


class Sent(msgspec.Struct, gc=False):
    """One DATA chunk, from its first transmission to its acknowledgement. What follows `packet` is of the last transmission."""

    tsn: int
    """Unwrapped."""
    size: int
    """Payload bytes."""
    packet: bytes
    order: int
    """Transmissions are counted; this one's number."""
    sent_at: float
    delivered: int
    """Payload bytes that had been acknowledged by then, and when the last of them were."""
    delivered_at: float
    app_limited: bool
    """Whether we had less to send than we were allowed."""
    state: int = IN_FLIGHT
    repeats: int = 0
    urgent: bool = False
    """Whether its stream goes before the usual ones."""


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
