"""Messages that wait to be sent, and which of them the next packet is cut from.

Streams have a priority, lower goes first; streams of one priority take turns. With message interleaving (RFC 8260) the
choice is made anew for every packet. Without it the fragments of a message must have consecutive TSNs (RFC 9260 section
6.9), so a message that was begun is finished first: the sender keeps bulk messages small for that reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from agent.net.sctp.packet import FLAG_BEGIN, FLAG_END

DEFAULT_PRIORITY = 1


class Part(msgspec.Struct, gc=False):
    """What the next packets carry: consecutive fragments of one message, each full but perhaps the last."""

    stream: int
    protocol: int
    flags: int
    """FLAG_BEGIN if the first begins the message, FLAG_END if the last ends it."""
    message: int
    """Unwrapped number of the message in its stream."""
    number: int
    """Number of the first fragment in its message."""
    payload: memoryview


class _Queued:
    """A message, and how much of it has been cut off already."""

    __slots__ = ("data", "message", "next_fragment", "position", "protocol", "stream")

    def __init__(self, stream: int, protocol: int, data: memoryview) -> None:
        self.stream = stream
        self.protocol = protocol
        self.data = data
        self.position = 0
        self.next_fragment = 0
        self.message = -1


class Outbound:
    """The send queues of all streams."""

    def __init__(self, *, interleave: bool, priorities: Mapping[int, int]) -> None:
        self.queued_bytes = 0
        """Bytes taken by `put` and not yet cut."""
        self._interleave = interleave
        self._priorities = priorities
        self._streams: dict[int, deque[_Queued]] = {}
        self._turns: dict[int, deque[int]] = {}
        self._levels: list[int] = []
        self._current: _Queued | None = None
        self._sequence: dict[int, int] = {}

    def __bool__(self) -> bool:
        return self.queued_bytes > 0

    @property
    def urgent(self) -> bool:
        """Whether the next part is of a stream that goes before the usual ones."""
        if self._current is not None:
            return self._level(self._current.stream) < DEFAULT_PRIORITY
        return bool(self._levels) and self._levels[0] < DEFAULT_PRIORITY and bool(self._turns[self._levels[0]])

    def put(self, stream: int, protocol: int, data: memoryview) -> None:
        """Queue one message of at least one byte."""
        if not len(data):
            raise ValueError("an SCTP message has at least one byte")
        self.queued_bytes += len(data)
        queue = self._streams.get(stream)
        if queue is None:
            queue = self._streams[stream] = deque()
        if not queue:
            level = self._level(stream)
            turns = self._turns.get(level)
            if turns is None:
                turns = self._turns[level] = deque()
                self._levels = sorted(self._turns)
            turns.append(stream)
        queue.append(_Queued(stream, protocol, data))

    def cut(self, size: int, count: int = 1) -> Part | None:
        """Return up to `count` fragments of at most `size` bytes, as many as follow each other; None if nothing waits."""
        queued = self._current
        if queued is None:
            queued = self._choose()
            if queued is None:
                return None
            if self._interleave and len(self._turns[self._level(queued.stream)]) > 1:
                count = 1
        begin = queued.position
        payload = queued.data[begin : begin + size * count]
        flags = 0
        if not begin:
            flags = FLAG_BEGIN
            queued.message = self._sequence.get(queued.stream, 0)
            self._sequence[queued.stream] = queued.message + 1
        number = queued.next_fragment
        queued.next_fragment = number + -(-len(payload) // size)
        queued.position = begin + len(payload)
        self.queued_bytes -= len(payload)
        if queued.position == len(queued.data):
            flags |= FLAG_END
            self._current = None
            self._finish(queued.stream)
        elif self._interleave:
            self._give_way(queued.stream)
        else:
            self._current = queued
        return Part(queued.stream, queued.protocol, flags, queued.message, number, payload)

    def clear(self, keep: frozenset[int] = frozenset()) -> None:
        """Drop every message that has not been begun, except those of the streams in `keep`."""
        for stream, queue in self._streams.items():
            begun = [queued for queued in queue if queued.position]
            if stream in keep or len(begun) == len(queue):
                continue
            self.queued_bytes -= sum(len(queued.data) for queued in queue if not queued.position)
            queue.clear()
            queue.extend(begun)
            if not begun:
                self._turns[self._level(stream)].remove(stream)

    def _choose(self) -> _Queued | None:
        for level in self._levels:
            turns = self._turns[level]
            if turns:
                return self._streams[turns[0]][0]
        return None

    def _level(self, stream: int) -> int:
        return self._priorities.get(stream, DEFAULT_PRIORITY)

    def _finish(self, stream: int) -> None:
        """Take the finished message off its queue, and let the next stream of its priority have its turn."""
        queue = self._streams[stream]
        queue.popleft()
        turns = self._turns[self._level(stream)]
        if queue:
            turns.rotate(-1)
        else:
            turns.remove(stream)
            del self._streams[stream]

    def _give_way(self, stream: int) -> None:
        turns = self._turns[self._level(stream)]
        if len(turns) > 1:
            turns.rotate(-1)
