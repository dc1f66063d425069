"""Settings of one association."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agent.net.sctp.bbr import BRIDGE_BYTES, BRIDGE_S, Bbr
from agent.net.sctp.congestion import CongestionControl, NewReno
from agent.net.sctp.rtt import RttConfig

PACKET_BYTES_BASE = 1188
"""The packet that fits every path: with DTLS (37 bytes), UDP and IPv6 it stays below IPv6's smallest MTU, 1,280 bytes."""
PACKET_BYTES_MAX = 16384
"""A DTLS record holds no more."""


@dataclass(frozen=True, kw_only=True)
class SctpConfig:
    """Settings of one association. Both ends need not agree on any of them but the port."""

    port: int = 5000
    """SCTP port of both ends, as in the SDP attribute `sctp-port`."""
    packet_bytes_max: int = PACKET_BYTES_MAX
    """Largest packet that we take, and that path MTU discovery may find; PACKET_BYTES_BASE switches discovery off."""
    message_bytes_max: int = 256 * 1024
    """Largest message, either way."""
    send_buffer_bytes_max: int = 64 << 20
    """Most bytes that `send` may leave unacknowledged."""
    window_bytes: int = 1 << 20
    """Receive window to begin with."""
    window_bytes_max: int = 32 << 20
    """Receive window that auto-tuning may reach; also bounds the memory that a peer can make us use, at twice this."""
    streams: int = 1024
    """Streams each way."""
    priorities: Mapping[int, int] = field(default_factory=lambda: {0: 0})
    """Stream → priority; lower goes first, and a stream not named here has priority 1."""
    interleave: bool = True
    """Whether to offer message interleaving (RFC 8260)."""
    zero_checksum: bool = True
    """Whether to offer leaving out the checksum (RFC 9653): only where DTLS is below."""
    congestion: Literal["reno", "bbr"] = "bbr"
    """Loss-based (`congestion.py`) or model-based (`bbr.py`)."""
    congestion_window_bytes_max: int = 16 << 20
    bridge_s: float = BRIDGE_S
    """How late a host may be, time after time, before the path runs empty (model-based control only). More keeps the rate up on
    machines that are busy with other work; less keeps control quick beside bulk there. See docs/results.md."""
    bridge_bytes: int = BRIDGE_BYTES
    """That lateness is bridged in any case with so many bytes in flight."""
    heartbeat_s: float = 15.0
    """After so long without hearing from the peer, it is asked."""
    silence_s: float = 45.0
    """After so long without hearing from the peer, it is given up."""
    handshake_attempts: int = 8
    rtt: RttConfig = field(default_factory=RttConfig)

    def __post_init__(self) -> None:
        if not PACKET_BYTES_BASE <= self.packet_bytes_max <= PACKET_BYTES_MAX or self.packet_bytes_max % 4:
            raise ValueError(f"packet_bytes_max must be a multiple of 4 in {PACKET_BYTES_BASE}..{PACKET_BYTES_MAX}")
        if not 1 <= self.message_bytes_max <= self.window_bytes_max or self.send_buffer_bytes_max < self.message_bytes_max:
            raise ValueError("message_bytes_max must fit into the receive window and the send buffer")
        if not 4 * PACKET_BYTES_MAX <= self.window_bytes <= self.window_bytes_max or not 1 <= self.streams <= 65535:
            raise ValueError("window_bytes or streams out of range")
        if not 0 < self.heartbeat_s < self.silence_s or self.handshake_attempts < 1 or not 0 < self.port < 65536:
            raise ValueError("heartbeat_s, silence_s, handshake_attempts or port out of range")
        if not 0 < self.bridge_s <= 1 or not 0 <= self.bridge_bytes <= self.congestion_window_bytes_max:
            raise ValueError("bridge_s must be in (0, 1] seconds, bridge_bytes within the congestion window")

    def make_congestion(self) -> CongestionControl:
        """Return a fresh strategy."""
        size, most = PACKET_BYTES_BASE, self.congestion_window_bytes_max
        if self.congestion == "bbr":
            return Bbr(payload_bytes=size, window_bytes_max=most, bridge_s=self.bridge_s, bridge_bytes=self.bridge_bytes)
        return NewReno(payload_bytes=size, window_bytes_max=most)
