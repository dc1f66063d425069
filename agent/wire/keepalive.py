"""Pings: the round-trip time, and whether the peer is still there."""

from __future__ import annotations

from agent.errors import LinkClosed, ProtocolViolation
from agent.wire.codec import Ping, Pong
from agent.wire.config import WireConfig


class KeepAlive:
    """Pings once per period. Counts pings without any sign of life, not seconds: a process that was itself suspended for a
    minute must not conclude that its peer is dead."""

    _SMOOTHING = 0.125  # of a new sample, as in RFC 6298

    def __init__(self, config: WireConfig) -> None:
        self._period_s = config.ping_period_s
        self._unanswered_max = config.pings_unanswered_max
        self._unanswered = 0
        self._next_at = 0.0
        self._sent_at: dict[int, float] = {}  # pings_unanswered_max
        self._token = 0
        self.rtt_s: float | None = None

    def heard(self) -> None:
        """Anything at all came from the peer."""
        self._unanswered = 0

    def next_deadline(self) -> float:
        return self._next_at

    def tick(self, now: float) -> Ping | None:
        """The ping to send now, if one is due. Raises LinkClosed if the peer is silent for too long."""
        if now < self._next_at:
            return None
        if self._unanswered >= self._unanswered_max:
            raise LinkClosed(f"the peer has been silent for {self._unanswered} pings ({self._unanswered * self._period_s:.3g} s)")
        self._unanswered += 1
        self._next_at = now + self._period_s
        self._token += 1
        self._sent_at[self._token] = now
        self._sent_at.pop(self._token - self._unanswered_max - 1, None)
        return Ping(self._token)

    def on_pong(self, pong: Pong, now: float) -> None:
        """Raises ProtocolViolation if nobody asked."""
        if not 0 < pong.token <= self._token:
            raise ProtocolViolation("a Pong came to no Ping")
        sent_at = self._sent_at.pop(pong.token, None)
        if sent_at is None:  # it took so long that we forgot
            return
        sample = max(0.0, now - sent_at)
        self.rtt_s = sample if self.rtt_s is None else self.rtt_s + self._SMOOTHING * (sample - self.rtt_s)
