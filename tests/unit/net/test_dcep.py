from __future__ import annotations

import struct

import pytest

from agent.errors import ProtocolViolation
from agent.net.dcep import ACK, opens_reliable_channel


def open_message(kind: int = 0, label: bytes = b"bulk", protocol: bytes = b"") -> bytes:
    return struct.pack("!BBHLHH", 3, kind, 0, 0, len(label), len(protocol)) + label + protocol


def test_open_is_answered_and_ack_is_not() -> None:
    assert opens_reliable_channel(open_message())
    assert not opens_reliable_channel(ACK)


@pytest.mark.parametrize(
    "data", [b"", b"\x09", open_message()[:-1], open_message() + b"x", open_message(0x80), open_message(1), b"\x03\0\0"]
)
def test_anything_else_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        opens_reliable_channel(data)
