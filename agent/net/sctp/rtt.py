"""Round-trip estimation and the timers that follow from it (RFC 9260 section 6.3; probe timeout from RFC 9002 6.2); patience."""

from __future__ import annotations

from dataclasses import dataclass

TIMEOUTS_MAX = 10
"""Retransmission timeouts after which the peer is given up, if the first missing chunk is still the same (RFC 9260
Association.Max.Retrans). Acknowledgements of later chunks do not count: they may be the same ones over and over."""
TIMEOUTS_UNTIL_DOUBT = 3
"""After so many, gap acknowledgements are taken for withdrawn, and large packets for lost in a black hole."""
LOSSES_UNTIL_DOUBT = 10
"""A large chunk that was lost so often suggests that packets of its size do not pass."""
LOSSES_MAX = 40
"""A chunk that was lost so often never gets through."""
GRANULARITY_S = 0.005


@dataclass(frozen=True, kw_only=True)
class RttConfig:
    """Bounds of the timers, seconds."""

    initial_timeout_s: float = 1.0
    """Retransmission timeout before the first sample."""
    timeout_min_s: float = 0.3
    """Shortest retransmission timeout. RFC 9260 says 1 s; a probe comes first here, so less is safe."""
    timeout_max_s: float = 8.0
    probe_min_s: float = 0.03
    """Shortest time to a tail-loss probe: a busy peer takes that long to get round to us."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout_min_s <= self.initial_timeout_s <= self.timeout_max_s or self.probe_min_s <= 0:
            raise ValueError("timeouts must be positive, and min <= initial <= max")


class RttEstimator:
    """Smoothed round-trip time, its variation and its minimum."""

    def __init__(self, config: RttConfig) -> None:
        self._config = config
        self.smoothed_s: float | None = None
        self.variation_s = 0.0
        self.min_s = float("inf")

    def sample(self, rtt_s: float) -> None:
        """Take one measurement of a packet that was sent only once."""
        self.min_s = min(self.min_s, rtt_s)
        if self.smoothed_s is None:
            self.smoothed_s = rtt_s
            self.variation_s = rtt_s / 2
            return
        self.variation_s += (abs(self.smoothed_s - rtt_s) - self.variation_s) / 4
        self.smoothed_s += (rtt_s - self.smoothed_s) / 8

    def probe_timeout_s(self) -> float:
        """How long without an acknowledgement before the last packet is sent once more."""
        if self.smoothed_s is None:
            return self._config.initial_timeout_s
        return max(self._config.probe_min_s, self.smoothed_s + max(4 * self.variation_s, GRANULARITY_S))

    def timeout_s(self, doublings: int) -> float:
        """The retransmission timeout after so many in a row without an answer."""
        base = self._config.initial_timeout_s
        if self.smoothed_s is not None:
            base = max(self._config.timeout_min_s, self.smoothed_s + max(4 * self.variation_s, GRANULARITY_S))
        return min(base * (1 << min(doublings, 16)), self._config.timeout_max_s)
