"""A model of the path instead of a count of losses: BBR-like, paced (Cardwell et al. 2016; draft-ietf-ccwg-bbr-03).

We keep the highest delivery rate of the last rounds and the smallest round-trip time of the last seconds, send at that
rate, and keep about twice their product in flight. Now and then we send a little faster to see whether there is more.

    STARTUP ──rate stops growing, or loss──▶ DRAIN ──▶ DOWN ──▶ CRUISE ──time to probe──▶ REFILL ──▶ UP ──▶ DOWN …
          CRUISE, REFILL, UP ──the queue overflows──▶ YIELD ──nobody there any more──▶ CRUISE
                                any of these ──round-trip time too old──▶ PROBE_RTT ──▶ CRUISE

Loss alone says little: a lossy radio link must not slow us. Loss while a queue is to be seen in the round-trip time is an
overflow: somebody else wants the link too, or its queue is short. We then do as CUBIC does, as long as others yield as well
(`yielding.py`). Where they do not, only much loss in one round counts: while probing it lowers the ceiling `_high` on what
is in flight; at other times it lowers `_low`, which the next probe forgets.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from agent.net.sctp.congestion import AckSample
from agent.net.sctp.yielding import LOSS_PACKETS_MIN, Curve, Yielding

STARTUP_GAIN = 2.885
DRAIN_GAIN = 1 / STARTUP_GAIN
UP_GAIN, DOWN_GAIN = 1.25, 0.8
WINDOW_GAIN = 2.0
HEADROOM = 0.85
LOSS_CUT = 0.85
RATE_ROUNDS, RATE_S = 20, 0.5
"""How long a rate is remembered: so many rounds, and at least so long. A busy host stalls for many short rounds."""
ROUNDS_BETWEEN_PROBES, DEFIANT_ROUNDS_BETWEEN_PROBES = 20, 6
"""The second as often as BBR version 1 does, beside which we need it."""
PROBE_INTERVAL_S = 2.5
MIN_RTT_AGE_S = 10.0
BURST_S, BURST_SHORT_S, BURST_SHORT_FOR_S = 0.02, 0.006, 10.0
"""What may go out at once after the host was late; less for a while after a queue has overflowed: bursts overrun short ones."""
PROBE_RTT_S = 0.2
LOSS_QUEUED, LOSS_UNQUEUED = 0.02, 0.10
DRAINING_GAIN, STANDING_S = 0.95, 0.001
"""Rates are the highest seen, so a little too high; cruising at them would let a queue grow. While one stands, of more than
a twentieth of the round-trip time, this many seconds, and what bridges the lateness of hosts, we go a little slower."""
FULL_GROWTH, FULL_ROUNDS = 1.25, 3
PROBE_GROWTH, PROBE_ROUNDS = 1.1, 3
"""Going up goes on for so many rounds after the rate last grew by so much."""
WINDOW_MIN_PACKETS = 8
QUANTUM_S = 0.001
"""The sender paces no finer than this, so a few such quanta must fit into the window."""
AGGREGATION_S_MAX = 0.1
"""Acknowledgements that come in lumps (a busy peer) are provided for up to this long at the known rate."""
_NO_LIMIT = 1 << 60


class Phase(Enum):
    """What we are doing."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "down"
    CRUISE = "cruise"
    REFILL = "refill"
    UP = "up"
    YIELD = "yield"
    PROBE_RTT = "probe-rtt"


_PACING_GAIN = {
    Phase.STARTUP: STARTUP_GAIN,
    Phase.DRAIN: DRAIN_GAIN,
    Phase.DOWN: DOWN_GAIN,
    Phase.CRUISE: 1.0,
    Phase.REFILL: 1.0,
    Phase.UP: UP_GAIN,
    Phase.YIELD: UP_GAIN,
    Phase.PROBE_RTT: 1.0,
}


class Bbr:
    """See CongestionControl and the module."""

    def __init__(self, *, payload_bytes: int, initial_packets: int = 10, window_bytes_max: int = 16 << 20) -> None:
        self.window = self._initial_window = initial_packets * payload_bytes
        self.pacing_rate: float | None = None
        self.burst_s = BURST_S
        self._burst_short_until = 0.0
        self.phase = Phase.STARTUP
        self._payload = payload_bytes
        self._window_max = window_bytes_max
        self._rates: deque[tuple[int, float, float]] = deque()  # (round, time, rate), falling rates
        self._min_rtt = float("inf")
        self._min_rtt_at = 0.0
        self._round = 0
        self._round_ends = 0
        self._round_began = False
        self._phase_round = 0
        self._phase_at = 0.0
        self._full_rate = 0.0
        self._full_count = 0
        self._high = _NO_LIMIT
        self._low = _NO_LIMIT
        self._round_acked = 0
        self._round_lost = 0
        self._round_rtt_sum, self._round_rtt_count = 0.0, 0
        self._too_much_loss = False
        self._overflowed = False
        self._queue_stands = False
        self._round_rtt_s = 0.0
        self._round_at = 0.0
        self._yielding = Yielding()
        self._curve: Curve | None = None
        self._started_round = 0
        self._lump_at = 0.0
        self._lump_bytes = 0
        self._lumps = [0.0, 0.0]
        self._lumps_at = 0.0

    @property
    def rate(self) -> float:
        """Bytes per second that the path has been seen to deliver."""
        return self._rates[0][2] if self._rates else 0.0

    def acked(self, sample: AckSample) -> None:
        """See CongestionControl."""
        self._count_round(sample)
        self._note_rate(sample)
        self._note_rtt(sample)
        self._note_lumps(sample)
        self._step(sample)
        self._set_window(sample)

    def timed_out(self, now: float) -> None:
        """See CongestionControl. The model is kept: the window grows back to it with what is acknowledged."""
        self.window = 4 * self._payload

    def packet_size(self, payload_bytes: int) -> None:
        """See CongestionControl."""
        self._payload = payload_bytes
        self.window = max(self.window, WINDOW_MIN_PACKETS * payload_bytes)

    # the model

    def _count_round(self, sample: AckSample) -> None:
        """A round ends when something is acknowledged that was sent after it began."""
        self._round_acked += sample.acked_bytes
        self._round_lost += sample.lost_bytes
        if sample.rtt_s is not None:
            self._round_rtt_sum += sample.rtt_s
            self._round_rtt_count += 1
        self._round_began = sample.delivered_before >= self._round_ends
        self._too_much_loss = self._overflowed = False
        if not self._round_began:
            return
        self._round += 1
        self._round_ends = sample.delivered_bytes
        lost, total, payload = self._round_lost, self._round_acked + self._round_lost, self._payload
        self._round_rtt_s = self._round_rtt_sum / self._round_rtt_count if self._round_rtt_count else self._round_rtt_s
        queued = self._round_rtt_s > 1.1 * self._min_rtt + QUANTUM_S
        bridge_s = max(self._lumps) / self.rate if self._rates else 0.0  # keeps the path busy while a host is late
        self._queue_stands = self._round_rtt_s > 1.05 * self._min_rtt + STANDING_S + bridge_s
        self._too_much_loss = lost > max(LOSS_PACKETS_MIN * payload, (LOSS_QUEUED if queued else LOSS_UNQUEUED) * total)
        self._overflowed = self._yielding.round_ended(lost=lost, total=total, packet_bytes=payload, queued=queued)
        self._yielding.note_rate((total - lost) / max(sample.now - self._round_at, 1e-6), sample.now)
        self._round_at = sample.now
        self._round_acked = self._round_lost = 0
        self._round_rtt_sum, self._round_rtt_count = 0.0, 0

    def _note_rate(self, sample: AckSample) -> None:
        rate = max(0, sample.delivered_bytes - sample.delivered_before) / max(sample.interval_s, 1e-6)
        if rate <= 0 or (sample.app_limited and rate <= self.rate):
            return
        rates = self._rates
        while rates and rates[-1][2] <= rate:
            rates.pop()
        rates.append((self._round, sample.now, rate))
        while len(rates) > 1 and rates[0][0] < self._round - RATE_ROUNDS and rates[0][1] < sample.now - RATE_S:
            rates.popleft()

    def _note_rtt(self, sample: AckSample) -> None:
        if sample.rtt_s is not None and sample.rtt_s <= self._min_rtt:
            self._min_rtt = sample.rtt_s
            self._min_rtt_at = sample.now

    def _note_lumps(self, sample: AckSample) -> None:
        """How much more is acknowledged at once than the rate explains: it must be in flight besides (draft section 5.5.9)."""
        if sample.now > self._lumps_at + RATE_S:
            self._lumps = [self._lumps[1], 0.0]
            self._lumps_at = sample.now
        expected = self.rate * (sample.now - self._lump_at)
        if self._lump_bytes <= expected:
            self._lump_at, self._lump_bytes, expected = sample.now, 0, 0.0
        self._lump_bytes += sample.acked_bytes
        extra = min(self._lump_bytes - expected, self.rate * AGGREGATION_S_MAX)
        self._lumps[1] = max(self._lumps[1], extra)

    @property
    def _product(self) -> float:
        """Bandwidth × delay."""
        return self.rate * self._min_rtt if self._rates and self._min_rtt < 60 else 0.0

    # the phases

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self._phase_at = now
        self._phase_round = self._round

    def _step(self, sample: AckSample) -> None:
        now, phase = sample.now, self.phase
        if phase in (Phase.STARTUP, Phase.DRAIN):
            self._started_round = self._round
        if self._overflowed or self._too_much_loss:
            self._burst_short_until = now + BURST_SHORT_FOR_S
            self._react(sample)
        self.burst_s = BURST_SHORT_S if now < self._burst_short_until else BURST_S
        if phase is Phase.STARTUP:
            self._check_full(sample)
        elif phase is Phase.DRAIN:
            if sample.in_flight <= self._product or self._round > self._phase_round + 3:
                self._enter(Phase.DOWN, now)
        elif phase is Phase.DOWN:
            ceiling = min(self._product, HEADROOM * self._high)
            if sample.in_flight <= ceiling or self._round > self._phase_round + 3:
                self._enter(Phase.CRUISE, now)
        elif phase is Phase.CRUISE:
            rounds = DEFIANT_ROUNDS_BETWEEN_PROBES if self._yielding.defiant(now) else ROUNDS_BETWEEN_PROBES
            if self._round >= self._phase_round + rounds or now > self._phase_at + PROBE_INTERVAL_S:
                self._low = _NO_LIMIT
                self._enter(Phase.REFILL, now)
        elif phase is Phase.REFILL:
            if self._round > self._phase_round:
                self._full_rate, self._full_count = self.rate, 0
                self._enter(Phase.UP, now)
        elif phase is Phase.UP:
            self._probe_up(sample)
        elif phase is Phase.YIELD:
            assert self._curve is not None
            if not self._queue_stands and self._curve.window(now, self._round_rtt_s) > WINDOW_GAIN * self._product:
                self._enter(Phase.CRUISE, now)
        self._maybe_probe_rtt(sample)

    def _check_full(self, sample: AckSample) -> None:
        if not self._round_began or sample.app_limited:
            return
        if self.rate > FULL_GROWTH * self._full_rate:
            self._full_rate, self._full_count = self.rate, 0
            return
        self._full_count += 1
        if self._full_count >= FULL_ROUNDS:
            self._enter(Phase.DRAIN, sample.now)

    def _probe_up(self, sample: AckSample) -> None:
        """Raise the ceiling while it is what holds us; stop once a queue has built up, or going faster brings no more."""
        if self._high < _NO_LIMIT and sample.in_flight >= 0.9 * self._high:
            self._high += sample.acked_bytes
        if self._round_began:
            grew = self.rate > PROBE_GROWTH * self._full_rate and not self._queue_stands
            self._full_count = 0 if grew else self._full_count + 1
            self._full_rate = self.rate
        long_enough = sample.now > self._phase_at + self._min_rtt and self._round > self._phase_round
        queue_built = long_enough and self._queue_stands and sample.in_flight > UP_GAIN * self._product
        if queue_built or self._full_count > PROBE_ROUNDS:
            self._enter(Phase.DOWN, sample.now)

    def _react(self, sample: AckSample) -> None:
        """Much was lost in the round that has just ended, or the queue overflowed."""
        in_flight = max(sample.in_flight + sample.acked_bytes + sample.lost_bytes, WINDOW_MIN_PACKETS * self._payload)
        if self._round <= self._started_round + 2:
            if self._too_much_loss and self.phase is Phase.STARTUP:
                self._high = max(int(in_flight * LOSS_CUT), int(self._product * LOSS_CUT))
                self._enter(Phase.DRAIN, sample.now)
            return  # what comes a little later is still of our own making, as we did not know the path
        if self._overflowed and self._yielding.yields(round_number=self._round, now=sample.now):
            if self._yielding.fresh_cut(self._round):
                self._curve = Curve(min(in_flight, self.window), sample.now, self._curve)
                self._high = self._low = _NO_LIMIT
                self._enter(Phase.YIELD, sample.now)
        elif self._yielding.patient(self._round):
            return
        elif self.phase is Phase.YIELD:
            self._enter(Phase.CRUISE, sample.now)
        elif self._too_much_loss and self.phase is Phase.UP:
            self._high = max(int(in_flight * LOSS_CUT), int(self._product * LOSS_CUT))
            self._enter(Phase.DOWN, sample.now)
        elif self._too_much_loss:
            self._low = max(int(min(self._low, self.window) * LOSS_CUT), int(self._product))

    def _maybe_probe_rtt(self, sample: AckSample) -> None:
        """Let the queue run empty once in a while, to see the path's own round-trip time."""
        now = sample.now
        if self.phase is Phase.PROBE_RTT:
            if now > self._phase_at + max(PROBE_RTT_S, self._min_rtt) and self._round > self._phase_round:
                self._min_rtt_at = now
                self._enter(Phase.CRUISE, now)
        elif now > self._min_rtt_at + MIN_RTT_AGE_S and self.phase is not Phase.STARTUP and sample.rtt_s is not None:
            if not sample.app_limited:
                self._enter(Phase.PROBE_RTT, now)
            self._min_rtt = sample.rtt_s
            self._min_rtt_at = now

    def _set_window(self, sample: AckSample) -> None:
        product = self._product
        if not product:
            self.window = min(self.window + sample.acked_bytes, self._window_max)
            return
        draining = self.phase is Phase.CRUISE and self._queue_stands and not self._yielding.defiant(sample.now)
        pace = (DRAINING_GAIN if draining else _PACING_GAIN[self.phase]) * self.rate
        if self.phase is Phase.STARTUP:  # what we know is from a few packets yet: never slow down for it
            pace = max(pace, self.pacing_rate or STARTUP_GAIN * self._initial_window / self._min_rtt)
        self.pacing_rate = pace
        quanta = 3 * self.rate * QUANTUM_S
        window_gain = STARTUP_GAIN if self.phase is Phase.STARTUP else WINDOW_GAIN
        target = window_gain * product + max(quanta, *self._lumps)
        if self.phase is Phase.PROBE_RTT:
            target = 0.5 * product + quanta
        elif self.phase is Phase.YIELD and self._curve is not None:
            target = self._curve.window(sample.now, self._round_rtt_s)
        target = min(target, self._low, self._high if self.phase is not Phase.CRUISE else HEADROOM * self._high)
        floor = self._initial_window if self.phase is Phase.STARTUP else 0
        wanted = int(max(min(target, self._window_max), WINDOW_MIN_PACKETS * self._payload, floor))
        self.window = min(self.window + sample.acked_bytes, wanted) if self.window < wanted else wanted
