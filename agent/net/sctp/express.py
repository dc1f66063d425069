"""The short way for what nearly every packet is: a fragment of a message, alone in its packet, after the one before it.

`fragment_packets` writes a run of them at once. `leading_run` reads one, with one call of `struct` and one comparison for each
packet. Whatever is not exactly that goes the long way (`packet.parse`, one chunk at a time), and both ways come to the same:
a test holds them against each other.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from agent.net.sctp.outbound import Part
from agent.net.sctp.packet import FLAG_BEGIN, FLAG_END, MASK_32, Framer

HEADERS_BYTES = 32
_HEADERS = struct.Struct("!4xLLBBHLHHLL")
"""Verification tag, checksum, chunk type, flags, length, TSN, stream, 0, message, protocol or fragment number."""
_IDATA = 64


class Run(msgspec.Struct, gc=False):
    """Consecutive fragments of one message, with consecutive TSNs."""

    tsn: int
    """Of the first, 32 bits."""
    flags: int
    """Those of the first and of the last together: whether the message begins and ends here."""
    stream: int
    message: int
    fragment: int
    """Number of the first."""
    protocol: int
    """Of a message that begins here, else 0."""
    payloads: list[bytes | memoryview]
    bytes: int


def leading_run(packets: Sequence[bytes], at: int, tag: int) -> Run | None:
    """Return the run that starts at packet `at`, or None if that packet has to go the long way.

    To be called only once both ends leave the checksum zero and interleave messages.
    """
    unpack = _HEADERS.unpack_from
    packet = packets[at]
    if len(packet) <= HEADERS_BYTES:
        return None
    found, checksum, kind, flags, length, tsn, stream, _, message, last = unpack(packet)
    if found != tag or checksum or kind != _IDATA or flags & ~(FLAG_BEGIN | FLAG_END) or length <= 20:
        return None
    if (length + 15) & ~3 != len(packet):
        return None
    payloads: list[bytes | memoryview] = [packet[HEADERS_BYTES : length + 12]]
    size = length - 20
    begins = flags & FLAG_BEGIN
    fragment = 0 if begins else last
    protocol = last if begins else 0
    following = fragment + 1
    wanted = (tag, 0, _IDATA)
    for index in range(at + 1, len(packets)):
        packet = packets[index]
        if flags & FLAG_END or len(packet) <= HEADERS_BYTES:
            break
        found, checksum, kind, next_flags, length, next_tsn, next_stream, _, next_message, last = unpack(packet)
        if (
            (found, checksum, kind) != wanted
            or (next_tsn - tsn) & MASK_32 != len(payloads)
            or next_message != message
            or last != following
            or next_stream != stream
            or next_flags & ~FLAG_END
            or (length + 15) & ~3 != len(packet)
            or length <= 20
        ):
            break
        flags |= next_flags
        payloads.append(packet[HEADERS_BYTES : length + 12])
        size += length - 20
        following += 1
    return Run(tsn, flags, stream, message, fragment, protocol, payloads, size)


def fragment_packets(framer: Framer, part: Part, tsn: int, size: int, *, interleave: bool) -> list[bytes]:
    """Return one packet for each `size` bytes of a part, with TSNs that count up from `tsn`: I-DATA where both interleave."""
    payload, stream, count = part.payload, part.stream, -(-len(part.payload) // size)
    packets: list[bytes] = []
    if not interleave:
        for index in range(count):
            flags = part.flags & ((FLAG_BEGIN if not index else 0) | (FLAG_END if index == count - 1 else 0))
            fragment = payload[index * size : (index + 1) * size]
            packets.append(framer.data(flags, (tsn + index) & MASK_32, stream, part.message & 0xFFFF, part.protocol, fragment))
        return packets
    message, number = part.message & MASK_32, part.number
    if count == 1:
        last = part.protocol if part.flags & FLAG_BEGIN else number
        return [framer.idata(part.flags, tsn & MASK_32, stream, message, last, payload)]
    start, stop = (1 if part.flags & FLAG_BEGIN else 0), (count - 1 if part.flags & FLAG_END else count)
    if start:
        packets.append(framer.idata(FLAG_BEGIN, tsn & MASK_32, stream, message, part.protocol, payload[:size]))
    packets += framer.idata_middle(tsn + start, stream, message, number + start, payload[start * size : stop * size], size)
    if stop < count:
        packets.append(framer.idata(FLAG_END, (tsn + stop) & MASK_32, stream, message, number + stop, payload[stop * size :]))
    return packets
