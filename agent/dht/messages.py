"""What nodes say to each other: msgpack arrays, decoded with their types and bounds.

Request, Ack and Answer carry recursive routing. A request is known on each link by the sender's `hop` number, and its answers
come back by it, so that a relay keeps only (hop -> whom to tell). Store, Offer and Want move records between neighbours; Attest
and Attested bring what holders sign to whoever answers a careful read (statements.py).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agent.dht.config import AVOID_MAX, ITEMS_MAX, MESSAGE_BYTES_MAX, SOUGHT_MAX
from agent.dht.records import Record
from agent.errors import ProtocolViolation

Number = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Byte = Annotated[int, Meta(ge=0, le=255)]
Reach = Annotated[int, Meta(ge=0, le=16 * 256)]
RawKey = Annotated[bytes, Meta(min_length=1, max_length=32)]
RawPeer = Annotated[bytes, Meta(min_length=32, max_length=32)]
Body = Annotated[bytes, Meta(max_length=MESSAGE_BYTES_MAX)]

LACKS_MAX = 16  # records that a holder asks for at once, in passing
PAYLOAD_BYTES_MAX = 14 * 1024  # of one routed message or answer, so that it fits in a message with everything around it


class Kind(IntEnum):
    FIND = 0  # who is close to this key?
    GET = 1  # which records are under it? The word of whoever answers
    PUT = 2  # keep these records
    SEND = 3  # to one peer exactly
    READ = 4  # which records are under it, as its holders sign


class Status(IntEnum):
    OK = 0
    NO_PEER = 1  # SEND: the peer is not connected to whoever is closest to it
    REFUSED = 2  # SEND: it has no handler, its handler refused, or it has too much to do
    LOST_WAY = 3  # no connection led closer, but this peer is not near the key: an answer for want of a better
    DEAD_END = 4  # the same, after others ways have been tried nearby: the origin may try elsewhere
    STATEMENT = 5  # READ, PUT: the payload is a Statement, about this item and others of the same request; records follow


class Item(msgspec.Struct, array_like=True, gc=False):
    """One key of a request; `index` names it in the answers."""

    index: Byte
    key: RawKey
    body: Body = b""


class Request(msgspec.Struct, array_like=True, tag=1):
    """Toward the peers closest to the items' keys. `token` is the same on all paths of an operation. `bend`, if any, is XORed to
    the keys on the way, as a number: the path comes into the keys' surroundings by another way, and does not meet the others."""

    hop: Number
    token: Annotated[bytes, Meta(min_length=8, max_length=8)]
    kind: Kind
    path: Byte
    hops_left: Byte
    timeout_ms: Number
    origin: RawPeer
    items: Annotated[list[Item], Meta(min_length=1, max_length=ITEMS_MAX)]
    avoid: Annotated[list[RawPeer], Meta(max_length=AVOID_MAX)] = []
    bend: Annotated[bytes, Meta(max_length=32)] = b""


class Ack(msgspec.Struct, array_like=True, tag=2, gc=False):
    """I have your request and will answer for it. An answer within `ack_delay_s` stands for it."""

    hop: Number


class Result(msgspec.Struct, array_like=True, gc=False):
    """A part of the answer for one item; `more` parts follow on the same path."""

    index: Byte
    status: Status
    payload: Body
    more: bool = False


class Answer(msgspec.Struct, array_like=True, tag=3):
    """`reach` is how far the siblings of its sender reach, as density.told() puts it."""

    hop: Number
    results: Annotated[list[Result], Meta(min_length=1, max_length=ITEMS_MAX)]
    reach: Reach = 0


class Store(msgspec.Struct, array_like=True, tag=4):
    """Keep these; to a neighbour. Answered by Stored. `token` is the PUT's, none for a repair."""

    call: Number
    records: Annotated[list[Record], Meta(min_length=1, max_length=ITEMS_MAX)]
    token: Annotated[bytes, Meta(max_length=8)] = b""


class Stored(msgspec.Struct, array_like=True, tag=5):
    """`refused` are the positions of the records that are not kept; the others are signed for, if there is a token."""

    call: Number
    refused: Annotated[list[Byte], Meta(max_length=ITEMS_MAX)] = []
    signature: Annotated[bytes, Meta(max_length=64)] = b""


class Digest(msgspec.Struct, array_like=True, gc=False):
    key: RawKey
    digest: Annotated[bytes, Meta(max_length=8)]


class Offer(msgspec.Struct, array_like=True, tag=6):
    """What I hold of keys that are yours too. Answered by Want if anything differs."""

    call: Number
    entries: Annotated[list[Digest], Meta(min_length=1, max_length=ITEMS_MAX)]


class Want(msgspec.Struct, array_like=True, tag=7):
    call: Number
    keys: Annotated[list[RawKey], Meta(min_length=1, max_length=ITEMS_MAX)]


class Ping(msgspec.Struct, array_like=True, tag=8, gc=False):
    call: Number


class Pong(msgspec.Struct, array_like=True, tag=9, gc=False):
    call: Number


class Near(msgspec.Struct, array_like=True, tag=10, gc=False):
    """You are one of my siblings. If `ask`: whom are you connected to that is close to me? Answered by NearPeers, unless lost."""

    ask: bool


class NearPeers(msgspec.Struct, array_like=True, tag=11, gc=False):
    """`reach` as in Answer."""

    peers: Annotated[list[RawPeer], Meta(max_length=64)]
    reach: Reach = 0


class Seek(msgspec.Struct, array_like=True, tag=13, gc=False):
    """Whom are you connected to that is close to each of these keys? Answered by NearPeers, unless lost."""

    keys: Annotated[list[RawKey], Meta(min_length=1, max_length=SOUGHT_MAX)]


class Bridge(msgspec.Struct, array_like=True, tag=12, gc=False):
    """The overlay was split. Through me, this peer leads to the other part."""

    peer: RawPeer


class Claim(msgspec.Struct, array_like=True, gc=False):
    """What the sender is about to answer for one item of a READ: the stamps (records.py) of its records, one after the other."""

    index: Byte
    key: RawKey
    stamps: Body


class Attest(msgspec.Struct, array_like=True, tag=14):
    """You keep these keys too: what do you hold besides? Answered by Attested, unless lost. `token` is the READ's."""

    call: Number
    token: Annotated[bytes, Meta(min_length=8, max_length=8)]
    claims: Annotated[list[Claim], Meta(min_length=1, max_length=ITEMS_MAX)]


class Entry(msgspec.Struct, array_like=True, gc=False):
    """About one item: what the holder has besides the answer's records."""

    index: Byte
    extra: Annotated[list[Record], Meta(max_length=ITEMS_MAX)] = []


class Statement(msgspec.Struct, array_like=True):
    """`holder` says of a READ's keys: I hold nothing that is not in this answer or here; of a PUT's records: I keep them. Signed
    over what statements.said() gives."""

    holder: RawPeer
    entries: Annotated[list[Entry], Meta(max_length=ITEMS_MAX)]
    signature: Annotated[bytes, Meta(max_length=64)] = b""


class Attested(msgspec.Struct, array_like=True, tag=15):
    """`lacks` are stamps of records that its sender does not have; a Store may follow."""

    call: Number
    statement: Statement
    lacks: Annotated[list[Annotated[bytes, Meta(min_length=8, max_length=8)]], Meta(max_length=LACKS_MAX)] = []


Message = (
    Request | Ack | Answer | Store | Stored | Offer | Want | Ping | Pong | Near | NearPeers | Bridge | Seek | Attest | Attested
)


class Letter(msgspec.Struct, array_like=True):
    """The body of a SEND item."""

    kind: Annotated[str, Meta(max_length=64)]
    body: Body


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message)
_records = msgspec.msgpack.Decoder(Annotated[list[Record], Meta(max_length=ITEMS_MAX)])
_peers = msgspec.msgpack.Decoder(Annotated[list[RawPeer], Meta(max_length=64)])
_letter = msgspec.msgpack.Decoder(Letter)
_statement = msgspec.msgpack.Decoder(Statement)

encode = _encoder.encode


def decode(data: bytes | memoryview) -> Message:
    """Raises ProtocolViolation for anything that is not one message."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise ProtocolViolation(f"a DHT message of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} are allowed")
    return _decode(_decoder, data)


def decode_records(data: bytes) -> list[Record]:
    return _decode(_records, data)


def decode_peers(data: bytes) -> list[bytes]:
    return _decode(_peers, data)


def decode_statement(data: bytes) -> Statement:
    return _decode(_statement, data)


def decode_letter(data: bytes) -> Letter:
    return _decode(_letter, data)


def _decode(decoder: msgspec.msgpack.Decoder[Any], data: bytes | memoryview) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ProtocolViolation(f"not a DHT message: {str(e)[:200]}") from None
