"""A model of the path instead of a count of losses: BBR-like, paced (Cardwell et al. 2016; draft-ietf-ccwg-bbr-03).

We keep the highest delivery rate of the last rounds and the smallest round-trip time (`path_model.py`), send at that rate,
and keep in flight what the path holds at the present rate and a few packets more, so that its queue stays short (as Vegas
does). Now and then we send a little faster to see whether there is more.

    STARTUP ──rate stops growing, or loss──▶ DRAIN ──▶ DOWN ──▶ CRUISE ──time to probe──▶ REFILL ──▶ UP ──▶ DOWN …
          CRUISE, REFILL, UP ──the queue overflows, or stands whatever we do──▶ YIELD ──nobody there any more──▶ CRUISE
                   YIELD ──there is one that does not yield──▶ PRESS ──after a while──▶ YIELD
                                any of these ──round-trip time too old──▶ PROBE_RTT ──▶ CRUISE or YIELD

Loss alone says little: a lossy radio link must not slow us. Loss while a queue is to be seen in the round-trip time is an
overflow: somebody else wants the link too, or its queue is short. We then do as CUBIC does, as long as others yield as well,
and as BBR version 1 does where it is there (`yielding.py`, `rivals.py`).
"""

from __future__ import annotations

from enum import Enum

from agent.net.sctp.congestion import AckSample
from agent.net.sctp.path_model import PathModel
from agent.net.sctp.rivals import Rivals
from agent.net.sctp.yielding import LOSS_PACKETS_MIN, Curve, Yielding

STARTUP_GAIN = 2.885
DRAIN_GAIN = 1 / STARTUP_GAIN
UP_GAIN, DOWN_GAIN = 1.25, 0.8
WINDOW_GAIN = 2.0
HEADROOM = 0.85
LOSS_CUT = 0.85
BURST_PRESS_S = 0.012
"""While pressing, a late host must make good more of what it missed: its rival never misses anything."""
PRESS_LENGTHS, PRESS_ROUNDS = (9, 12, 7, 13, 10), 10
PRESS_CYCLE = tuple(gain for length in PRESS_LENGTHS for gain in (1.25, 0.75, *[1.0] * (length - 2)))
"""BBR version 1 probes so, though always after eight round trips, and remembers rates for so many.
Ours keep no time, so that others like us do not take us for it (`rivals.py`) and press as well."""
ROUNDS_BETWEEN_PROBES = 20
PROBE_INTERVAL_S = 2.5
MIN_RTT_AGE_S, MIN_RTT_AGE_YIELDING_S = 10.0, 20.0
BURST_S, BURST_SHORT_S, BURST_SHORT_FOR_S = 0.02, 0.006, 10.0
"""What may go out at once after the host was late; less for a while after a queue has overflowed: bursts overrun short ones."""
PROBE_RTT_S = 0.1
LOSS_QUEUED, LOSS_UNQUEUED = 0.02, 0.10
DRAINING_GAIN, STANDING_S = 0.95, 0.001
"""Rates are the highest seen, so a little too high; cruising at them would let a queue grow. While one stands, of more than
a twentieth of the round-trip time, this many seconds, and what bridges the lateness of hosts, we go a little slower."""
SURPLUS_BYTES = 12_000
"""What we keep in the queue to see that the path is full; flows like ours then find equal parts."""
BRIDGE_S, BRIDGE_BYTES = 0.002, 256 << 10
"""See SctpConfig."""
CONTEST_ROUNDS, CONTEST_S, CONTEST_RTT_S = 10, 0.3, 0.005
"""A queue that stands so long, longer than we and some like us would make it, is kept by others, who would leave us nothing.
On paths shorter than the last of these, what stands is as well the lateness of the hosts: nothing is concluded there."""
FLOOR_SAMPLES = 16
"""With so many samples the shortest round trip of a round is not the hosts' doing."""
PEAK_DECAY = 0.99
"""Our part of it is the window that we had lately; this is how fast we forget it, per round."""
RESUME_S = 10.0
"""If a contest comes back so soon after it seemed over, it had only paused."""
FULL_GROWTH, FULL_ROUNDS = 1.25, 3
FULL_LOSS_PACKETS = 6
"""Loss ends STARTUP too, but not so few packets in a round: a queue that others fill loses them of the first that we send."""
UP_QUEUE_S, UP_LEAST, UP_SEEN = 0.010, 0.05, 0.5
"""Going up where there is no room leaves a queue of the surplus of a round trip, in which control waits. So we begin with no more
than this many seconds' worth, or the second of what the path holds if that is more; half of it seen in the queue ends it. Once
the rate has grown, all of UP_GAIN follows."""
PROBE_GROWTH, PROBE_ROUNDS = 0.4, 3
"""Going up goes on for so many rounds after the rate last grew by so much of the surplus."""
WINDOW_MIN_PACKETS = 8
PACE_MIN_PACKETS = 2
"""Per round trip: what was measured may be a trickle of control alone."""
QUANTUM_S, QUANTA = 0.001, 2
"""The sender paces no finer than this, so so many such quanta must fit into the window."""
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
    PRESS = "press"
    PROBE_RTT = "probe-rtt"


_PACING_GAIN = {
    Phase.STARTUP: STARTUP_GAIN,
    Phase.DRAIN: DRAIN_GAIN,
    Phase.DOWN: DOWN_GAIN,
    Phase.CRUISE: 1.0,
    Phase.REFILL: 1.0,
    Phase.UP: UP_GAIN,
    Phase.YIELD: UP_GAIN,
    Phase.PRESS: 1.0,
    Phase.PROBE_RTT: 1.0,
}


class Bbr:
    """See CongestionControl and the module."""

    def __init__(
        self,
        *,
        payload_bytes: int,
        initial_packets: int = 10,
        window_bytes_max: int = 16 << 20,
        bridge_s: float = BRIDGE_S,
        bridge_bytes: int = BRIDGE_BYTES,
    ) -> None:
        self.window = self._initial_window = initial_packets * payload_bytes
        self.pacing_rate: float | None = None
        self.burst_s = BURST_S
        self.phase = Phase.STARTUP
        self._payload = payload_bytes
        self._window_max = window_bytes_max
        self._model = PathModel(bridge_s=bridge_s, bridge_bytes=bridge_bytes)
        self._yielding = Yielding()
        self._rivals = Rivals()
        self._curve: Curve | None = None
        self._resume = (0.0, 0.0)
        """A window of YIELD to come back to, and until when."""
        self._burst_short_until = 0.0
        self._phase_round = self._started_round = 0
        self._phase_at = 0.0
        self._full_rate = 0.0
        self._full_count = 0
        self._up_gain = UP_GAIN
        self._high = self._low = _NO_LIMIT
        self._too_much_loss = False
        self._queue_stands = False
        self._contested = (0, 0.0)
        """For how many rounds somebody else's queue has stood, and since when."""
        self._peak = 0.0
        self._press_phase, self._press_at = 0, 0.0
        self._conserve_round = -1

    @property
    def rate(self) -> float:
        """Bytes per second that the path has been seen to deliver."""
        return self._model.rate

    def acked(self, sample: AckSample) -> None:
        """See CongestionControl."""
        self._model.acked(sample)
        overflowed = self._judge_round(sample.now) if self._model.round_began else False
        self._step(sample, overflowed)
        self._set_window(sample)

    def timed_out(self, now: float) -> None:
        """See CongestionControl. The model is kept: the window grows back to it with what is acknowledged."""
        self.window = 4 * self._payload

    def packet_size(self, payload_bytes: int) -> None:
        """See CongestionControl."""
        self._payload = payload_bytes
        self.window = max(self.window, WINDOW_MIN_PACKETS * payload_bytes)

    # the phases

    def _judge_round(self, now: float) -> bool:
        """Draw conclusions from the round that has just ended; whether a queue overflowed in it."""
        model, payload = self._model, self._payload
        total = model.acked_bytes + model.lost_bytes
        standing_s = 0.05 * model.min_rtt + STANDING_S
        queued = model.rtt_s > 1.1 * model.min_rtt + QUANTUM_S
        self._queue_stands = model.rtt_s > model.min_rtt + standing_s + model.bridge_s
        self._too_much_loss = model.lost_bytes > max(
            LOSS_PACKETS_MIN * payload, (LOSS_QUEUED if queued else LOSS_UNQUEUED) * total
        )
        ours_s = 2 * SURPLUS_BYTES / max(model.recent_rate, 1.0)
        rounds, since = self._contested
        lateness_s = model.bridge_s if model.samples < FLOOR_SAMPLES else 0.0
        if model.min_rtt > CONTEST_RTT_S and model.queue_s > standing_s + lateness_s + min(ours_s, 0.05 * model.min_rtt + 0.003):
            self._contested = rounds + 1, since or now
        else:
            self._contested = 0, 0.0
        starting = model.round <= self._started_round + 2
        self._peak = float(self.window) if starting else max(float(self.window), PEAK_DECAY * self._peak)
        return self._yielding.overflowed(model, payload)

    def _enter(self, phase: Phase, now: float) -> None:
        self.phase = phase
        self._phase_at = now
        self._phase_round = self._model.round

    def _step(self, sample: AckSample, overflowed: bool) -> None:
        now, phase, model = sample.now, self.phase, self._model
        if phase in (Phase.STARTUP, Phase.DRAIN):
            self._started_round = model.round
        if model.round_began and (overflowed or self._too_much_loss):
            self._burst_short_until = now + BURST_SHORT_FOR_S
            self._react(sample, overflowed)
        self._heed_rivals(sample)
        self.burst_s = BURST_SHORT_S if now < self._burst_short_until else BURST_S
        if self.phase is Phase.PRESS:
            self.burst_s = BURST_PRESS_S
        if phase is Phase.STARTUP:
            self._check_full(sample)
        elif phase is Phase.DRAIN:
            if sample.in_flight <= model.product or model.round > self._phase_round + 3:
                self._enter(Phase.DOWN, now)
        elif phase is Phase.DOWN:
            ceiling = min(model.product, HEADROOM * self._high)
            if sample.in_flight <= ceiling or model.round > self._phase_round + 3:
                self._enter(Phase.CRUISE, now)
        elif phase is Phase.CRUISE:
            if model.round >= self._phase_round + ROUNDS_BETWEEN_PROBES or now > self._phase_at + PROBE_INTERVAL_S:
                self._low = _NO_LIMIT
                self._enter(Phase.REFILL, now)
        elif phase is Phase.REFILL:
            if model.round > self._phase_round:
                self._full_rate, self._full_count = model.rate, 0
                self._up_gain = 1 + min(UP_GAIN - 1, max(UP_LEAST, UP_QUEUE_S / model.min_rtt))
                self._enter(Phase.UP, now)
        elif phase is Phase.UP:
            self._probe_up(sample)
        elif phase is Phase.PRESS:
            self._press(sample)
        elif phase is Phase.YIELD:
            assert self._curve is not None
            alone = self._yielding.lossy or self._curve.window(now, model.rtt_s) > WINDOW_GAIN * model.product
            if alone and not self._queue_stands:
                self._enter(Phase.CRUISE, now)
        self._check_contest(sample)
        self._maybe_probe_rtt(sample)

    def _check_full(self, sample: AckSample) -> None:
        if not self._model.round_began or sample.app_limited:
            return
        if self._model.rate > FULL_GROWTH * self._full_rate:
            self._full_rate, self._full_count = self._model.rate, 0
            return
        self._full_count += 1
        if self._full_count >= FULL_ROUNDS:
            self._enter(Phase.DRAIN, sample.now)

    def _probe_up(self, sample: AckSample) -> None:
        """Raise the ceiling while it is what holds us; stop once a queue has built up, or going faster brings no more."""
        model = self._model
        if self._high < _NO_LIMIT and sample.in_flight >= 0.9 * self._high:
            self._high += sample.acked_bytes
        if model.round_began:
            grew = model.rate > (1 + PROBE_GROWTH * (self._up_gain - 1)) * self._full_rate and not self._queue_stands
            self._full_count = 0 if grew else self._full_count + 1
            self._full_rate = model.rate
            self._up_gain = UP_GAIN if grew else self._up_gain
        long_enough = sample.now > self._phase_at + model.min_rtt and model.round > self._phase_round
        queued = self._queue_stands or model.queue_s > UP_SEEN * (self._up_gain - 1) * model.min_rtt
        queue_built = long_enough and queued and sample.in_flight > 0.9 * self.window
        if queue_built or self._full_count > PROBE_ROUNDS:
            self._enter(Phase.DOWN, sample.now)

    def _press(self, sample: AckSample) -> None:
        """As BBR version 1 does, beside which nothing else gets its part."""
        now, model = sample.now, self._model
        if not self._rivals.presses(now):
            self._curve = Curve(self.window, now, None, cut=1.0)
            self._enter(Phase.YIELD, now)
            return
        gain, over = PRESS_CYCLE[self._press_phase], now > self._press_at + model.min_rtt
        if gain > 1:
            over = over and (sample.lost_bytes > 0 or sample.in_flight >= gain * model.product)
        elif gain < 1:
            over = over or sample.in_flight <= model.product
        if sample.lost_bytes and sample.new_loss_round:
            self._conserve_round = model.round + 1
        if over:
            self._press_phase, self._press_at = (self._press_phase + 1) % len(PRESS_CYCLE), now

    def _react(self, sample: AckSample, overflowed: bool) -> None:
        """Much was lost in the round that has just ended, or the queue overflowed."""
        model, now = self._model, sample.now
        in_flight = max(sample.in_flight + sample.acked_bytes + sample.lost_bytes, WINDOW_MIN_PACKETS * self._payload)
        ceiling = max(int(in_flight * LOSS_CUT), int(model.product * LOSS_CUT))
        if model.round <= self._started_round + 2:
            many = self._too_much_loss and model.lost_bytes >= FULL_LOSS_PACKETS * self._payload
            if many and self.phase is Phase.STARTUP:
                self._high = ceiling
                self._enter(Phase.DRAIN, now)
            return  # what comes a little later is still of our own making, as we did not know the path
        if self._yielding.patient(model.round) or self.phase in (Phase.PRESS, Phase.PROBE_RTT):
            return
        if overflowed:
            window, until = self._resume
            before = max(min(in_flight, self.window), window if now < until else 0)
            if self._contested[0] and self.phase is not Phase.YIELD:
                before = max(before, self._peak)  # since that queue stands we have given way already
            self._yielding.cut(model)
            self._cut(before, now)
            self._high = self._low = _NO_LIMIT
        elif self.phase is Phase.UP:
            self._high = ceiling
            self._enter(Phase.DOWN, now)
        else:
            self._low = max(int(min(self._low, self.window) * LOSS_CUT), int(model.product))

    def _heed_rivals(self, sample: AckSample) -> None:
        """Find out, while the link is contested, who else is there."""
        model, rivals, now = self._model, self._rivals, sample.now
        if sample.app_limited or self.phase in (Phase.STARTUP, Phase.PROBE_RTT):
            rivals.forget()
            return
        if sample.lost_bytes and self.phase in (Phase.YIELD, Phase.PRESS):
            rivals.lost(model, now)
        cut = model.round_began and rivals.round(model, now)
        if self.phase is Phase.YIELD and rivals.presses(now):
            self._press_phase, self._press_at = 0, now
            self._enter(Phase.PRESS, now)
        elif self.phase is Phase.YIELD and cut:
            self._cut(float(self.window), now)

    def _cut(self, before: float, now: float) -> None:
        self._curve = Curve(before, now, self._curve)
        self._rivals.cut()
        self._enter(Phase.YIELD, now)

    def _check_contest(self, sample: AckSample) -> None:
        """A queue that stands although we hardly add to it is somebody else's: hold our part of it."""
        rounds, since = self._contested
        if self.phase not in (Phase.CRUISE, Phase.DOWN, Phase.REFILL, Phase.UP):
            return
        if rounds >= CONTEST_ROUNDS and sample.now > since + CONTEST_S:
            window, until = self._resume
            held = max(self._peak, window if sample.now < until else 0.0)
            self._curve = Curve(held, sample.now, None, cut=1.0)
            self._high = self._low = _NO_LIMIT
            self._enter(Phase.YIELD, sample.now)

    def _maybe_probe_rtt(self, sample: AckSample) -> None:
        """Let the queue run empty once in a while, to see the path's own round-trip time."""
        now, model = sample.now, self._model
        if self.phase is Phase.PROBE_RTT:
            if now > self._phase_at + max(PROBE_RTT_S, model.min_rtt) and model.round > self._phase_round:
                model.min_rtt_at = now
                held, _ = self._resume
                if held and self._contested[0]:
                    self._curve = Curve(held, now, None, cut=1.0)
                    self._enter(Phase.YIELD, now)
                else:
                    self._resume = held, now + RESUME_S
                    self._enter(Phase.CRUISE, now)
            return
        age_s = MIN_RTT_AGE_YIELDING_S if self.phase is Phase.YIELD else MIN_RTT_AGE_S
        if now > model.min_rtt_at + age_s and self.phase not in (Phase.STARTUP, Phase.PRESS) and sample.rtt_s is not None:
            model.min_rtt_at = now
            model.expire_min_rtt(now)
            if not sample.app_limited:
                self._resume = (float(self.window) if self.phase is Phase.YIELD else 0.0), 0.0
                self._enter(Phase.PROBE_RTT, now)

    def _set_window(self, sample: AckSample) -> None:
        product, model = self._model.product, self._model
        if not product:
            self.window = min(self.window + sample.acked_bytes, self._window_max)
            return
        gain = PRESS_CYCLE[self._press_phase] if self.phase is Phase.PRESS else _PACING_GAIN[self.phase]
        gain = self._up_gain if self.phase is Phase.UP else gain
        rate = model.rate_of(PRESS_ROUNDS) if self.phase is Phase.PRESS else model.rate
        pace = (DRAINING_GAIN if self.phase is Phase.CRUISE and self._queue_stands else gain) * rate
        if self.phase is Phase.STARTUP:  # what we know is from a few packets yet: never slow down for it
            pace = max(pace, self.pacing_rate or STARTUP_GAIN * self._initial_window / model.min_rtt)
        self.pacing_rate = max(pace, PACE_MIN_PACKETS * self._payload / model.min_rtt)
        wanted = int(max(min(self._target(sample, product), self._window_max), WINDOW_MIN_PACKETS * self._payload))
        if self.phase is Phase.STARTUP:
            wanted = max(wanted, self._initial_window)
        self.window = min(self.window + sample.acked_bytes, wanted) if self.window < wanted else wanted

    def _held_rate(self) -> float:
        """The rate that we fill the path for: the best of late, but no more than now once a queue stands."""
        model = self._model
        stands = model.standing_s > 0.05 * model.min_rtt + STANDING_S + model.bridge_s
        if stands and model.min_rtt > CONTEST_RTT_S:  # on shorter paths it may be the hosts that are late
            return min(model.recent_rate, model.rate_now)
        return model.recent_rate

    def _target(self, sample: AckSample, product: float) -> float:
        """Bytes that should be in flight in this phase."""
        model, quanta = self._model, QUANTA * self._model.recent_rate * QUANTUM_S
        bridge = max(quanta, model.lump_bytes)
        phase = self.phase
        if phase is Phase.PROBE_RTT:
            return 0.5 * product + quanta
        if phase is Phase.YIELD and self._curve is not None:
            return self._curve.window(sample.now, model.rtt_s)
        if phase is Phase.PRESS:
            target = WINDOW_GAIN * model.rate_of(PRESS_ROUNDS) * model.min_rtt + quanta
            held = max(sample.in_flight + sample.acked_bytes, target / WINDOW_GAIN)  # less starves a late host
            return min(target, held) if model.round <= self._conserve_round else target
        target = (STARTUP_GAIN if phase is Phase.STARTUP else WINDOW_GAIN) * product + bridge
        if phase not in (Phase.STARTUP, Phase.DRAIN):
            held = self._held_rate() * model.min_rtt + bridge + SURPLUS_BYTES
            target = min(target, held * (self._up_gain if phase is Phase.UP else 1.0))
        return min(target, self._low, HEADROOM * self._high if phase is Phase.CRUISE else self._high)
