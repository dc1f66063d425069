"""Second copies of small urgent chunks, on paths that lose.

A lost chunk is sent again a round trip later, and holds up everything behind it on its stream for that long. Control is a
few small packets beside bulk: sending each twice costs little, and both are rarely lost together if a moment lies between
them. The receiver drops the second (RFC 9260 section 6.2), and reports it as a duplicate, which then means nothing.
"""

from __future__ import annotations

from collections import deque

from agent.net.sctp.packet import MASK_32
from agent.net.sctp.sent import IN_FLIGHT, Sent

LOSSY_S = 30.0
"""A path that has lost something is one that loses for so long."""
APART_ROUND_TRIPS, APART_S_MIN, APART_S_MAX = 1 / 16, 0.002, 0.008
"""How much later the second goes: bursts of loss are mostly over by then."""
CHUNK_BYTES_MAX = 1200
WAITING_MAX = 32
"""More urgent chunks at once are not few."""
REMEMBERED_MAX = 512


class Copies:
    """Which copies are due, and which duplicates are ours."""

    def __init__(self) -> None:
        self._lossy_until = 0.0
        self._waiting: deque[tuple[float, Sent]] = deque()
        self._made: dict[int, None] = {}

    def path_loses(self, now: float) -> None:
        """Something was lost, either way."""
        self._lossy_until = now + LOSSY_S

    def plan(self, sent: Sent, now: float, rtt_s: float | None) -> None:
        """An urgent chunk has gone out."""
        if now < self._lossy_until and sent.size <= CHUNK_BYTES_MAX and len(self._waiting) < WAITING_MAX:
            apart_s = min(max(APART_ROUND_TRIPS * (rtt_s or 0.0), APART_S_MIN), APART_S_MAX)
            self._waiting.append((now + apart_s, sent))

    def next_due(self) -> float | None:
        """When `due` has something to give."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: float) -> list[bytes]:
        """Return the packets to send now; chunks that have arrived meanwhile need none."""
        packets = []
        while self._waiting and self._waiting[0][0] <= now:
            _, sent = self._waiting.popleft()
            if sent.state == IN_FLIGHT and not sent.repeats:
                self._made[sent.tsn & MASK_32] = None
                if len(self._made) > REMEMBERED_MAX:
                    del self._made[next(iter(self._made))]
                packets.append(sent.packet)
        return packets

    def unexplained(self, duplicates: list[int]) -> int:
        """How many of the duplicates that the peer reports are no copies of ours."""
        return sum(1 for tsn in duplicates if tsn not in self._made)
