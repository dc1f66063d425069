"""What a queue that several fill tells of the others, round trip by round trip.

BBR version 1 *looks at the empty path* every ten seconds: it leaves four packets in flight for 200 ms and a round trip, and
comes back at once with all that it had ("ProbeRTT", draft-cardwell-iccrg-bbr-congestion-control-00 section 4.3.5). If it has most
of the link, a queue that stood runs empty for about 300 ms and is there again a few rounds later. CUBIC flows cannot do that:
their cuts to 0.7 do not empty a queue of more than 0.43 of bandwidth × delay, and a shorter one fills slowly again.

On a *short* queue a sender that is paced, as we are, loses less of what overflows than one that sends in bursts, as the kernel's
CUBIC does: the others cut and we do not, time after time, and what they give up is ours. It shows as a full queue that falls
within a round or two although we have not cut.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

STOOD_ROUNDS, FALL_ROUNDS = 8, 2
"""A queue that stood for so many rounds, and ran empty within so many more,"""
LONG = 0.2
"""of at least this part of the empty path's round trip,"""
EMPTY, EMPTY_S = 0.1, 0.0005
"""down to this part of it or so many seconds,"""
LOOK_S, LOOK_ROUNDS = (0.16, 0.25), (0.8, 3.5)
"""was empty for so many seconds and so many round trips, at least and at most,"""
BACK, BACK_ROUNDS = 0.3, 4
"""and had this part of it again so many rounds later: then somebody has looked at the empty path."""
BACK_PACKETS, PACKET_BYTES = 3.0, 1448
"""But if fewer of our packets would have filled it so, it may be Reno flows: each adds one in a round trip."""
CUT_ROUNDS = 4
"""For so many rounds after a cut of ours the queue may be empty because of that."""
NOT_BEFORE_S, MISTAKEN_S = 8.0, 60.0
"""A look that comes sooner after the one before is somebody's sawtooth: then none is believed for the second time."""
SHORT = 0.3
"""A short queue, as a part of the empty path's round trip."""
FULL, FALL = 0.75, 0.25
"""It was full, and has fallen, by so much of its longest."""
APART_ROUNDS = 6
"""Another fall is not of the same overflow so many rounds later, nor of our own cut."""


class Sign(Enum):
    """What a look that has been found means."""

    LOOKED = "looked"
    """Somebody looked at the empty path, as BBR version 1 does."""
    MISTAKEN = "mistaken"
    """It came too soon after the one before: both are somebody's sawtooth."""


class Looks:
    """Finds looks at the empty path. Times in seconds."""

    def __init__(self) -> None:
        self._floors: deque[float] = deque(maxlen=STOOD_ROUNDS + FALL_ROUNDS)
        self._stood_s = 0.0
        self._empty_since: float | None = None
        self._back_rounds: int | None = None
        self._since_cut = CUT_ROUNDS
        self._looked_at = self._mistaken_until = float("-inf")

    def forget(self) -> None:
        """What was seen is our own doing: we have looked ourselves, or had nothing to send."""
        self._floors.clear()
        self._empty_since = self._back_rounds = None

    def cut(self) -> None:
        """We have given way."""
        self._since_cut = 0

    def round(self, now: float, floor_s: float, min_rtt_s: float, rate: float) -> Sign | None:
        """Take a round: its shortest round-trip time, that of the empty path, and our rate in bytes per second."""
        self._since_cut += 1
        sign = None
        if self._empty_since is None and self._back_rounds is None:
            self._wait_for_empty(now, floor_s, min_rtt_s)
        elif self._empty_since is not None and floor_s - min_rtt_s > self._empty_s(min_rtt_s):
            least, most = (s + rounds * min_rtt_s for s, rounds in zip(LOOK_S, LOOK_ROUNDS, strict=True))
            self._back_rounds = 0 if least <= now - self._empty_since <= most else None
            self._empty_since = None
        if self._back_rounds is not None:
            queue_s = floor_s - min_rtt_s
            self._back_rounds += 1
            if queue_s >= BACK * self._stood_s and queue_s * rate >= BACK_PACKETS * PACKET_BYTES:
                self._back_rounds = None
                sign = self._judge(now)
            elif self._back_rounds >= BACK_ROUNDS:
                self._back_rounds = None
        self._floors.append(floor_s)
        return sign

    def _wait_for_empty(self, now: float, floor_s: float, min_rtt_s: float) -> None:
        if len(self._floors) < STOOD_ROUNDS + FALL_ROUNDS or self._since_cut <= CUT_ROUNDS:
            return
        self._stood_s = min(list(self._floors)[:STOOD_ROUNDS]) - min_rtt_s
        if self._stood_s >= LONG * min_rtt_s and floor_s - min_rtt_s <= self._empty_s(min_rtt_s):
            self._empty_since = now
            self._floors.clear()

    def _empty_s(self, min_rtt_s: float) -> float:
        """No more than this stands in a queue that is empty."""
        return max(EMPTY_S, min(EMPTY * self._stood_s, 0.05 * min_rtt_s + 0.001))

    def _judge(self, now: float) -> Sign | None:
        soon = now < self._looked_at + NOT_BEFORE_S
        self._looked_at = now
        if soon:
            self._mistaken_until = now + MISTAKEN_S
            return Sign.MISTAKEN
        return Sign.LOOKED if now > self._mistaken_until else None


class Falls:
    """Finds where others have cut out of a full short queue. Times in seconds."""

    def __init__(self) -> None:
        self._rounds: deque[tuple[float, float]] = deque(maxlen=FALL_ROUNDS + 1)
        self._wait = 0

    def forget(self) -> None:
        """What was seen is our own doing."""
        self._rounds.clear()

    def cut(self) -> None:
        """We have given way: the queue will fall for a while."""
        self._wait = APART_ROUNDS

    def round(self, floor_s: float, mean_s: float, full_s: float, min_rtt_s: float) -> bool:
        """Take a round: its shortest and its mean time in the queue, the longest of late, and the empty path's round trip."""
        self._wait -= 1
        before, fall_s = list(self._rounds), FALL * full_s
        self._rounds.append((floor_s, mean_s))
        if self._wait > 0 or len(before) <= FALL_ROUNDS or full_s >= SHORT * min_rtt_s:
            return False
        floor_before_s, mean_before_s = (max(values) for values in zip(*before, strict=True))
        if floor_before_s < FULL * full_s or floor_s > floor_before_s - fall_s or mean_s > mean_before_s - fall_s:
            return False
        self._wait = APART_ROUNDS
        return True
