"""Bulk flows of real associations over one simulated bottleneck, on a virtual clock."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from agent.net.sctp.association import Association
from agent.net.sctp.config import PACKET_BYTES_BASE, SctpConfig
from agent.net.sctp.congestion import CongestionControl
from agent.net.sctp.reassembly import Message
from tests.unit.net.sctp.rivals import BbrOne, Cubic

RATE = 1e6
RTT_S = 0.04
PRODUCT = RATE * RTT_S
MESSAGE = memoryview(bytes(30_000))
WAITING_BYTES = 1 << 20


class CubicConfig(SctpConfig):
    """An association with CUBIC."""

    def make_congestion(self) -> CongestionControl:
        return Cubic(payload_bytes=PACKET_BYTES_BASE)


class BbrOneConfig(SctpConfig):
    """An association with the first BBR."""

    def make_congestion(self) -> CongestionControl:
        return BbrOne(payload_bytes=PACKET_BYTES_BASE)


RIVALS = {"cubic": CubicConfig, "bbr-1": BbrOneConfig}


@dataclass(kw_only=True)
class Path:
    """One bottleneck and its queue, shared by all flows."""

    rate: float = RATE
    rtt_s: float = RTT_S
    queue_bytes: float = PRODUCT
    loss: float = 0.0
    late_s: float = 0.0
    """Both hosts are busy: whatever happens, they look at it up to this much later."""


class Flows:
    """Bulk flows over one path, started half a second apart."""

    def __init__(self, path: Path, *strategies: str) -> None:
        self.path = path
        self.rng = random.Random(3)
        self.now = 0.0
        self.sources = [self._association(strategy) for strategy in strategies]
        self.sinks = [self._association("reno") for _ in strategies]
        self.received = [0] * len(strategies)
        self.queue_s: list[float] = []
        self._busy_until = 0.0
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self._begun = 0

    def _association(self, strategy: str) -> Association:
        if strategy in RIVALS:
            return Association(RIVALS[strategy](packet_bytes_max=PACKET_BYTES_BASE), self.rng)
        config = SctpConfig(congestion=strategy, packet_bytes_max=PACKET_BYTES_BASE)  # type: ignore[arg-type]
        return Association(config, self.rng)

    def run(self, seconds: float) -> list[float]:
        """Advance; return the share of the path's rate that each flow got."""
        before, start = list(self.received), self.now
        while self.now < start + seconds:
            self._begin_and_refill()
            self._step()
        return [(got - had) / seconds / self.path.rate for got, had in zip(self.received, before, strict=True)]

    def _begin_and_refill(self) -> None:
        while self._begun < len(self.sources) and self.now >= 0.5 * self._begun:
            for end in (self.sources[self._begun], self.sinks[self._begun]):
                end.begin(self.now)
            self._begun += 1
            for index in range(2 * len(self.sources)):
                self._pump(index)
        for source in self.sources[: self._begun]:
            while source.buffered() < WAITING_BYTES:
                source.send(1, 53, MESSAGE)

    def _step(self) -> None:
        ends = self.sources + self.sinks
        times = [deadline for end in ends if (deadline := end.next_deadline()) is not None]
        times += [self._heap[0][0]] if self._heap else []
        times += [0.5 * self._begun] if self._begun < len(self.sources) else []
        self.now = max(self.now, min(times)) + self.rng.random() * self.path.late_s
        touched = set()
        while self._heap and self._heap[0][0] <= self.now:
            _, _, index, packet = heapq.heappop(self._heap)
            ends[index].receive(packet, self.now)
            touched.add(index)
        for index, end in enumerate(ends):
            deadline = end.next_deadline()
            if deadline is not None and deadline <= self.now:
                end.tick(self.now)
                touched.add(index)
        for index in touched:
            self._pump(index)
        self.queue_s.append(max(0.0, self._busy_until - self.now))

    def _pump(self, index: int) -> None:
        count = len(self.sources)
        forward = index < count
        end = self.sources[index] if forward else self.sinks[index - count]
        while packets := end.transmit(self.now):
            for packet in packets:
                self._post(packet, forward, index + count if forward else index - count)
        for event in end.events():
            if isinstance(event, Message):
                self.received[index - count] += len(event.data)

    def _post(self, packet: bytes, forward: bool, target: int) -> None:
        path = self.path
        arrives = self.now + path.rtt_s / 2
        if self.rng.random() < path.loss:
            return
        if forward:
            if (self._busy_until - self.now) * path.rate > path.queue_bytes:
                return
            self._busy_until = max(self._busy_until, self.now) + len(packet) / path.rate
            arrives = self._busy_until + path.rtt_s / 2
        self._count += 1
        heapq.heappush(self._heap, (arrives, self._count, target, packet))


def retransmitted(flows: Flows, index: int = 0) -> float:
    counts = flows.sources[index].counts
    return counts.retransmitted / counts.packets
