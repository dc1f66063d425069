"""Congestion controls on one bottleneck, without associations: windows, paces and acknowledgements only, so that minutes of
100 Mbit/s take seconds.

Time goes in steps. In each, every flow takes the acknowledgements that have come, and sends what its window and its pace
allow into one first-in-first-out queue, which drops what does not fit. Flows in Python hosts come late now and then, those
in the kernel do not. Packets are acknowledged in order; a lost one is found missing when the third after it has come, or after a
second without any.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.net.sctp.bbr import Bbr
from agent.net.sctp.congestion import AckSample, CongestionControl
from tests.unit.net.sctp.rivals import BbrOne, Cubic

STEP_S = 0.0005
HEADERS_BYTES = 68
BURST_PACKETS = 128
QUANTUM_S = 0.001
TIMEOUT_S = 1.0
BOOT_S = 1000.0
"""What the clock says at the beginning: a machine has been up for a while."""
Packet = tuple[int, float, int, float, bool, bool]
"""Number, time, what was delivered then and when, whether it is lost, whether the host was late."""


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """A link and the queue before it."""

    rate: float = 12.5e6
    """Bytes per second: 100 Mbit/s."""
    rtt_s: float = 0.04
    queue_bytes: float = 450_000
    loss: float = 0.0


class Flow:
    """One sender with all the data in the world."""

    def __init__(self, control: CongestionControl, payload: int, late: Callable[[random.Random], float] | None) -> None:
        self.control = control
        self.payload = payload
        self.late = late
        self.wakes = 0.0
        self.in_flight = self.delivered = self.sent = self.lost = 0
        self.coming: deque[tuple[float, int]] = deque()
        self.limited = self.waiting = False
        self._out: deque[Packet] = deque()
        self._missing: deque[Packet] = deque()
        self._delivered_at = self._paced_until = 0.0
        self._recovery = -1

    def take(self, now: float) -> None:
        """Take the acknowledgements that have come by now."""
        last = -1
        while self.coming and self.coming[0][0] <= now:
            last = self.coming.popleft()[1]
        if last < 0:
            if self._out and not self.coming and now > self._out[-1][1] + TIMEOUT_S:
                self._time_out(now)
            return
        newest, count, lost, new_round = None, 0, 0, False
        while self._out and self._out[0][0] <= last:
            packet = self._out.popleft()
            if packet[4]:
                self._missing.append(packet)
            else:
                newest, count = packet, count + 1
        while self._missing and self._missing[0][0] <= last - 3:
            new_round = self._missing.popleft()[0] > self._recovery or new_round
            lost += 1
        if new_round:
            self._recovery = self.sent - 1
        assert newest is not None
        self.in_flight -= (count + lost) * self.payload
        self.lost += lost
        self.delivered += count * self.payload
        interval_s = max(now - newest[3], now - newest[1])
        self._delivered_at = now
        self.control.acked(
            AckSample(
                now, count * self.payload, lost * self.payload, self.in_flight, self.limited, new_round,
                now - newest[1], self.delivered, newest[2], interval_s, newest[5],
            )
        )  # fmt: skip
        self.limited = False

    def _time_out(self, now: float) -> None:
        """Nothing of what is on the way will ever be acknowledged."""
        self.lost += len(self._out) + len(self._missing)
        self._out.clear()
        self._missing.clear()
        self.in_flight = 0
        self._recovery = self.sent - 1
        self._paced_until = now
        self.control.timed_out(now)

    def send(self, now: float, post: Callable[[int], float | None]) -> None:
        """Send what may go; `post` takes a packet's bytes, and returns when it will be acknowledged, or None."""
        control, rate, late = self.control, self.control.pacing_rate, False
        budget = float("inf")
        if not self.in_flight:
            self._delivered_at = now
        if rate:
            earliest = now - max(control.burst_s, 2 * self.payload / rate)
            if self._paced_until < earliest:
                late, self._paced_until = self.waiting, earliest
            budget = (now - self._paced_until) * rate
            if budget < QUANTUM_S / 2 * rate:
                self.waiting = True
                self.limited = self.limited or self.in_flight >= control.window
                return
        count = 0
        while self.in_flight < control.window and count * self.payload < budget and count < BURST_PACKETS:
            back = post(self.payload + HEADERS_BYTES)
            self._out.append((self.sent, now, self.delivered, self._delivered_at, back is None, late))
            if back is not None:
                self.coming.append((back, self.sent))
            self.sent += 1
            count += 1
            self.in_flight += self.payload
        self.waiting = self.in_flight < control.window
        self.limited = self.limited or self.in_flight + self.payload > control.window
        if rate:
            self._paced_until += count * self.payload / rate


def flow(kind: str) -> Flow:
    """`ours`, `cubic`, or `bbr-1`, each with packets of 1,500 bytes or as good as."""
    if kind == "ours":
        return Flow(Bbr(payload_bytes=1424), 1424, _python_host)
    control = Cubic(payload_bytes=1448) if kind == "cubic" else BbrOne(payload_bytes=1448)
    return Flow(control, 1448, None)


def _python_host(rng: random.Random) -> float:
    """How late it looks at its socket again, seconds."""
    return 0.001 + 0.003 * rng.random() if rng.random() < 0.02 else 0.0002 + 0.0006 * rng.random()


class SharedLink:
    """Runs the flows, which begin `gap_s` one after another."""

    def __init__(self, link: Bottleneck, kinds: list[str], *, seed: int = 1, gap_s: float = 0.5) -> None:
        self.flows = [flow(kind) for kind in kinds]
        for index, each in enumerate(self.flows):
            each.wakes = BOOT_S + index * gap_s
        self.now = BOOT_S
        self.queue_s = 0.0
        """Mean of what a packet had to wait in the last `run`, and the most."""
        self.queue_max_s = 0.0
        self.link = link
        self._rng = random.Random(seed)
        self._free = 0.0

    def run(self, seconds: float) -> list[float]:
        """Advance; return each flow's part of the link's rate, in payload."""
        before, end, steps, waited, most = [each.delivered for each in self.flows], self.now + seconds, 0, 0.0, 0.0
        order = list(self.flows)
        while self.now < end:
            self.now += STEP_S
            self._rng.shuffle(order)
            for each in order:
                if self.now >= each.wakes:
                    each.take(self.now)
                    each.send(self.now, self._post)
                    each.wakes = self.now + (each.late(self._rng) if each.late else 0.0)
            waited += max(0.0, self._free - self.now)
            most = max(most, self._free - self.now)
            steps += 1
        self.queue_s, self.queue_max_s = waited / steps, most
        return [(each.delivered - had) / seconds / self.link.rate for each, had in zip(self.flows, before, strict=True)]

    def _post(self, size: int) -> float | None:
        link = self.link
        if link.loss and self._rng.random() < link.loss:
            return None
        self._free = max(self._free, self.now)
        if (self._free - self.now) * link.rate > link.queue_bytes:
            return None
        self._free += size / link.rate
        return self._free + link.rtt_s
