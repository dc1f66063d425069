"""What an association reports to its host."""

from __future__ import annotations

import msgspec

from agent.errors import HiveError
from agent.net.sctp.handshake import Peer
from agent.net.sctp.reassembly import Message


class Opened(msgspec.Struct):
    """Both ends are connected."""

    peer: Peer


class StreamsReset(msgspec.Struct):
    """The peer has closed these channels (RFC 8831 section 6.7)."""

    streams: list[int]


class Ended(msgspec.Struct):
    """The last event. `error` is None after an orderly shutdown, else LinkClosed or ProtocolViolation."""

    error: HiveError | None


Event = Opened | Message | StreamsReset | Ended
