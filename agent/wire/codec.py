"""Frames: what travels in one message of a link.

A frame is a msgpack array whose first element is its type, or a *fragment*: the byte 0xC1, which msgpack never uses, the
call's number (8 bytes, big-endian) and a piece of a bulk message. The frames and their lanes:

| frame | lane | meaning |
|---|---|---|
| Limits | control | once, first: what the sender of this frame grants the other to begin with |
| Credit | control | grants more, as messages are taken in and done with |
| Request, Response | control | a small message, whole |
| Refused | control | the end of a call without a response |
| Notify, Ping, Pong | control | |
| Cancel | the request's | the caller gave up; if its request is still arriving, no more of it comes |
| OpenRequest, OpenResponse | bulk | a bulk message begins: its header and buffers follow as fragments, end to end |
| Abort | bulk | the response that had begun to arrive ends here; ends the call |

Every call ends with exactly one of Response, Refused, the last fragment of a bulk response, or Abort, even if its caller
gave it up: so both sides always agree on which calls are open, and whatever else arrives is a violation.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from agent.errors import ProtocolViolation
from agent.wire.config import CALLS_LIMIT, ENVELOPE_BYTES_MAX, FRAGMENT_BYTES_MIN, SMALL_BYTES_LIMIT
from agent.wire.events import Buffer


class Lane(IntEnum):
    """A link's two data channels, both reliable and ordered. net/transport.py has the same numbers."""

    CONTROL = 0
    BULK = 1


METHOD_LENGTH_MAX = 64
CODE_LENGTH_MAX = 64
REASON_LENGTH_MAX = 400
BUFFERS_MAX = 255
MSGPACK_FRAME_BYTES_MAX = SMALL_BYTES_LIMIT + ENVELOPE_BYTES_MAX
CALL_MAX = 2**62
TIMEOUT_MS_MAX = 86_400_000

FRAGMENT_MARK = 0xC1
FRAGMENT_HEAD = struct.Struct(">BQ")

CallId = Annotated[int, Meta(ge=0, le=CALL_MAX)]
Method = Annotated[str, Meta(min_length=1, max_length=METHOD_LENGTH_MAX)]
TimeoutMs = Annotated[int, Meta(ge=0, le=TIMEOUT_MS_MAX)]
Size = Annotated[int, Meta(ge=0, le=2**40)]
Sizes = Annotated[list[Size], Meta(max_length=BUFFERS_MAX)]
SmallBody = Annotated[list[memoryview], Meta(max_length=BUFFERS_MAX)]
Token = Annotated[int, Meta(ge=0, le=2**62)]


class _Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    pass


class Limits(_Frame, frozen=True, tag=1):
    """Opening grants. A message of up to `message_bytes` always fits into the other two byte counts."""

    window: Annotated[int, Meta(ge=4 * FRAGMENT_BYTES_MIN, le=2**40)]
    calls: Annotated[int, Meta(ge=1, le=CALLS_LIMIT)]
    request_bytes: Size
    response_bytes: Size
    message_bytes: Annotated[int, Meta(ge=1, le=2**40)]


class Credit(_Frame, frozen=True, tag=2):
    """Further grants; a count never exceeds what was taken before."""

    window: Size = 0
    calls: Size = 0
    request_bytes: Size = 0
    response_bytes: Size = 0


class Request(_Frame, frozen=True, tag=3):
    call: CallId
    timeout_ms: TimeoutMs
    method: Method
    header: bytes
    buffers: SmallBody


class Response(_Frame, frozen=True, tag=4):
    call: CallId
    header: bytes
    buffers: SmallBody


class Refused(_Frame, frozen=True, tag=5):
    call: CallId
    code: Annotated[str, Meta(min_length=1, max_length=CODE_LENGTH_MAX)]
    message: Annotated[str, Meta(max_length=REASON_LENGTH_MAX)] = ""


class Cancel(_Frame, frozen=True, tag=6):
    call: CallId


class Notify(_Frame, frozen=True, tag=7):
    method: Method
    header: bytes


class Ping(_Frame, frozen=True, tag=8):
    token: Token


class Pong(_Frame, frozen=True, tag=9):
    token: Token


class OpenRequest(_Frame, frozen=True, tag=10):
    call: CallId
    timeout_ms: TimeoutMs
    method: Method
    header_size: Size
    buffer_sizes: Sizes


class OpenResponse(_Frame, frozen=True, tag=11):
    call: CallId
    header_size: Size
    buffer_sizes: Sizes


class Abort(_Frame, frozen=True, tag=12):
    call: CallId


Frame: TypeAlias = (
    Limits | Credit | Request | Response | Refused | Cancel | Notify | Ping | Pong | OpenRequest | OpenResponse | Abort
)
_BULK = (OpenRequest, OpenResponse, Abort, Cancel)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    return _encoder.encode(frame)


def decode(lane: int, data: memoryview) -> Frame:
    """Read one msgpack frame; buffers in it are views into `data`.

    Raises ProtocolViolation if it is not one, is too long, or does not belong on `lane`. Fragments are recognised by
    their first byte before this is called.
    """
    if len(data) > MSGPACK_FRAME_BYTES_MAX:
        raise ProtocolViolation(f"a frame of {len(data)} bytes is longer than the {MSGPACK_FRAME_BYTES_MAX} allowed")
    try:
        frame: Frame = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ProtocolViolation(f"a frame could not be read: {str(e)[:200]}") from None
    if type(frame) is Cancel:
        return frame
    if (lane == Lane.BULK) != isinstance(frame, _BULK):
        raise ProtocolViolation(f"{type(frame).__name__} came on the wrong lane")
    return frame


def is_name(text: str, length_max: int) -> bool:
    """Whether `text` may be a method or a code: ASCII, not empty, not too long."""
    return 1 <= len(text) <= length_max and text.isascii()


def flat(buffer: Buffer) -> memoryview:
    """`buffer` as a view of bytes. Raises ValueError if it is not contiguous."""
    view = memoryview(buffer)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    if not view.c_contiguous:
        raise ValueError("a buffer must be contiguous")
    return view.cast("B") if view.nbytes else memoryview(b"")


def total_bytes(header: bytes, buffers: Sequence[memoryview]) -> int:
    return len(header) + sum(map(len, buffers))
