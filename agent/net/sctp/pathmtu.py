"""Finding how large a packet may be, by sending larger ones and seeing whether they arrive (RFC 8899, RFC 8261 section 5).

A probe is a HEARTBEAT padded with a PAD chunk (RFC 4820). Sizes are tried upwards; the first that fails
`PROBES_MAX` times ends the search until `RAISE_AFTER_S` later. If data stops coming through, the size falls back to the
base and the host lets the network fragment what was cut larger.
"""

from __future__ import annotations

from agent.net.sctp.config import PACKET_BYTES_BASE

SIZES = (1292, 1332, 1372, 1412, 1432, 4096, 8912, 16384)
"""Packet sizes worth trying: tunnels, Ethernet over IPv6 and IPv4, jumbo frames, and a whole DTLS record (loopback)."""
PROBES_MAX = 3
RAISE_AFTER_S = 600.0
PROBE_TIMEOUT_MIN_S = 0.5


class PathMtu:
    """Which packet size is known to work, and when to probe for more."""

    def __init__(self, largest: int) -> None:
        self.packet_bytes = PACKET_BYTES_BASE
        """The size that is known to work, common header included."""
        self.fell_back = False
        """Whether a size that had worked stopped working."""
        self._sizes = [size for size in SIZES if size <= largest]
        self._next = 0
        self._tries = 0
        self._probing = False
        self._deadline: float | None = None

    def begin(self, now: float) -> None:
        """Start to search."""
        self._deadline = now if self._sizes else None

    def next_deadline(self) -> float | None:
        """When `probe` is wanted."""
        return self._deadline

    def probe(self, now: float, rtt_s: float) -> int | None:
        """Return the size of the probe to send now, or None."""
        if self._deadline is None or now < self._deadline:
            return None
        if not self._probing:
            self._tries = 0
            if self._next == len(self._sizes):
                self._deadline = None
                return None
        elif self._tries >= PROBES_MAX:
            self._probing = False
            self._deadline = now + RAISE_AFTER_S
            return None
        self._probing = True
        self._tries += 1
        self._deadline = now + max(3 * rtt_s, PROBE_TIMEOUT_MIN_S)
        return self._sizes[self._next]

    def arrived(self, size: int, now: float) -> bool:
        """Take the answer to a probe of `size`; True if packets may now be larger."""
        if not self._probing or size != self._sizes[self._next]:
            return False
        self.packet_bytes = size
        self._probing = False
        self._next += 1
        self._deadline = now
        return True

    def black_hole(self, now: float) -> bool:
        """Data does not come through: go back to the base size. True if that is a change."""
        if self.packet_bytes == PACKET_BYTES_BASE:
            return False
        self.packet_bytes = PACKET_BYTES_BASE
        self.fell_back = True
        self._next = 0
        self._probing = False
        self._deadline = now + RAISE_AFTER_S
        return True
