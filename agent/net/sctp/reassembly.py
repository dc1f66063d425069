"""Fragments to messages (RFC 9260 section 6.9, RFC 8260 section 2.2.3).

I-DATA names its message and its place in it: `partial.py` puts them together, in runs. DATA has its place among the TSNs:
every first fragment opens a *run*, which knows the TSN that it needs next, and a fragment that no run waits for is a *stray*
until its run reaches it; that is constant work for each. A finished ordered message waits until the messages of its stream
before it are delivered; streams never wait for each other.
"""

from __future__ import annotations

import msgspec

from agent.errors import ProtocolViolation
from agent.net.sctp.express import Run
from agent.net.sctp.packet import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED, Data
from agent.net.sctp.partial import FRAGMENT_BYTES_MIN, MESSAGE_BYTES, STRAY_BYTES, Partial

_WHOLE = FLAG_BEGIN | FLAG_END


class Message(msgspec.Struct, gc=False):
    """A whole message, as it was sent."""

    stream: int
    protocol: int
    data: memoryview


class _Beginning:
    """The DATA fragments of one message so far, from its first without a hole."""

    __slots__ = ("first", "parts", "size")

    def __init__(self, first: Data) -> None:
        self.first = first
        self.parts: list[bytes | memoryview] = []
        self.size = 0

    @property
    def held_bytes(self) -> int:
        """What it counts for until it is whole."""
        return max(self.size, FRAGMENT_BYTES_MIN * len(self.parts)) + MESSAGE_BYTES


class Reassembler:
    """Takes each fragment exactly once, in any order, and gives out messages.

    The caller removes duplicates and bounds what is held: `held_bytes` counts what was taken and not yet given out, as the
    memory that it takes (`partial.py`). What is kept is never a view of its packet, which may be much larger. A peer may use
    `streams` streams.
    """

    def __init__(self, *, message_bytes_max: int, interleave: bool, streams: int) -> None:
        self.held_bytes = 0
        self._streams = streams
        self.message_bytes_max = message_bytes_max
        """Largest message that is put together."""
        self._interleave = interleave
        self._sequence_mask = 0xFFFFFFFF if interleave else 0xFFFF
        self._partials: dict[tuple[int, int, int], Partial] = {}
        self._beginnings: dict[int, _Beginning] = {}
        self._strays: dict[int, Data] = {}
        self._next: dict[int, int] = {}
        self._finished: dict[tuple[int, int], Message] = {}

    def add(self, chunk: Data, tsn: int) -> list[Message]:
        """Take a fragment whose unwrapped TSN is `tsn`; return the messages that are now whole and due, in order.

        Raises ProtocolViolation if a message is larger than the limit, its fragments contradict each other, or the peer may
        not use its stream.
        """
        if (chunk.fragment >= 0) != self._interleave:
            raise ProtocolViolation("sctp: DATA and I-DATA mixed")
        if self._interleave:
            payload = chunk.payload if chunk.flags & _WHOLE == _WHOLE else bytes(chunk.payload)
            return self.extend(
                Run(tsn, chunk.flags, chunk.stream, chunk.message, chunk.fragment, chunk.protocol, [payload], len(payload))
            )
        self._check_stream(chunk.stream)
        if chunk.flags & _WHOLE == _WHOLE:
            return self._deliver(chunk, memoryview(chunk.payload))
        chunk.payload = bytes(chunk.payload)
        if chunk.flags & FLAG_BEGIN:
            return self._follow(_Beginning(chunk), chunk, tsn)
        beginning = self._beginnings.pop(tsn, None)
        if beginning is None:
            self._strays[tsn] = chunk
            self.held_bytes += _stray_bytes(chunk)
            return []
        self.held_bytes -= beginning.held_bytes
        return self._follow(beginning, chunk, tsn)

    def extend(self, run: Run) -> list[Message]:
        """Take a run of I-DATA fragments; return the messages that are now whole and due, in order. Raises as `add` does."""
        begins, ends = run.flags & FLAG_BEGIN, bool(run.flags & FLAG_END)
        if not begins and not run.fragment:
            raise ProtocolViolation("sctp: a first fragment that does not say so")
        self._check_stream(run.stream)
        key = run.stream, run.flags & FLAG_UNORDERED, run.message
        partial = self._partials.get(key)
        if partial is None:
            if begins and ends and run.bytes <= self.message_bytes_max:
                return self._deliver(run, _joined(run.payloads))
            if not key[1]:
                self._check_new(run.stream, run.message)
            partial = self._partials[key] = Partial()
        else:
            self.held_bytes -= partial.held_bytes
        if begins:
            partial.protocol = run.protocol
        partial.size += run.bytes
        if partial.size > self.message_bytes_max:
            raise ProtocolViolation(f"sctp: message over {self.message_bytes_max} bytes")
        if not partial.take(run.fragment, run.payloads, ends=ends):
            self.held_bytes += partial.held_bytes
            return []
        del self._partials[key]
        run.protocol = partial.protocol
        return self._deliver(run, _joined(partial.payloads))

    def forget(self, stream: int) -> None:
        """Start the message numbers of an incoming stream again from zero (RFC 6525 section 5.2.2)."""
        self._next.pop(stream, None)

    def _follow(self, beginning: _Beginning, chunk: Data, tsn: int) -> list[Message]:
        """Append `chunk`, whose TSN is `tsn`, and the strays that follow it."""
        first, parts = beginning.first, beginning.parts
        while True:
            if chunk.stream != first.stream or chunk.message != first.message or (chunk.flags ^ first.flags) & FLAG_UNORDERED:
                raise ProtocolViolation("sctp: a fragment does not belong to its message")
            parts.append(chunk.payload)
            beginning.size += len(chunk.payload)
            if beginning.size > self.message_bytes_max:
                raise ProtocolViolation(f"sctp: message over {self.message_bytes_max} bytes")
            if chunk.flags & FLAG_END:
                return self._deliver(first, memoryview(b"".join(parts)))
            tsn += 1
            stray = self._strays.pop(tsn, None) if self._strays else None
            if stray is None:
                self._beginnings[tsn] = beginning
                self.held_bytes += beginning.held_bytes
                return []
            self.held_bytes -= _stray_bytes(stray)
            chunk = stray

    def _deliver(self, part: Data | Run, data: memoryview) -> list[Message]:
        """Give out a whole message if it is due, with those of its stream that waited for it; `part` is any of its fragments."""
        stream, number = part.stream, part.message
        message = Message(stream, part.protocol, data)
        if part.flags & FLAG_UNORDERED:
            return [message]
        due = self._next.get(stream, 0)
        if number != due:
            self._check_new(stream, number)
            message.data = _owned(data)
            self._finished[stream, number] = message
            self.held_bytes += len(data) + MESSAGE_BYTES
            return []
        messages = []
        following: Message | None = message
        while following is not None:
            messages.append(following)
            due = (due + 1) & self._sequence_mask
            following = self._finished.pop((stream, due), None) if self._finished else None
            if following is not None:
                self.held_bytes -= len(following.data) + MESSAGE_BYTES
        self._next[stream] = due
        return messages

    def _check_stream(self, stream: int) -> None:
        if stream >= self._streams:
            raise ProtocolViolation(f"sctp: stream {stream} of {self._streams}")

    def _check_new(self, stream: int, number: int) -> None:
        """Raise ProtocolViolation if that ordered message is whole already."""
        passed = (number - self._next.get(stream, 0)) & self._sequence_mask > self._sequence_mask >> 1
        if passed or (stream, number) in self._finished:
            raise ProtocolViolation("sctp: a message number came twice")


def _owned(data: memoryview) -> memoryview:
    whole = isinstance(data.obj, bytes) and len(data.obj) == len(data)
    return data if whole else memoryview(bytes(data))


def _stray_bytes(chunk: Data) -> int:
    return max(len(chunk.payload), FRAGMENT_BYTES_MIN) + STRAY_BYTES


def _joined(payloads: list[bytes | memoryview]) -> memoryview:
    return memoryview(payloads[0] if len(payloads) == 1 else b"".join(payloads))
