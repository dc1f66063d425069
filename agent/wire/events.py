"""What a connection tells its host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent.errors import HiveError

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Requested:
    """The peer asks. Answer with `respond` or `refuse` before `deadline` (our monotonic seconds).

    `buffers` are writable, aligned to 16 bytes, and nobody else holds them.
    """

    call: int
    method: str
    header: bytes
    buffers: tuple[memoryview, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class Responded:
    """The answer to our call. `buffers` as in Requested."""

    call: int
    header: bytes
    buffers: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Our call ended without an answer: CallTimeout, CallRefused, or what the connection was closed with."""

    call: int
    error: HiveError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The peer no longer waits for what it asked: stop handling it. Answering it now does nothing."""

    call: int


@dataclass(frozen=True, slots=True)
class Notified:
    """A one-way message."""

    method: str
    header: bytes


Event: TypeAlias = Requested | Responded | Failed | Cancelled | Notified
