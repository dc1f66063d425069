"""The receiving half: which TSNs have come, what to acknowledge, how much more may come (RFC 9260 section 6.2).

TSNs are unwrapped on arrival into plain integers, so that nothing behind this door knows about 32 bits. Received TSNs
above the cumulative one are kept as sorted intervals: in order, lost and reordered packets cost the same.

The advertised window starts small and doubles whenever more than half of it arrives within one round trip, so that
fast long paths get what they need, and other connections do not reserve it; what is not needed for a minute is given back, since
all connections share what windows may grow by. It counts memory, not payload (`partial.py`):
what a peer sends in fragments of a byte fills it a few hundred times sooner.
"""

from __future__ import annotations

from bisect import bisect_right

from agent.errors import ProtocolViolation
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.express import Run
from agent.net.sctp.packet import MASK_32, Data, Sack
from agent.net.sctp.partial import FRAGMENT_BYTES_MIN, MESSAGE_BYTES, STRAY_BYTES
from agent.net.sctp.reassembly import Message, Reassembler

INTERVALS_MAX = 1024
"""Holes that we keep track of; a packet that would make one more is dropped, and sent again later."""
UNNEEDED_S = 60.0
"""A window of which not an eighth was needed for so long is halved, down to what it began with."""
SACK_GAPS_MAX = 240
"""Gap blocks in one SACK: with the duplicates it stays below the smallest packet size."""
SACK_DUPLICATES_MAX = 16
_HALF = 1 << 31
_ROUND_S_WITHOUT_RTT = 0.1


class Receiver:
    """Takes DATA chunks, gives out messages and SACKs."""

    def __init__(
        self, initial_tsn: int, reassembler: Reassembler, budget: WindowBudget, *, window_bytes: int, window_bytes_max: int
    ) -> None:
        self.cumulative = initial_tsn - 1
        """Highest unwrapped TSN below which nothing is missing."""
        self.ack_due = False
        """Whether a SACK should go out now."""
        self.packets_dropped = 0
        """Chunks refused for want of room."""
        self.reassembler = reassembler
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._duplicates: list[int] = []
        self._window = window_bytes
        self._window_max = window_bytes_max
        self._least = window_bytes
        self._free = max(window_bytes, min(2 * reassembler.message_bytes_max, window_bytes_max))  # two messages always fit
        self._budget = budget
        self._needed_at = 0.0
        self._round_end = 0.0
        self._round_bytes = 0

    def data(self, chunk: Data) -> list[Message]:
        """Take one chunk, new or not. Raises ProtocolViolation, also when the sender overruns the window twice over."""
        self.ack_due = True
        tsn = self.unwrap(chunk.tsn)
        size = len(chunk.payload)
        if tsn == self.cumulative + 1 and not self._starts:
            self.cumulative = tsn
        else:
            if self._window - self.reassembler.held_bytes < size and tsn != self.cumulative + 1:
                self.packets_dropped += 1
                return []
            if not self._note(tsn):
                return []
        if self.reassembler.held_bytes > 2 * max(self._window, self._free):
            raise ProtocolViolation("sctp: the peer overran the receive window")
        self._round_bytes += size
        return self.reassembler.add(chunk, tsn)

    def run(self, run: Run) -> list[Message] | None:
        """Take a whole run if it comes after everything else, whether or not something is missing before it; else None, and
        nothing is done.

        Raises ProtocolViolation as `data` does.
        """
        tsn, count, ends = self.unwrap(run.tsn), len(run.payloads), self._ends
        in_order = not ends and tsn == self.cumulative + 1
        if tsn <= (ends[-1] if ends else self.cumulative):
            return None
        room = 2 * max(self._window, self._free) if in_order else self._window
        most = max(run.bytes, FRAGMENT_BYTES_MIN * count) + STRAY_BYTES + MESSAGE_BYTES
        if self.reassembler.held_bytes + most > room:
            return None
        if in_order:
            self.cumulative += count
        elif ends and tsn == ends[-1] + 1:
            ends[-1] += count
        elif len(ends) < INTERVALS_MAX:
            self._starts.append(tsn)
            ends.append(tsn + count - 1)
        else:
            return None
        self.ack_due = True
        self._round_bytes += run.bytes
        return self.reassembler.extend(run)

    def unwrap(self, tsn: int) -> int:
        """Return the plain integer nearest to the cumulative TSN that `tsn` stands for."""
        return self.cumulative + ((tsn - self.cumulative + _HALF) & MASK_32) - _HALF

    def sack(self) -> Sack:
        """Return the acknowledgement of all that has come."""
        self.ack_due = False
        base = self.cumulative
        gaps = [
            (start - base, end - base)
            for start, end in zip(self._starts[:SACK_GAPS_MAX], self._ends[:SACK_GAPS_MAX], strict=True)
            if end - base < 65536
        ]
        duplicates, self._duplicates = self._duplicates, []
        return Sack(base & MASK_32, self.window, gaps, duplicates)

    @property
    def window(self) -> int:
        """Bytes that we are ready to take, in full packets."""
        return max(0, self._window - self.reassembler.held_bytes)

    def tune(self, now: float, rtt_s: float | None) -> None:
        """Grow the window if the last round trip needed it, shrink it if none did for long. Once per batch of packets."""
        if now < self._round_end:
            return
        if self._round_bytes > self._window // 2:
            self._resize(min(2 * self._window, self._window_max))
        if self._round_bytes + self.reassembler.held_bytes > self._window // 8:
            self._needed_at = now
        elif now > self._needed_at + UNNEEDED_S:
            self._needed_at = now
            self._resize(max(self._window // 2, self._least))
        self._round_bytes = 0
        self._round_end = now + (rtt_s or _ROUND_S_WITHOUT_RTT)

    def close(self) -> None:
        """Nothing comes any more: give back what the window grew by. Idempotent."""
        self._resize(self._least)

    def _resize(self, window: int) -> None:
        more = max(window, self._free) - max(self._window, self._free)
        if more > 0 and not self._budget.take(more):
            return
        if more < 0:
            self._budget.give_back(-more)
        self._window = window

    def _note(self, tsn: int) -> bool:
        """Remember that `tsn` came; False if it had come before or there is no room to remember it."""
        if tsn <= self.cumulative:
            return self._duplicate(tsn)
        starts, ends = self._starts, self._ends
        if tsn == self.cumulative + 1:
            self.cumulative = tsn
            if starts and starts[0] == tsn + 1:
                self.cumulative = ends.pop(0)
                starts.pop(0)
            return True
        at = bisect_right(starts, tsn)
        if at and ends[at - 1] >= tsn:
            return self._duplicate(tsn)
        joins_left = at > 0 and ends[at - 1] == tsn - 1
        joins_right = at < len(starts) and starts[at] == tsn + 1
        if joins_left and joins_right:
            ends[at - 1] = ends.pop(at)
            starts.pop(at)
        elif joins_left:
            ends[at - 1] = tsn
        elif joins_right:
            starts[at] = tsn
        elif len(starts) >= INTERVALS_MAX:
            self.packets_dropped += 1
            return False
        else:
            starts.insert(at, tsn)
            ends.insert(at, tsn)
        return True

    def _duplicate(self, tsn: int) -> bool:
        if len(self._duplicates) < SACK_DUPLICATES_MAX:
            self._duplicates.append(tsn & MASK_32)
        return False
