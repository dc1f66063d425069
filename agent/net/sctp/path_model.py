"""What acknowledgements say about the path: its rate, its delay, how much stands in its queue, how it loses.

Rates are the highest of the last rounds, as in BBR (draft-ietf-ccwg-bbr-03 section 5.5). The delay of the empty path is the
smallest of the last half minute: a queue that others keep full must not pass for distance. A *round* is a round trip,
counted by what is delivered.
"""

from __future__ import annotations

from collections import deque

from agent.net.sctp.congestion import AckSample

RATE_ROUNDS, RATE_S = 20, 0.5
"""How long a rate is remembered: so many rounds, and at least so long. A busy host stalls for many short rounds."""
RECENT_ROUNDS = 4
"""Of so many rounds the best is what we get at present."""
STANDING_SAMPLES = 4
"""Of so many round trips the shortest says what stands in the queue: a late host delays one or two."""
MIN_RTT_PERIOD_S, MIN_RTT_PERIODS = 10.0, 3
QUEUE_FULL_S = 15.0
"""The longest queue is that of the last one to two such periods."""
QUEUE_SEEN_S = 0.001
LUMPS_S, LUMPS_PERIODS = 0.1, 5
"""Acknowledgements come in lumps where a host is busy. The largest lump of each period is noted, and the middle one of these
is provided for: a single stall is not worth a queue, stalls all the time are."""
_NEVER = float("inf")


class PathModel:
    """Feed it every acknowledgement, then look at it."""

    def __init__(self, *, bridge_s: float, bridge_bytes: int) -> None:
        """Lumps are provided for up to `bridge_s` at the known rate, or up to `bridge_bytes` if that is more."""
        self.round = 0
        """Rounds so far."""
        self.round_began = False
        """Whether the last acknowledgement ended a round; what follows is about the round that it ended."""
        self.acked_bytes = self.lost_bytes = 0
        self.rtt_s = 0.0
        """Mean round-trip time of the last round."""
        self.floor_s = _NEVER
        """Shortest round-trip time of the last round: lateness of the hosts only adds to it."""
        self.samples = 0
        """How many of them there were."""
        self.min_rtt_at = 0.0
        """When the delay of the path was last seen, or last given up."""
        self.rate_now = 0.0
        """Bytes per second over the round trip that ends now."""
        self.lump_bytes = 0.0
        """What comes in lumps beyond the rate, and must be in flight besides (draft section 5.5.9)."""
        self._rates: deque[tuple[int, float, float]] = deque()  # (round, time, rate), falling rates
        self._recent: deque[float] = deque([0.0], maxlen=RECENT_ROUNDS)
        self._min_rtts = deque([_NEVER], maxlen=MIN_RTT_PERIODS)
        self._last_rtts = deque([0.0], maxlen=STANDING_SAMPLES)
        self._min_rtt_period = 0.0
        self._round_ends = 0
        self._round_at = 0.0
        self._sums = [0, 0]
        self._rtts = [0.0, 0.0, _NEVER]
        self._queue_full = [0.0, 0.0]
        self._queue_full_at = 0.0
        self._bridge = bridge_s, bridge_bytes
        self._lump_at = 0.0
        self._lump_bytes = 0
        self._lump_largest = 0.0
        self._lumps: deque[float] = deque([0.0] * LUMPS_PERIODS, maxlen=LUMPS_PERIODS)
        self._lumps_at = 0.0

    def acked(self, sample: AckSample) -> None:
        """Take one acknowledgement."""
        self._note_rate(sample)
        self._note_rtt(sample)
        self._note_lumps(sample)
        self._count_round(sample)

    @property
    def rate(self) -> float:
        """Bytes per second that the path has been seen to deliver."""
        return self._rates[0][2] if self._rates else 0.0

    def rate_of(self, rounds: int) -> float:
        """The same of the last so many rounds only."""
        return next((rate for at, _, rate in self._rates if at >= self.round - rounds), 0.0)

    @property
    def recent_rate(self) -> float:
        """Bytes per second that it delivers at present, over whole rounds."""
        return max(self._recent)

    @property
    def standing_s(self) -> float:
        """What stands in the queue now, at least, seconds: by the shortest of the last few round trips."""
        return max(0.0, min(self._last_rtts) - self.min_rtt)

    @property
    def min_rtt(self) -> float:
        """Round-trip time of the empty path, infinite while unknown."""
        return min(self._min_rtts)

    @property
    def product(self) -> float:
        """Bandwidth × delay, bytes; 0 while unknown."""
        return self.rate * self.min_rtt if self._rates and self.min_rtt < _NEVER else 0.0

    @property
    def queue_s(self) -> float:
        """What stands in the queue, at least, seconds."""
        return max(0.0, self.floor_s - self.min_rtt) if self.floor_s < _NEVER else 0.0

    @property
    def queue_full_s(self) -> float:
        """The longest such queue of late."""
        return max(self._queue_full)

    @property
    def bridge_s(self) -> float:
        """How long acknowledgements that come in lumps leave the path without news."""
        return self.lump_bytes / self.rate if self._rates else 0.0

    def expire_min_rtt(self, now: float) -> None:
        """Half a minute's worth of delays is kept; begin the next part."""
        if now > self._min_rtt_period + MIN_RTT_PERIOD_S:
            self._min_rtts.append(_NEVER)
            self._min_rtt_period = now

    def _count_round(self, sample: AckSample) -> None:
        """A round ends when something is acknowledged that was sent after it began."""
        self._sums[0] += sample.acked_bytes
        self._sums[1] += sample.lost_bytes
        if sample.rtt_s is not None:
            total, count, least = self._rtts
            self._rtts = [total + sample.rtt_s, count + 1, min(least, sample.rtt_s)]
        self.round_began = sample.interval_s > 0 and sample.delivered_before >= self._round_ends
        if not self.round_began:
            return
        now = sample.now
        self.round += 1
        self._round_ends = sample.delivered_bytes
        self.acked_bytes, self.lost_bytes = self._sums
        total, count, least = self._rtts
        self.samples = int(count)
        if count:
            self.rtt_s, self.floor_s = total / count, least
        self._recent.append(self.acked_bytes / max(now - self._round_at, 1e-6) if self._round_at else 0.0)
        self._round_at = now
        self._sums, self._rtts = [0, 0], [0.0, 0.0, _NEVER]
        if now > self._queue_full_at + QUEUE_FULL_S:
            self._queue_full, self._queue_full_at = [self._queue_full[1], 0.0], now
        self._queue_full[1] = max(self._queue_full[1], self.queue_s)

    def _note_rate(self, sample: AckSample) -> None:
        rate = max(0, sample.delivered_bytes - sample.delivered_before) / max(sample.interval_s, 1e-6)
        self.rate_now = rate or self.rate_now
        if rate <= 0 or (sample.app_limited and rate <= self.rate):
            return
        rates = self._rates
        while rates and rates[-1][2] <= rate:
            rates.pop()
        rates.append((self.round, sample.now, rate))
        while len(rates) > 1 and rates[0][0] < self.round - RATE_ROUNDS and rates[0][1] < sample.now - RATE_S:
            rates.popleft()

    def _note_rtt(self, sample: AckSample) -> None:
        if sample.rtt_s is None:
            return
        if sample.rtt_s <= self.min_rtt * 1.02 + 2e-4:
            self.min_rtt_at = sample.now
        self._min_rtts[-1] = min(self._min_rtts[-1], sample.rtt_s)
        self._last_rtts.append(sample.rtt_s)

    def _note_lumps(self, sample: AckSample) -> None:
        """How much more is acknowledged at once than the rate explains."""
        if sample.now > self._lumps_at + LUMPS_S:
            self._lumps.append(self._lump_largest)
            bridge_s, bridge_bytes = self._bridge
            self.lump_bytes = min(sorted(self._lumps)[LUMPS_PERIODS // 2], max(bridge_s * self.rate, bridge_bytes))
            self._lumps_at, self._lump_largest = sample.now, 0.0
        expected = self.rate * (sample.now - self._lump_at)
        if self._lump_bytes <= expected:
            self._lump_at, self._lump_bytes, expected = sample.now, 0, 0.0
        self._lump_bytes += sample.acked_bytes
        self._lump_largest = max(self._lump_largest, self._lump_bytes - expected)
