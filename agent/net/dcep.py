"""The few bytes of the Data Channel Establishment Protocol (RFC 8832) that an end with fixed channels needs."""

from __future__ import annotations

import struct

from agent.errors import ProtocolViolation

CONTROL, BINARY = 50, 53
"""Payload protocol identifiers (RFC 8831 section 8)."""
ACK = b"\x02"
_OPEN_TYPE = 3
_OPEN = struct.Struct("!BBHLHH")


def opens_reliable_channel(data: bytes) -> bool:
    """True for an OPEN of a reliable, ordered channel, which is to be answered with ACK; False for an ACK.

    Raises ProtocolViolation for anything else.
    """
    if data[:1] == ACK:
        return False
    if len(data) < _OPEN.size or data[0] != _OPEN_TYPE:
        raise ProtocolViolation("an unknown DCEP message")
    _, kind, _, _, label_bytes, protocol_bytes = _OPEN.unpack_from(data)
    if len(data) != _OPEN.size + label_bytes + protocol_bytes or kind != 0:
        raise ProtocolViolation("a DCEP OPEN that is badly formed, or of a channel that is not reliable and ordered")
    return True
