"""Asking a silent peer whether it is there, and path MTU probes, which are the same chunk with padding (section 8.3)."""

from __future__ import annotations

import struct

from agent.errors import LinkClosed
from agent.net.sctp.config import SctpConfig
from agent.net.sctp.packet import COMMON_HEADER_BYTES, ChunkType, ParameterType, chunk_bytes
from agent.net.sctp.rtt import RttEstimator

_INFO = struct.Struct("!HHdL")
_INFO_HEADER = (int(ParameterType.HEARTBEAT_INFO), _INFO.size)


class Heartbeat:
    """When to ask, and what the answers mean. An answer carries the time of the question, which our own clock gave."""

    def __init__(self, config: SctpConfig, rtt: RttEstimator) -> None:
        self._config = config
        self._rtt = rtt
        self._heard_at = 0.0
        self._asked_at: float | None = None
        self._deadline: float | None = None

    def begin(self, now: float) -> None:
        """The association is open: ask at once, for a first round-trip time."""
        self._heard_at = now
        self._deadline = now

    def heard(self, now: float) -> None:
        """A packet of the peer arrived."""
        self._heard_at = now

    def next_deadline(self) -> float | None:
        """When `tick` is wanted."""
        return self._deadline

    def tick(self, now: float) -> list[bytes]:
        """Return a HEARTBEAT chunk if it is time. Raises LinkClosed if the peer has been silent for too long."""
        if self._deadline is None or now < self._deadline:
            return []
        if now >= self._heard_at + self._config.silence_s:
            raise LinkClosed(f"sctp: nothing heard from the peer for {self._config.silence_s:g} s")
        quiet_until = self._heard_at + self._config.heartbeat_s
        if self._asked_at is not None and now < quiet_until:
            self._deadline = quiet_until
            return []
        self._asked_at = now
        self._deadline = min(now + self._config.heartbeat_s, self._heard_at + self._config.silence_s)
        self._deadline = max(self._deadline, now + 0.001)
        return [self._chunk(0, now)]

    def probe(self, size: int, now: float) -> bytes:
        """Return the chunks of a packet of `size` bytes that the peer answers if it arrives."""
        heartbeat = self._chunk(size, now)
        padding = size - COMMON_HEADER_BYTES - len(heartbeat) - 4
        return heartbeat + chunk_bytes(ChunkType.PAD, bytes(padding))

    def answered(self, body: bytes, now: float) -> int:
        """Take HEARTBEAT-ACK; return the size of the probe that arrived, 0 if it was none."""
        if len(body) != _INFO.size:
            return 0
        kind, length, asked_at, size = _INFO.unpack(body)
        if (kind, length) != _INFO_HEADER or not 0 <= now - asked_at <= self._config.silence_s:
            return 0
        self._rtt.sample(max(now - asked_at, 1e-6))
        return int(size)

    def _chunk(self, size: int, now: float) -> bytes:
        return chunk_bytes(ChunkType.HEARTBEAT, _INFO.pack(*_INFO_HEADER, now, size))
