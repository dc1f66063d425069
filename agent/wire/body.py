"""A bulk message's body on its way out (cut into fragments) and on its way in (put together)."""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import ProtocolViolation

ALIGNMENT = 16


class OutgoingBody:
    """Header and buffers, end to end, cut on demand. Holds the caller's buffers; copies once, into each fragment."""

    def __init__(self, header: bytes, buffers: Sequence[memoryview]) -> None:
        self.header_size = len(header)
        self.buffer_sizes = [len(b) for b in buffers]
        self.total = self.header_size + sum(self.buffer_sizes)
        self.left = self.total
        self._parts = [p for p in (memoryview(header), *buffers) if len(p)]
        self._index = 0
        self._offset = 0

    def take(self, prefix: bytes, size: int) -> bytes:
        """The next `size` bytes (fewer at the end) after `prefix`."""
        pieces: list[bytes | memoryview] = [prefix]
        while size and self.left:
            part = self._parts[self._index]
            piece = part[self._offset : self._offset + size]
            pieces.append(piece)
            self._offset += len(piece)
            self.left -= len(piece)
            size -= len(piece)
            if self._offset == len(part):
                self._index += 1
                self._offset = 0
        return b"".join(pieces)


class IncomingBody:
    """One allocation for the whole message, each part aligned, filled in order. `discard` gives the memory back early."""

    def __init__(self, header_size: int, buffer_sizes: Sequence[int], *, keep: bool = True) -> None:
        self.total = header_size + sum(buffer_sizes)
        self.left = self.total
        self._header_size = header_size
        self._spans: list[tuple[int, int]] = []
        end = 0
        for size in buffer_sizes:
            self._spans.append((end, end + size))
            end += -(-size // ALIGNMENT) * ALIGNMENT
        self._spans.append((end, end + header_size))
        self._memory: memoryview | None = memoryview(bytearray(end + header_size)) if keep else None
        self._part = -1  # the header arrives first and lies last, which leaves the buffers aligned
        self._at = end

    def write(self, data: memoryview) -> bool:
        """Take the next fragment. True when the message is complete. Raises ProtocolViolation if it is too long."""
        size = len(data)
        if not 0 < size <= self.left:
            raise ProtocolViolation(f"a fragment of {size} bytes came where {self.left} were missing")
        self.left -= size
        if self._memory is not None:
            self._fill(self._memory, data)
        return self.left == 0

    def _fill(self, memory: memoryview, data: memoryview) -> None:
        start = 0
        while True:
            end = self._spans[self._part][1]
            n = min(end - self._at, len(data) - start)
            memory[self._at : self._at + n] = data[start : start + n]
            self._at += n
            start += n
            if start == len(data):
                return
            self._part += 1
            self._at = self._spans[self._part][0]

    def discard(self) -> None:
        """Keep count of what arrives, but no longer the bytes."""
        self._memory = None

    def parts(self) -> tuple[bytes, tuple[memoryview, ...]]:
        """Header and buffers of a complete message."""
        assert self._memory is not None and self.left == 0
        memory = self._memory
        begin, end = self._spans[-1]
        return bytes(memory[begin:end]), tuple(memory[b:e] for b, e in self._spans[:-1])
