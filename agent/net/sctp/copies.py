"""Further copies of small urgent chunks, on paths that lose.

A lost chunk is sent again a round trip later, and holds up everything behind it on its stream for that long. Control is a
few small packets beside bulk: sending each more than once costs little, and all are rarely lost together if a moment lies
between them. The first copy goes a moment later, or with the next urgent packet if that comes sooner; the second rides
with a later urgent packet, as in RFC 2198, and is left out if there is none. The receiver drops what it has (RFC 9260
section 6.2), and reports it as a duplicate, which then means nothing.
"""

from __future__ import annotations

from collections import deque

from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.sctp.packet import COMMON_HEADER_BYTES, MASK_32, Framer
from agent.net.sctp.sent import IN_FLIGHT, Sent

LOSSY_S = 30.0
"""A path that has lost something is one that loses for so long."""
APART_ROUND_TRIPS, APART_S_MIN, APART_S_MAX = 1 / 16, 0.002, 0.008
"""How much later a copy goes: bursts of loss are mostly over by then. One that rides need only be the least of it apart."""
CHUNK_BYTES_MAX = 1200
RIDER_BYTES_MAX = 256
WAITING_MAX = 32
"""More urgent chunks at once are not few."""
REMEMBERED_MAX = 512


class Copies:
    """Which copies are due, and which duplicates are ours."""

    def __init__(self, framer: Framer) -> None:
        self._framer = framer
        self._lossy_until = 0.0
        self._waiting: deque[tuple[float, float, Sent]] = deque()  # (when due, when sent, chunk): there is no copy yet
        self._copied: deque[tuple[float, Sent]] = deque()  # (when sent, chunk): there is one
        self._made: dict[int, None] = {}

    def path_loses(self, now: float) -> None:
        """Something was lost, either way."""
        self._lossy_until = now + LOSSY_S

    def plan(self, sent: Sent, now: float, rtt_s: float | None) -> None:
        """An urgent chunk has gone out."""
        if now < self._lossy_until and sent.size <= CHUNK_BYTES_MAX and len(self._waiting) < WAITING_MAX:
            apart_s = min(max(APART_ROUND_TRIPS * (rtt_s or 0.0), APART_S_MIN), APART_S_MAX)
            self._waiting.append((now + apart_s, now, sent))

    def next_due(self) -> float | None:
        """When `due` has something to give."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: float) -> list[bytes]:
        """Return the packets to send now; chunks that have arrived meanwhile need none."""
        packets: list[bytes] = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, sent = self._waiting.popleft()
            if self._wanted(sent):
                self._copy(sent, now)
                if packets and len(packets[-1]) + len(sent.packet) - COMMON_HEADER_BYTES <= PACKET_BYTES_BASE:
                    packets[-1] = self._joined(packets[-1], sent)
                else:
                    packets.append(sent.packet)
        return packets

    def ride(self, packet: bytes, now: float) -> bytes:
        """Return the urgent packet that is about to go out with all the copies that it can take along."""
        copied, self._copied = self._copied, deque()
        while copied:
            at, sent = copied.popleft()
            if self._wanted(sent):
                if self._may_ride(packet, sent, at, now):
                    packet = self._joined(packet, sent)
                else:
                    self._copied.append((at, sent))
        waiting, self._waiting = self._waiting, deque()
        for due, at, sent in waiting:
            if self._may_ride(packet, sent, at, now) and self._wanted(sent):
                packet = self._joined(packet, sent)
                self._copy(sent, now)
            else:
                self._waiting.append((due, at, sent))
        return packet

    def unexplained(self, duplicates: list[int]) -> int:
        """How many of the duplicates that the peer reports are no copies of ours."""
        return sum(1 for tsn in duplicates if tsn not in self._made)

    @staticmethod
    def _wanted(sent: Sent) -> bool:
        return sent.state == IN_FLIGHT and not sent.repeats

    @staticmethod
    def _may_ride(packet: bytes, sent: Sent, at: float, now: float) -> bool:
        fits = len(packet) + len(sent.packet) - COMMON_HEADER_BYTES <= PACKET_BYTES_BASE
        return fits and sent.size <= RIDER_BYTES_MAX and now >= at + APART_S_MIN

    def _joined(self, packet: bytes, sent: Sent) -> bytes:
        return self._framer.packet(packet[COMMON_HEADER_BYTES:] + sent.packet[COMMON_HEADER_BYTES:])

    def _copy(self, sent: Sent, now: float) -> None:
        """The first copy of that chunk goes out now."""
        self._made[sent.tsn & MASK_32] = None
        if len(self._made) > REMEMBERED_MAX:
            del self._made[next(iter(self._made))]
        if len(self._copied) < WAITING_MAX:
            self._copied.append((now, sent))
