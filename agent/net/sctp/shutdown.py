"""Closing in good order (RFC 9260 section 9.2).

running ──begin──▶ pending ──all acknowledged──▶ sent ──SHUTDOWN-ACK──▶ complete
   └────SHUTDOWN──▶ received ──all acknowledged──▶ ack-sent ──SHUTDOWN-COMPLETE──▶ complete
"""

from __future__ import annotations

from enum import Enum

from agent.errors import LinkClosed
from agent.net.sctp.packet import MASK_32, ChunkType, chunk_bytes
from agent.net.sctp.rtt import RttEstimator

ATTEMPTS_MAX = 8


class Phase(Enum):
    """Where we are."""

    RUNNING = "running"
    PENDING = "pending"
    SENT = "sent"
    RECEIVED = "received"
    ACK_SENT = "ack-sent"
    COMPLETE = "complete"


class Shutdown:
    """Says what to send, and when it is over."""

    def __init__(self, rtt: RttEstimator) -> None:
        self._phase = Phase.RUNNING
        self._rtt = rtt
        self._attempts = 0
        self._deadline: float | None = None
        self._cumulative = 0

    @property
    def begun(self) -> bool:
        """Whether either end wants to close: no new messages."""
        return self._phase is not Phase.RUNNING

    @property
    def quiet(self) -> bool:
        """Whether no data goes out any more."""
        return self._phase in (Phase.SENT, Phase.ACK_SENT, Phase.COMPLETE)

    @property
    def complete(self) -> bool:
        """Whether both ends know."""
        return self._phase is Phase.COMPLETE

    def begin(self) -> None:
        """We want to close."""
        if self._phase is Phase.RUNNING:
            self._phase = Phase.PENDING

    def proceed(self, idle: bool, cumulative: int, now: float) -> list[bytes]:
        """Return the chunk that is to be sent now that `idle` says whether all data is acknowledged."""
        self._cumulative = cumulative
        if not idle or self._phase not in (Phase.PENDING, Phase.RECEIVED):
            return []
        self._phase = Phase.SENT if self._phase is Phase.PENDING else Phase.ACK_SENT
        return self._attempt(now)

    def received(self, kind: int, now: float) -> list[bytes]:
        """Take one of the three chunks; return what answers it."""
        if kind == ChunkType.SHUTDOWN:
            if self._phase in (Phase.RUNNING, Phase.PENDING):
                self._phase = Phase.RECEIVED
            elif self._phase in (Phase.SENT, Phase.ACK_SENT):
                self._phase = Phase.ACK_SENT
                return self._attempt(now)
        elif kind == ChunkType.SHUTDOWN_ACK and self._phase in (Phase.SENT, Phase.ACK_SENT):
            self._phase = Phase.COMPLETE
            return [chunk_bytes(ChunkType.SHUTDOWN_COMPLETE)]
        elif kind == ChunkType.SHUTDOWN_COMPLETE and self._phase is Phase.ACK_SENT:
            self._phase = Phase.COMPLETE
        return []

    def next_deadline(self) -> float | None:
        """When `tick` is wanted."""
        return self._deadline if self._phase in (Phase.SENT, Phase.ACK_SENT) else None

    def tick(self, now: float) -> list[bytes]:
        """Send again what was not answered. Raises LinkClosed after the last attempt."""
        if self.next_deadline() is None or self._deadline is None or now < self._deadline:
            return []
        if self._attempts >= ATTEMPTS_MAX:
            raise LinkClosed("sctp: the peer does not answer the shutdown")
        return self._attempt(now)

    def _attempt(self, now: float) -> list[bytes]:
        self._deadline = now + self._rtt.timeout_s(self._attempts)
        self._attempts += 1
        if self._phase is Phase.SENT:
            return [chunk_bytes(ChunkType.SHUTDOWN, (self._cumulative & MASK_32).to_bytes(4, "big"))]
        return [chunk_bytes(ChunkType.SHUTDOWN_ACK)]
