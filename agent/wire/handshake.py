"""Who is at the other end of a new link: both sides prove their Ed25519 keys, bound to this very DTLS channel.

    each side            Hello(version, experiment, peer id, nonce, admission)
    having the other's   Proof(signature over everything below)

The signature covers the signer's role, the fingerprints of both DTLS certificates, both nonces, both peer ids, both admissions,
the experiment and the protocol version. So a man in the middle, whose certificates differ, cannot pass the proofs on
(channel binding, RFC 5056), a proof cannot be played again (nonces) or thrown back (role), and nothing in a Hello can be altered.
Both frames are the first on the control lane; the connection's frames follow on it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.errors import HandshakeRejected
from agent.identity import PEER_ID_BYTES, SIGNATURE_BYTES, Identity, PeerId

PROTOCOL_VERSION = 2
NONCE_BYTES = 32
FINGERPRINT_BYTES = 32
ADMISSION_BYTES_MAX = 2048
EXPERIMENT_LENGTH_MAX = 64
HANDSHAKE_FRAME_BYTES_MAX = 4096
SIGNING_PURPOSE = "handshake"


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Fields may be added at the end: `version` must be readable by every version."""

    version: Annotated[int, Meta(ge=0, le=2**31)]
    experiment: Annotated[str, Meta(max_length=EXPERIMENT_LENGTH_MAX)]
    peer: Annotated[bytes, Meta(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]
    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    admission: Annotated[bytes, Meta(max_length=ADMISSION_BYTES_MAX)] = b""


class Proof(msgspec.Struct, frozen=True, array_like=True, tag=2):
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Hello | Proof)


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What we present ourselves with, and what the other must match."""

    experiment: str
    admission: bytes = b""
    """The coordinator's certificate for us, at most ADMISSION_BYTES_MAX. Judged by the host, not here."""
    version: int = PROTOCOL_VERSION

    def __post_init__(self) -> None:
        if not 1 <= len(self.experiment) <= EXPERIMENT_LENGTH_MAX or not self.experiment.isascii():
            raise ValueError(f"an experiment's name has 1 to {EXPERIMENT_LENGTH_MAX} ASCII characters")
        if len(self.admission) > ADMISSION_BYTES_MAX:
            raise ValueError(f"an admission has at most {ADMISSION_BYTES_MAX} bytes, not {len(self.admission)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """The link under the handshake. Fingerprints are the SHA-256 of the DTLS certificates, 32 bytes."""

    local_fingerprint: bytes
    remote_fingerprint: bytes
    initiator: bool
    """True on the side that made the offer."""

    def __post_init__(self) -> None:
        if len(self.local_fingerprint) != FINGERPRINT_BYTES or len(self.remote_fingerprint) != FINGERPRINT_BYTES:
            raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes")


class Handshake:
    """One side of the handshake, sans-IO.

    Send `start()`, feed every control message to `receive` and send what it returns, until `peer` is set; the messages
    after that belong to the Connection. Every method raises HandshakeRejected with a sentence, after which the link is to
    be closed. `nonce` is NONCE_BYTES of fresh randomness; `expected` is who was dialled, if that is known.
    """

    def __init__(
        self,
        identity: Identity,
        terms: Terms,
        channel: Channel,
        *,
        nonce: bytes,
        deadline: float,
        expected: PeerId | None = None,
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        self._identity = identity
        self._terms = terms
        self._channel = channel
        self._expected = expected
        self._deadline = deadline
        self._rejected: HandshakeRejected | None = None
        self._mine = Hello(terms.version, terms.experiment, identity.peer_id.raw, nonce, terms.admission)
        self._theirs: Hello | None = None
        self.peer: PeerId | None = None
        """Who it is, once proven."""

    @property
    def admission(self) -> bytes:
        """What the peer presented. Meaningful once `peer` is set."""
        return b"" if self._theirs is None else self._theirs.admission

    def start(self) -> bytes:
        """The first message to send."""
        return _encoder.encode(self._mine)

    def receive(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take the peer's next message; returns what to send. Raises HandshakeRejected."""
        if self._rejected is not None:
            raise self._rejected
        try:
            return self._receive(data)
        except HandshakeRejected as e:
            self._rejected = e
            raise

    def tick(self, now: float) -> None:
        """Raises HandshakeRejected if the deadline has passed."""
        if self.peer is None and now >= self._deadline:
            self._rejected = self._rejected or HandshakeRejected("the peer did not finish the handshake in time")
            raise self._rejected

    def next_deadline(self) -> float | None:
        return None if self.peer is not None else self._deadline

    def _receive(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        if self.peer is not None:
            raise HandshakeRejected("the handshake is over, and another message of it came")
        if len(data) > HANDSHAKE_FRAME_BYTES_MAX:
            raise HandshakeRejected(f"a handshake message has {len(data)} bytes; at most {HANDSHAKE_FRAME_BYTES_MAX} are allowed")
        try:
            frame = _decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
            raise HandshakeRejected(f"a handshake message could not be read: {str(e)[:200]}") from None
        if isinstance(frame, Hello):
            return self._on_hello(frame)
        return self._on_proof(frame)

    def _on_hello(self, hello: Hello) -> list[bytes]:
        if self._theirs is not None:
            raise HandshakeRejected("the peer said hello twice")
        peer = PeerId(hello.peer)
        if hello.version != self._terms.version:
            raise HandshakeRejected(
                f"the peer speaks protocol version {hello.version} and we speak {self._terms.version}: "
                f"{'it' if hello.version < self._terms.version else 'this agent'} needs an update"
            )
        if hello.experiment != self._terms.experiment:
            raise HandshakeRejected(f"the peer takes part in {hello.experiment!r}, not in {self._terms.experiment!r}")
        if hello.nonce == self._mine.nonce:
            raise HandshakeRejected("our own hello came back")
        if peer == self._identity.peer_id or self._channel.local_fingerprint == self._channel.remote_fingerprint:
            raise HandshakeRejected("the peer has our own identity: this agent reached itself, or its key is used twice")
        if self._expected is not None and peer != self._expected:
            raise HandshakeRejected(f"peer {peer.short} answered where {self._expected.short} was called")
        self._theirs = hello
        signature = self._identity.sign(SIGNING_PURPOSE, self._transcript(signer_is_initiator=self._channel.initiator))
        return [_encoder.encode(Proof(signature))]

    def _on_proof(self, proof: Proof) -> list[bytes]:
        if self._theirs is None:
            raise HandshakeRejected("the peer sent its proof before its hello")
        peer = PeerId(self._theirs.peer)
        if not peer.verify(SIGNING_PURPOSE, self._transcript(signer_is_initiator=not self._channel.initiator), proof.signature):
            raise HandshakeRejected(f"the peer did not prove that it is {peer.short} at the other end of this very channel")
        self.peer = peer
        return []

    def _transcript(self, *, signer_is_initiator: bool) -> bytes:
        """What is signed: fixed lengths, initiator's before responder's."""
        assert self._theirs is not None
        channel, mine, theirs = self._channel, self._mine, self._theirs
        sides = [(channel.local_fingerprint, mine), (channel.remote_fingerprint, theirs)]
        if not channel.initiator:
            sides.reverse()
        parts = [b"I" if signer_is_initiator else b"R", self._terms.version.to_bytes(4, "big")]
        parts.append(hashlib.sha256(self._terms.experiment.encode()).digest())
        for fingerprint, hello in sides:
            parts += [fingerprint, hello.peer, hello.nonce, hashlib.sha256(hello.admission).digest()]
        return b"".join(parts)
