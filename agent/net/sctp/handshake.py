"""Opening an association when both ends start at once, as WebRTC has it (RFC 9260 section 5, RFC 8841 section 9.3).

    closed ──begin──▶ cookie-wait ──INIT-ACK──▶ cookie-echoed ──COOKIE-ACK or DATA──▶ open
      └──────────────────┴───────COOKIE-ECHO that we made──────────┴──────────────────▲

The cookie protects a server against forged senders; below us DTLS has done that. Ours is therefore one random string,
and what it would carry is remembered here instead. A peer has one tag for the life of the DTLS connection: another one
is an error, not a restart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

from agent.errors import LinkClosed, ProtocolViolation
from agent.net.sctp.config import PACKET_BYTES_BASE, SctpConfig
from agent.net.sctp.packet import ChunkType, Framer, Init, ParameterType, chunk_bytes, init_bytes
from agent.net.sctp.rtt import RttEstimator

COOKIE_BYTES = 16
COOKIE_BYTES_MAX = 4096
"""Largest cookie of a peer that we echo."""
_DETECTED_BY_DTLS = (1).to_bytes(4, "big")


class Step(Enum):
    """How far we are."""

    CLOSED = "closed"
    COOKIE_WAIT = "cookie-wait"
    COOKIE_ECHOED = "cookie-echoed"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What the peer's INIT or INIT-ACK said."""

    tag: int
    tsn: int
    window: int
    streams: int
    """Streams that both ends can use towards the peer."""
    interleave: bool
    zero_checksum: bool
    packet_bytes_max: int
    """Largest packet that it takes; PACKET_BYTES_BASE if it did not say."""


class Handshake:
    """Makes and answers the opening chunks; `peer` is complete once `step` is OPEN."""

    def __init__(self, config: SctpConfig, rng: random.Random, rtt: RttEstimator, framer: Framer) -> None:
        self.step = Step.CLOSED
        self.peer: Peer | None = None
        self.tag = rng.randrange(1, 1 << 32)
        """Our verification tag."""
        self.tsn = rng.randrange(1 << 32)
        """Our first TSN."""
        self._config = config
        self._rtt = rtt
        self._framer = framer
        self._cookie = rng.randbytes(COOKIE_BYTES)
        self._peer_cookie = b""
        self._attempts = 0
        self._deadline: float | None = None

    def begin(self, now: float) -> list[bytes]:
        """Return our INIT."""
        self.step = Step.COOKIE_WAIT
        return self._attempt(now)

    def init(self, init: Init, now: float) -> list[bytes]:
        """Take INIT or INIT-ACK; return the packets that answer it. Raises ProtocolViolation."""
        if init.ack and self.step is not Step.COOKIE_WAIT:
            return []
        peer = self._read(init)
        if self.peer is not None and (peer.tag, peer.tsn) != (self.peer.tag, self.peer.tsn):
            raise ProtocolViolation("sctp: the peer started a second association")
        if not init.ack:
            self._meet(peer)
            return [self._init_ack()]
        cookie = next((value for kind, value in init.parameters if kind == ParameterType.STATE_COOKIE), b"")
        if not 0 < len(cookie) <= COOKIE_BYTES_MAX:
            raise ProtocolViolation("sctp: INIT-ACK without a usable cookie")
        self._meet(peer)
        self._peer_cookie = cookie
        self.step = Step.COOKIE_ECHOED
        self._attempts = 0
        return self._attempt(now)

    def cookie_echo(self, cookie: bytes) -> list[bytes]:
        """Take COOKIE-ECHO; return the packet that answers it. A cookie that is not ours is ignored."""
        if cookie != self._cookie or self.peer is None:
            return []
        self._finish()
        return [self._framer.packet(chunk_bytes(ChunkType.COOKIE_ACK))]

    def cookie_ack(self) -> None:
        """Take COOKIE-ACK, or DATA, which only an open peer sends."""
        if self.step is Step.COOKIE_ECHOED:
            self._finish()

    def next_deadline(self) -> float | None:
        """When `tick` is wanted."""
        return self._deadline

    def tick(self, now: float) -> list[bytes]:
        """Send again what was not answered. Raises LinkClosed after the last attempt."""
        if self._deadline is None or now < self._deadline:
            return []
        if self._attempts >= self._config.handshake_attempts:
            raise LinkClosed("sctp: the peer does not answer the opening handshake")
        return self._attempt(now)

    def _attempt(self, now: float) -> list[bytes]:
        self._deadline = now + self._rtt.timeout_s(self._attempts)
        self._attempts += 1
        if self.step is Step.COOKIE_ECHOED:
            return [self._checksummed(self._framer.tag, chunk_bytes(ChunkType.COOKIE_ECHO, self._peer_cookie))]
        return [self._checksummed(0, init_bytes(self._ours(ack=False)))]

    def _finish(self) -> None:
        self.step = Step.OPEN
        self._deadline = None

    def _meet(self, peer: Peer) -> None:
        self.peer = peer
        self._framer.tag = peer.tag
        self._framer.zero_checksum = peer.zero_checksum and self._config.zero_checksum

    def _init_ack(self) -> bytes:
        return self._checksummed(self._framer.tag, init_bytes(self._ours(ack=True)))

    def _checksummed(self, tag: int, chunks: bytes) -> bytes:
        """Return a packet with a checksum, as the opening ones always have (RFC 9653 section 5.2)."""
        framer = Framer(self._config.port, self._config.port)
        framer.tag = tag
        return framer.packet(chunks)

    def _ours(self, *, ack: bool) -> Init:
        config = self._config
        extensions = bytes([ChunkType.RE_CONFIG] + [ChunkType.I_DATA] * config.interleave)
        parameters = [
            (int(ParameterType.SUPPORTED_EXTENSIONS), extensions),
            (int(ParameterType.HIVE_PACKET_BYTES), config.packet_bytes_max.to_bytes(4, "big")),
        ]
        if config.zero_checksum:
            parameters.append((int(ParameterType.ZERO_CHECKSUM), _DETECTED_BY_DTLS))
        if ack:
            parameters.insert(0, (int(ParameterType.STATE_COOKIE), self._cookie))
        return Init(ack, self.tag, config.window_bytes, config.streams, config.streams, self.tsn, parameters)

    def _read(self, init: Init) -> Peer:
        parameters = dict(init.parameters)
        extensions = parameters.get(ParameterType.SUPPORTED_EXTENSIONS, b"")
        packet_bytes = int.from_bytes(parameters.get(ParameterType.HIVE_PACKET_BYTES, b"")[:4], "big") & ~3
        return Peer(
            tag=init.tag,
            tsn=init.tsn,
            window=init.window,
            streams=min(self._config.streams, init.streams_in),
            interleave=self._config.interleave and ChunkType.I_DATA in extensions,
            zero_checksum=parameters.get(ParameterType.ZERO_CHECKSUM) == _DETECTED_BY_DTLS,
            packet_bytes_max=max(PACKET_BYTES_BASE, min(packet_bytes, self._config.packet_bytes_max)),
        )
