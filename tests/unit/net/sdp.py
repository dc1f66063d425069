"""Our connection descriptions as SDP and back, for WebRTC implementations that speak nothing else (RFC 8829, RFC 8841)."""

from __future__ import annotations

import ipaddress
import re

import msgspec

from agent.net import ice

_TYPES = ("host", "srflx", "relay")


def to_sdp(blob: bytes, *, offer: bool, message_bytes_max: int = 65_536) -> str:
    """The SDP of an end that offers or answers data channels; as in webrtc.py, the answerer is the DTLS client."""
    description = ice.parse(blob)
    lines = [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=mid:0",
        "a=sendrecv",
        f"a=ice-ufrag:{description.username}",
        f"a=ice-pwd:{description.password}",
        f"a=fingerprint:sha-256 {description.fingerprint.hex(':').upper()}",
        f"a=setup:{'actpass' if offer else 'active'}",
        "a=sctp-port:5000",
        f"a=max-message-size:{message_bytes_max}",
    ]
    for number, candidate in enumerate(description.remote_candidates(), 1):
        where = f"{candidate.host} {candidate.port}"
        lines.append(f"a=candidate:{number} 1 udp {candidate.priority} {where} typ {candidate.type}")
    return "\r\n".join([*lines, "a=end-of-candidates", ""])


def from_sdp(sdp: str) -> bytes:
    """The description of the end that made this SDP, with its IPv4 and IPv6 candidates."""
    candidates = []
    for address, port, kind in re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ (\S+)", sdp, re.IGNORECASE):
        if kind in _TYPES and not address.endswith(".local"):
            candidates.append((_TYPES.index(kind), ipaddress.ip_address(address).packed, int(port)))
    return msgspec.msgpack.encode(
        [
            1,
            _value(sdp, "ice-ufrag"),
            _value(sdp, "ice-pwd"),
            bytes.fromhex(_value(sdp, "fingerprint:sha-256", " ").replace(":", "")),
            candidates[: ice.CANDIDATES_MAX],
        ]
    )


def _value(sdp: str, name: str, separator: str = ":") -> str:
    found = re.search(rf"^a={name}{separator}(\S+)\s*$", sdp, re.MULTILINE | re.IGNORECASE)
    assert found is not None, f"no {name} in {sdp}"
    return found[1]
