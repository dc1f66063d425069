"""Fragments to messages, in constant work per fragment (RFC 9260 section 6.9, RFC 8260 section 2.2.3).

Every first fragment opens a *run*, which knows the key of the fragment it needs next: the next TSN with DATA, the next
(stream, message, fragment) with I-DATA. A fragment that no run waits for is a *stray* until its run reaches it. A finished
ordered message waits until the messages of its stream before it are delivered; streams never wait for each other.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from agent.errors import ProtocolViolation
from agent.net.sctp.express import Run
from agent.net.sctp.packet import FLAG_BEGIN, FLAG_END, FLAG_UNORDERED, Data


class Message(msgspec.Struct, gc=False):
    """A whole message, as it was sent."""

    stream: int
    protocol: int
    data: memoryview


class _Run:
    """The fragments of one message so far, from its beginning without a hole."""

    __slots__ = ("first", "parts", "size")

    def __init__(self, first: Data) -> None:
        self.first = first
        self.parts: list[bytes | memoryview] = []
        self.size = 0


class Reassembler:
    """Takes each fragment exactly once, in any order, and gives out messages.

    The caller removes duplicates and bounds what is held: `held_bytes` counts all payload taken and not yet given out.
    """

    def __init__(self, *, message_bytes_max: int, interleave: bool) -> None:
        self.held_bytes = 0
        self._message_bytes_max = message_bytes_max
        self._interleave = interleave
        self._sequence_mask = 0xFFFFFFFF if interleave else 0xFFFF
        self._runs: dict[Hashable, _Run] = {}
        self._strays: dict[Hashable, Data] = {}
        self._next: dict[int, int] = {}
        self._finished: dict[tuple[int, int], Message] = {}

    def add(self, chunk: Data, tsn: int) -> list[Message]:
        """Take a fragment whose unwrapped TSN is `tsn`; return the messages that are now whole and due, in order.

        Raises ProtocolViolation if a message is larger than the limit or its fragments contradict each other.
        """
        if (chunk.fragment >= 0) != self._interleave:
            raise ProtocolViolation("sctp: DATA and I-DATA mixed")
        self.held_bytes += len(chunk.payload)
        if chunk.flags & FLAG_BEGIN:
            if chunk.flags & FLAG_END:
                return self._deliver(chunk, chunk.payload)
            run = _Run(chunk)
        else:
            key = self._key(chunk, tsn)
            waiting = self._runs.pop(key, None)
            if waiting is None:
                if key in self._strays:
                    raise ProtocolViolation("sctp: two different fragments in one place")
                self._strays[key] = chunk
                return []
            run = waiting
        return self._extend(run, chunk, tsn)

    def extend(self, run: Run) -> list[Message] | None:
        """Take a run of I-DATA fragments with one look-up; None, and nothing is done, if it needs the care of `add`.

        Raises ProtocolViolation if the message is larger than the limit.
        """
        if not self._interleave or self._strays:
            return None
        key = (run.stream, 0, run.message, run.fragment)
        fresh = bool(run.flags & FLAG_BEGIN)
        if len(self._runs) > (not fresh):
            for number in range(run.fragment + 1, run.fragment + len(run.payloads)):
                if (run.stream, 0, run.message, number) in self._runs:
                    return None
        if fresh:
            open_run = _Run(Data(run.tsn, FLAG_BEGIN, run.stream, run.message, 0, run.protocol, memoryview(b"")))
        elif key in self._runs:
            open_run = self._runs[key]
        else:
            return None
        after = (run.stream, 0, run.message, run.fragment + len(run.payloads))
        if not run.flags & FLAG_END and after in self._runs:
            return None
        if not fresh:
            del self._runs[key]
        self.held_bytes += run.bytes
        open_run.parts += run.payloads
        open_run.size += run.bytes
        if open_run.size > self._message_bytes_max:
            raise ProtocolViolation(f"sctp: message over {self._message_bytes_max} bytes")
        if run.flags & FLAG_END:
            return self._deliver(open_run.first, memoryview(b"".join(open_run.parts)))
        self._runs[after] = open_run
        return []

    def forget(self, stream: int) -> None:
        """Start the message numbers of an incoming stream again from zero (RFC 6525 section 5.2.2)."""
        self._next.pop(stream, None)

    def _extend(self, run: _Run, chunk: Data, tsn: int) -> list[Message]:
        """Append `chunk` and the strays that follow it."""
        first, parts = run.first, run.parts
        while True:
            if chunk.stream != first.stream or chunk.message != first.message or (chunk.flags ^ first.flags) & FLAG_UNORDERED:
                raise ProtocolViolation("sctp: a fragment does not belong to its message")
            parts.append(chunk.payload)
            run.size += len(chunk.payload)
            if run.size > self._message_bytes_max:
                raise ProtocolViolation(f"sctp: message over {self._message_bytes_max} bytes")
            if chunk.flags & FLAG_END:
                return self._deliver(first, memoryview(b"".join(parts)))
            tsn += 1
            key = self._key_after(chunk, tsn)
            stray = self._strays.pop(key, None) if self._strays else None
            if stray is None:
                if key in self._runs:
                    raise ProtocolViolation("sctp: two messages claim one fragment")
                self._runs[key] = run
                return []
            chunk = stray

    def _deliver(self, first: Data, data: memoryview) -> list[Message]:
        """Give out a whole message if it is due, with those of its stream that waited for it."""
        stream = first.stream
        message = Message(stream, first.protocol, data)
        if first.flags & FLAG_UNORDERED:
            self.held_bytes -= len(data)
            return [message]
        due = self._next.get(stream, 0)
        if first.message != due:
            if ((first.message - due) & self._sequence_mask) > self._sequence_mask >> 1 or (
                stream,
                first.message,
            ) in self._finished:
                raise ProtocolViolation("sctp: a message number came twice")
            self._finished[stream, first.message] = message
            return []
        messages = []
        following: Message | None = message
        while following is not None:
            messages.append(following)
            self.held_bytes -= len(following.data)
            due = (due + 1) & self._sequence_mask
            following = self._finished.pop((stream, due), None) if self._finished else None
        self._next[stream] = due
        return messages

    def _key(self, chunk: Data, tsn: int) -> Hashable:
        if not self._interleave:
            return tsn
        return chunk.stream, chunk.flags & FLAG_UNORDERED, chunk.message, chunk.fragment

    def _key_after(self, chunk: Data, tsn: int) -> Hashable:
        if not self._interleave:
            return tsn
        return chunk.stream, chunk.flags & FLAG_UNORDERED, chunk.message, chunk.fragment + 1
