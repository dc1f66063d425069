"""Admission: the coordinator's certificate that a peer may take part, judged by other peers without asking anybody.

A certificate names the peer, the experiment, the account that vouches for it, and the days for which it holds. It is signed
with the key that signs the experiment's manifest, so whoever trusts the manifest can judge it offline. Peers show theirs in
the handshake, which also proves that they hold the key that the certificate names. Shared by coordinator and agent: neither
torch nor Django here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from agent.errors import AdmissionRejected
from agent.identity import PEER_ID_BYTES, SIGNATURE_BYTES, Identity, PeerId
from agent.reports import PeerText

FORMAT: Final = 1
CERTIFICATE_PURPOSE = "admission"
REQUEST_PURPOSE = "admission-request"
CERTIFICATE_BYTES_MAX = 1024
"""Well below what a handshake carries."""
SKEW_S = 600
"""How far clocks may be apart: a certificate counts this long before it was issued and after it has ended."""
DAY_S = 86_400

Policy = Literal["open", "invite", "approval"]
UnixTime = Annotated[int, Meta(ge=0, le=2**40)]


class Certificate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the coordinator vouches for. Times are Unix seconds."""

    format: Literal[1]
    peer: Annotated[bytes, Meta(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]
    experiment: Annotated[str, Meta(min_length=1, max_length=63)]
    account: Annotated[str, Meta(max_length=40)]
    """The account's public id."""
    name: Annotated[str, Meta(max_length=40)]
    """The name that its owner shows to others; empty if they show none."""
    issued_at: UnixTime
    ends_at: UnixTime


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    payload: Annotated[bytes, Meta(max_length=CERTIFICATE_BYTES_MAX)]
    signature: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class AdmissionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a peer asks for a certificate (JSON): signed with its key, good for one token and five minutes."""

    peer: PeerText
    experiment: Annotated[str, Meta(max_length=63)]
    at: UnixTime
    label: Annotated[str, Meta(max_length=60)] = ""
    """What the machine is called, for its owner's list."""
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)] = b""

    def signed_bytes(self, token: str) -> bytes:
        """What the signature (purpose REQUEST_PURPOSE) covers. With the token's hash in it, it serves no other account."""
        held = hashlib.sha256(token.encode()).hexdigest()
        return f"{self.peer}\n{self.experiment}\n{self.at}\n{self.label}\n{held}".encode()


def issue(certificate: Certificate, coordinator: Identity) -> bytes:
    """The signed form, about 200 bytes. Raises ValueError if a field is too long."""
    payload = msgspec.msgpack.encode(certificate)
    try:
        msgspec.msgpack.decode(payload, type=Certificate)
    except msgspec.ValidationError as e:
        raise ValueError(f"no certificate can say this: {e}") from None
    return msgspec.msgpack.encode(_Signed(payload, coordinator.sign(CERTIFICATE_PURPOSE, payload)))


def read(data: bytes, key: PeerId) -> Certificate:
    """Verify the signature of `key` and decode. Raises AdmissionRejected."""
    if not data:
        raise AdmissionRejected("the peer shows no certificate of admission")
    if len(data) > CERTIFICATE_BYTES_MAX + SIGNATURE_BYTES + 16:
        raise AdmissionRejected(f"the certificate has {len(data)} bytes, which is too many")
    try:
        signed = msgspec.msgpack.decode(data, type=_Signed)
        if not key.verify(CERTIFICATE_PURPOSE, signed.payload, signed.signature):
            raise AdmissionRejected("the certificate is not signed by the coordinator of this experiment")
        return msgspec.msgpack.decode(signed.payload, type=Certificate)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise AdmissionRejected(f"the certificate cannot be read: {e}") from None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Who may take part in one experiment: the manifest's `admission` and the key that signed the manifest."""

    experiment: str
    policy: Policy
    key: PeerId

    def check(self, peer: PeerId, data: bytes, now: float) -> Certificate:
        """The certificate in `data`, if it admits `peer` at Unix time `now`. Raises AdmissionRejected, saying why not."""
        certificate = read(data, self.key)
        if certificate.peer != peer.raw:
            raise AdmissionRejected(f"the certificate is for {PeerId(certificate.peer).short}, not for {peer.short}")
        if certificate.experiment != self.experiment:
            raise AdmissionRejected(f"the certificate is for {certificate.experiment!r}, not for {self.experiment!r}")
        if now < certificate.issued_at - SKEW_S:
            raise AdmissionRejected("the certificate is from the future: one of the two clocks is wrong (NTP helps)")
        if now > certificate.ends_at + SKEW_S:
            days = (now - certificate.ends_at) / DAY_S
            raise AdmissionRejected(
                f"the certificate ended {days:.1f} days ago; its agent must ask the coordinator for a new one"
            )
        return certificate

    def judge(self, peer: PeerId, data: bytes, now: float) -> Certificate | None:
        """The peer's certificate; None for a peer that an open experiment takes in without one. Raises AdmissionRejected."""
        try:
            return self.check(peer, data, now)
        except AdmissionRejected as e:
            if self.policy == "open":
                return None
            raise AdmissionRejected(f"{self.experiment} admits by {WORDS[self.policy]}: {e}") from None


WORDS = {"open": "nothing at all", "invite": "invitation", "approval": "approval"}
