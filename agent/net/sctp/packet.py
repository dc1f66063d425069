"""SCTP packets: bytes to chunks and back (RFC 9260 section 3; I-DATA from RFC 8260, PAD from RFC 4820).

A packet is a common header of 12 bytes (ports, verification tag, CRC32c) and chunks, each padded to 4 bytes.
`parse` raises ProtocolViolation on anything badly formed, and nothing else. Chunks that it does not know come out as
`Other`; what to do about them is the association's business.

Over DTLS every packet is authenticated already. Two ends that both say so in their INIT leave the checksum zero
(RFC 9653, error detection method 1); towards everyone else it is computed and checked.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

import msgspec
from google_crc32c import extend as _crc32c_extend
from google_crc32c import value as _crc32c

from agent.errors import ProtocolViolation

COMMON_HEADER_BYTES = 12
DATA_HEADER_BYTES = 16
IDATA_HEADER_BYTES = 20
CHUNKS_MAX = 512
"""Most chunks that one packet may hold; a 16 KiB packet of small control chunks stays below it."""
PARAMETERS_MAX = 64
"""Most parameters that one INIT, RE-CONFIG or ABORT may hold."""

MASK_32 = 0xFFFFFFFF
FLAG_END, FLAG_BEGIN, FLAG_UNORDERED = 1, 2, 4

_COMMON = struct.Struct("!HHLL")
_CHUNK = struct.Struct("!BBH")
_DATA = struct.Struct("!BBHLHHL")
_IDATA = struct.Struct("!BBHLHHLL")
_SACK = struct.Struct("!BBHLLHH")
_INIT = struct.Struct("!BBHLLHHL")
_PAIR = struct.Struct("!HH")
_PACKET_DATA = struct.Struct("!HHLLBBHLHHL")
_PACKET_IDATA = struct.Struct("!HHLLBBHLHHLL")
_PACKET_IDATA_MIDDLE = struct.Struct("!16sL8sL")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
_ZERO_4 = b"\0\0\0\0"


class ChunkType(IntEnum):
    """The chunk types that we know."""

    DATA = 0
    INIT = 1
    INIT_ACK = 2
    SACK = 3
    HEARTBEAT = 4
    HEARTBEAT_ACK = 5
    ABORT = 6
    SHUTDOWN = 7
    SHUTDOWN_ACK = 8
    ERROR = 9
    COOKIE_ECHO = 10
    COOKIE_ACK = 11
    SHUTDOWN_COMPLETE = 14
    I_DATA = 64
    RE_CONFIG = 130
    PAD = 132
    FORWARD_TSN = 192
    I_FORWARD_TSN = 194


class ParameterType(IntEnum):
    """The parameters that we know, of INIT, INIT-ACK, HEARTBEAT and RE-CONFIG."""

    HEARTBEAT_INFO = 1
    STATE_COOKIE = 7
    RESET_OUTGOING = 13
    RESET_RESPONSE = 16
    ADD_OUTGOING = 17
    ZERO_CHECKSUM = 0x8001
    SUPPORTED_EXTENSIONS = 0x8008
    HIVE_PACKET_BYTES = 0xBEE5
    """Ours: the largest packet that this end can receive, 4 bytes. Others skip it (RFC 9260 3.2.1, high bits 10)."""


class Data(msgspec.Struct, gc=False):
    """DATA, or I-DATA where `fragment` is not negative."""

    tsn: int
    flags: int
    stream: int
    message: int
    """Stream sequence number (DATA, 16 bits) or message identifier (I-DATA, 32 bits)."""
    fragment: int
    """Fragment sequence number of I-DATA; -1 for DATA."""
    protocol: int
    """Payload protocol identifier; 0 in every I-DATA fragment but the first."""
    payload: bytes | memoryview


class Sack(msgspec.Struct, gc=False):
    """SACK. `gaps` are offsets from `cumulative`, closed intervals."""

    cumulative: int
    window: int
    gaps: list[tuple[int, int]]
    duplicates: list[int]


class Init(msgspec.Struct):
    """INIT, or INIT-ACK where `ack`."""

    ack: bool
    tag: int
    window: int
    streams_out: int
    streams_in: int
    tsn: int
    parameters: list[tuple[int, bytes]]


class Other(msgspec.Struct):
    """Any other chunk, its value without header and padding."""

    type: int
    flags: int
    body: bytes


Chunk = Data | Sack | Init | Other


def parse(packet: bytes, *, zero_checksum: bool = False) -> tuple[int, list[Chunk]]:
    """Return the verification tag and the chunks of `packet`; payloads are views into it.

    Raises ProtocolViolation if it is badly formed or the checksum is wrong. A checksum of zero passes with
    `zero_checksum`: to be given only once we have announced it.
    """
    size = len(packet)
    if size < COMMON_HEADER_BYTES + 4:
        raise ProtocolViolation("sctp: packet shorter than a chunk")
    _, _, tag, _ = _COMMON.unpack_from(packet)
    checksum = packet[8:12]
    if not (zero_checksum and checksum == _ZERO_4) and checksum != _checksum(packet):
        raise ProtocolViolation("sctp: wrong checksum")
    view = memoryview(packet)
    if packet[12] == 64 and ((packet[14] << 8 | packet[15]) + 15) & ~3 == size:  # one I-DATA chunk: most packets
        return tag, [_parse_idata(packet, view, COMMON_HEADER_BYTES, COMMON_HEADER_BYTES + (packet[14] << 8 | packet[15]))]
    chunks: list[Chunk] = []
    position = COMMON_HEADER_BYTES
    while position + 4 <= size:
        kind, flags, length = _CHUNK.unpack_from(packet, position)
        end = position + length
        if length < 4 or end > size:
            raise ProtocolViolation("sctp: chunk length out of range")
        if kind == 0:
            chunks.append(_parse_data(packet, view, position, end))
        elif len(chunks) >= CHUNKS_MAX:
            raise ProtocolViolation(f"sctp: more than {CHUNKS_MAX} chunks in a packet")
        elif kind == 3:
            chunks.append(_parse_sack(packet, position, length))
        elif kind == 64:
            chunks.append(_parse_idata(packet, view, position, end))
        elif kind <= 2:
            chunks.append(_parse_init(packet, kind, position, end))
        else:
            chunks.append(Other(kind, flags, packet[position + 4 : end]))
        position = (end + 3) & ~3
    return tag, chunks


def _checksum(packet: bytes) -> bytes:
    return _crc32c_extend(_crc32c(packet[:8] + _ZERO_4), packet[12:]).to_bytes(4, "little")


def _parse_data(packet: bytes, view: memoryview, position: int, end: int) -> Data:
    if end - position <= DATA_HEADER_BYTES:
        raise ProtocolViolation("sctp: DATA without payload")
    _, flags, _, tsn, stream, sequence, protocol = _DATA.unpack_from(packet, position)
    return Data(tsn, flags & 7, stream, sequence, -1, protocol, view[position + DATA_HEADER_BYTES : end])


def _parse_idata(packet: bytes, view: memoryview, position: int, end: int) -> Data:
    if end - position <= IDATA_HEADER_BYTES:
        raise ProtocolViolation("sctp: I-DATA without payload")
    _, flags, _, tsn, stream, _, message, last = _IDATA.unpack_from(packet, position)
    begins = flags & FLAG_BEGIN
    payload = view[position + IDATA_HEADER_BYTES : end]
    return Data(tsn, flags & 7, stream, message, 0 if begins else last, last if begins else 0, payload)


def _parse_sack(packet: bytes, position: int, length: int) -> Sack:
    if length < _SACK.size:
        raise ProtocolViolation("sctp: SACK too short")
    _, _, _, cumulative, window, gap_count, duplicate_count = _SACK.unpack_from(packet, position)
    if length < _SACK.size + 4 * (gap_count + duplicate_count):
        raise ProtocolViolation("sctp: SACK shorter than its counts")
    position += _SACK.size
    gaps = []
    if gap_count:
        flat = struct.unpack_from(f"!{2 * gap_count}H", packet, position)
        gaps = list(zip(flat[::2], flat[1::2], strict=True))
        position += 4 * gap_count
    duplicates = list(struct.unpack_from(f"!{duplicate_count}L", packet, position)) if duplicate_count else []
    return Sack(cumulative, window, gaps, duplicates)


def _parse_init(packet: bytes, kind: int, position: int, end: int) -> Init:
    if end - position < _INIT.size:
        raise ProtocolViolation("sctp: INIT too short")
    _, _, _, tag, window, streams_out, streams_in, tsn = _INIT.unpack_from(packet, position)
    if not (tag and streams_out and streams_in):
        raise ProtocolViolation("sctp: INIT with a zero tag or no streams")
    parameters = parse_parameters(packet[position + _INIT.size : end])
    return Init(kind == ChunkType.INIT_ACK, tag, window, streams_out, streams_in, tsn, parameters)


def parse_parameters(body: bytes) -> list[tuple[int, bytes]]:
    """Return the (type, value) pairs of a parameter list. Raises ProtocolViolation."""
    parameters: list[tuple[int, bytes]] = []
    position = 0
    while position + 4 <= len(body):
        kind, length = _PAIR.unpack_from(body, position)
        if length < 4 or position + length > len(body):
            raise ProtocolViolation("sctp: parameter length out of range")
        if len(parameters) >= PARAMETERS_MAX:
            raise ProtocolViolation(f"sctp: more than {PARAMETERS_MAX} parameters")
        parameters.append((kind, body[position + 4 : position + length]))
        position += (length + 3) & ~3
    return parameters


def parameters_bytes(parameters: Sequence[tuple[int, bytes]]) -> bytes:
    """Return a parameter list as bytes, each but the last padded to 4."""
    body = b""
    for kind, value in parameters:
        body += bytes(-len(body) % 4) + _PAIR.pack(kind, len(value) + 4) + value
    return body


def chunk_bytes(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return one chunk as bytes, padded to 4."""
    return _CHUNK.pack(kind, flags, len(body) + 4) + body + _PADDING[len(body) & 3]


def init_bytes(init: Init) -> bytes:
    """Return INIT or INIT-ACK as bytes, padded to 4."""
    parameters = parameters_bytes(init.parameters)
    kind = ChunkType.INIT_ACK if init.ack else ChunkType.INIT
    length = _INIT.size + len(parameters)
    head = _INIT.pack(kind, 0, length, init.tag, init.window, init.streams_out, init.streams_in, init.tsn)
    return head + parameters + _PADDING[len(parameters) & 3]


def sack_bytes(sack: Sack) -> bytes:
    """Return SACK as bytes."""
    gaps, duplicates = sack.gaps, sack.duplicates
    length = _SACK.size + 4 * (len(gaps) + len(duplicates))
    head = _SACK.pack(ChunkType.SACK, 0, length, sack.cumulative, sack.window, len(gaps), len(duplicates))
    flat = [number for gap in gaps for number in gap]
    return head + struct.pack(f"!{len(flat)}H{len(duplicates)}L", *flat, *duplicates)


class Framer:
    """Puts the common header before chunks. `tag` is the peer's, set once it is known."""

    __slots__ = ("_ports", "tag", "zero_checksum")

    def __init__(self, source_port: int, destination_port: int) -> None:
        self._ports = (source_port, destination_port)
        self.tag = 0
        self.zero_checksum = False
        """Whether the peer takes packets with a checksum of zero (RFC 9653)."""

    def packet(self, chunks: bytes) -> bytes:
        """Return the packet that holds `chunks`. INIT must be sent with `zero_checksum` off (RFC 9653 section 5.2)."""
        source, destination = self._ports
        return self._sealed(_COMMON.pack(source, destination, self.tag, 0), chunks)

    def data(self, flags: int, tsn: int, stream: int, sequence: int, protocol: int, payload: memoryview) -> bytes:
        """Return a packet with one DATA chunk."""
        source, destination = self._ports
        size = len(payload)
        head = _PACKET_DATA.pack(
            source, destination, self.tag, 0, 0, flags, DATA_HEADER_BYTES + size, tsn, stream, sequence, protocol
        )
        return self._sealed(head, payload if not size & 3 else bytes(payload) + _PADDING[size & 3])

    def idata(self, flags: int, tsn: int, stream: int, message: int, last: int, payload: memoryview) -> bytes:
        """Return a packet with one I-DATA chunk; `last` is the protocol in a first fragment, else the fragment number."""
        source, destination = self._ports
        size = len(payload)
        head = _PACKET_IDATA.pack(
            source, destination, self.tag, 0, 64, flags, IDATA_HEADER_BYTES + size, tsn, stream, 0, message, last
        )
        return self._sealed(head, payload if not size & 3 else bytes(payload) + _PADDING[size & 3])

    def idata_middle(self, tsn: int, stream: int, message: int, number: int, payload: memoryview, size: int) -> list[bytes]:
        """Return what `idata` does for fragments of `size` bytes that neither begin nor end their message, whose TSNs and numbers
        count up: most packets that there are, hence at a third of the cost. `size` is a multiple of 4 and divides `payload`."""
        source, destination = self._ports
        pack = _PACKET_IDATA_MIDDLE.pack
        head = _PACKET_IDATA.pack(source, destination, self.tag, 0, 64, 0, IDATA_HEADER_BYTES + size, 0, stream, 0, message, 0)
        before, after = head[:16], head[20:28]
        packets = []
        for position in range(0, len(payload), size):
            packets.append(pack(before, tsn & MASK_32, after, number) + payload[position : position + size])
            tsn += 1
            number += 1
        return packets if self.zero_checksum else [self._checked(packet) for packet in packets]

    def _sealed(self, head: bytes, rest: bytes | memoryview) -> bytes:
        packet = head + rest
        return packet if self.zero_checksum else self._checked(packet)

    @staticmethod
    def _checked(packet: bytes) -> bytes:
        return packet[:8] + _crc32c(packet).to_bytes(4, "little") + packet[12:]
