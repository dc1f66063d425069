"""How links behave: latency, bandwidth, and what is wrong with them at the moment.

A link is reliable and ordered, as a data channel is. `lost` is harsher than that: it loses single messages for good, as happens
when a queue is full, a peer is restarted, or a message is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from agent.identity import PeerId

Drop = Callable[[PeerId, PeerId, bytes], bool]


class Links:
    """The state of the network. Everything may be changed while the simulation runs; times in seconds, sizes in bytes."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.latency_s = 0.035  # one way; each message has its own, uniform within jitter_s of it
        self.jitter_s = 0.015
        self.bytes_per_s = 0.0  # of one link in one direction; 0: without limit
        self.lost = 0.0  # share of messages that get lost
        self.unconnectable = 0.0  # share of attempts to connect that fail
        self.setup_trips = 4  # latencies that setting up a link takes once the offer is answered (ICE and DTLS)
        self.setup_timeout_s = 10.0  # when an attempt that cannot succeed is given up
        self.notice_s = (5.0, 20.0)  # after how long a silent link is closed by the end that finds it silent
        self.drop: Drop | None = None  # True loses that message
        self.side: Callable[[PeerId], int] | None = None  # a partition: peers of different sides do not reach each other

    def latency(self) -> float:
        return self.latency_s + self.jitter_s * (2.0 * self._rng.random() - 1.0)

    def setup(self) -> float:
        return sum(self.latency() for _ in range(self.setup_trips))

    def notice(self) -> float:
        """After how long an end notices that a link has died."""
        low, high = self.notice_s
        return low + (high - low) * self._rng.random()

    def loses(self, source: PeerId, target: PeerId, data: bytes) -> bool:
        if self.lost and self._rng.random() < self.lost:
            return True
        if self.drop is not None and self.drop(source, target, data):
            return True
        return self.side is not None and self.side(source) != self.side(target)

    def again(self, delay_s: tuple[float, float]) -> float:
        """How much later a message of a reliable link arrives because it was lost and sent again; mostly 0."""
        later_s = 0.0
        while self.lost and self._rng.random() < self.lost:
            low, high = delay_s
            later_s += low + (high - low) * self._rng.random()
        return later_s

    def connects(self, a: PeerId, b: PeerId) -> bool:
        """True if an attempt to connect these two succeeds."""
        if self.side is not None and self.side(a) != self.side(b):
            return False
        return not (self.unconnectable and self._rng.random() < self.unconnectable)
