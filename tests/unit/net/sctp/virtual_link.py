"""Two associations, a link that loses, delays, repeats and alters packets, and a virtual clock."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from agent.net.sctp.association import Association
from agent.net.sctp.config import SctpConfig
from agent.net.sctp.events import Ended, Event
from agent.net.sctp.reassembly import Message

STEPS_MAX = 400_000


@dataclass(kw_only=True)
class Weather:
    """What the link does to packets, each way."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    size_max: int = 1 << 20
    """Larger packets vanish."""
    rate: float | None = None
    """Bytes per second, or no limit."""
    queue_bytes: int = 1 << 20
    """What may wait for the rate; more is lost."""


@dataclass
class End:
    """One association and what came out of it."""

    association: Association
    events: list[Event] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    packets: int = 0
    busy_until: float = 0.0

    @property
    def ended(self) -> Ended | None:
        return next((event for event in self.events if isinstance(event, Ended)), None)


class VirtualLink:
    """Runs both ends until nothing is left to do, a time has come, or a condition holds."""

    def __init__(self, seed: int, weather: Weather, *configs: SctpConfig, batch_s: float = 0.0) -> None:
        self.rng = random.Random(seed)
        self.weather = weather
        self.now = 1000.0
        self.batch_s = batch_s
        one, other = (configs or (SctpConfig(), SctpConfig())) if len(configs) != 1 else (configs[0], configs[0])
        self.ends = [End(Association(one, self.rng)), End(Association(other, self.rng))]
        self._heap: list[tuple[float, int, int, bytes]] = []
        self._count = 0
        self.steps = 0

    def begin(self) -> None:
        for side in (0, 1):
            self.ends[side].association.begin(self.now)
        self.flush()

    def send(self, side: int, stream: int, data: bytes) -> None:
        self.ends[side].association.send(stream, 53, memoryview(data))

    def flush(self) -> None:
        for side in (0, 1):
            self._pump(side)

    def run(self, until_s: float, condition=lambda: False) -> bool:
        """Advance to `until_s` after now, or until `condition`; True if the condition came true."""
        stop = self.now + until_s
        self.flush()
        while not condition():
            self.steps += 1
            assert self.steps < STEPS_MAX, "the simulation does not come to rest"
            due = self._next()
            if due is None or due > stop:
                self.now = stop
                return condition()
            self.now = max(self.now, due)
            arrived: tuple[list[bytes], list[bytes]] = ([], [])
            while self._heap and self._heap[0][0] <= self.now:
                _, _, side, packet = heapq.heappop(self._heap)
                arrived[side].append(packet)
            touched = {side for side in (0, 1) if arrived[side]}
            for side in touched:
                self.ends[side].association.receive_all(arrived[side], self.now)
            for side in (0, 1):
                deadline = self.ends[side].association.next_deadline()
                if deadline is not None and deadline <= self.now:
                    self.ends[side].association.tick(self.now)
                    touched.add(side)
            for side in touched:
                self._pump(side)
        return True

    def _next(self) -> float | None:
        times = [end.association.next_deadline() for end in self.ends]
        if self._heap:
            times.append(self._heap[0][0])
        due = [time for time in times if time is not None]
        return min(due) if due else None

    def _pump(self, side: int) -> None:
        end = self.ends[side]
        while packets := end.association.transmit(self.now):
            for packet in packets:
                end.packets += 1
                self._post(1 - side, packet)
        for event in end.association.events():
            end.events.append(event)
            if isinstance(event, Message):
                end.messages.append(event)

    def _post(self, side: int, packet: bytes) -> None:
        weather, rng = self.weather, self.rng
        assert type(packet) is bytes
        if len(packet) > weather.size_max or rng.random() < weather.loss:
            return
        departs = self.now
        if weather.rate is not None:
            sender = self.ends[1 - side]
            if (sender.busy_until - self.now) * weather.rate > weather.queue_bytes:
                return
            sender.busy_until = departs = max(sender.busy_until, self.now) + len(packet) / weather.rate
        copies = 2 if rng.random() < weather.duplicate else 1
        for _ in range(copies):
            data = packet
            if rng.random() < weather.corrupt:
                at = rng.randrange(len(packet))
                data = packet[:at] + bytes([packet[at] ^ (1 << rng.randrange(8))]) + packet[at + 1 :]
            self._count += 1
            heapq.heappush(self._heap, (departs + weather.delay_s + rng.random() * weather.jitter_s, self._count, side, data))
