"""Congestion controls that ours meets on the internet, after their specifications, for simulated shared paths.

`Cubic` is RFC 9438 with the delay test of HyStart (RFC 9406), `BbrOne` the kernel's BBR (Cardwell et al. 2016,
draft-cardwell-iccrg-bbr-congestion-control-00): what fills most of the internet. Both implement
agent.net.sctp.congestion.CongestionControl.
"""

from __future__ import annotations

from collections import deque

from agent.net.sctp.congestion import AckSample


class Cubic:
    """Windows in packets, times in seconds, as in the RFC."""

    C, BETA = 0.4, 0.7

    def __init__(self, *, payload_bytes: int) -> None:
        self.pacing_rate: float | None = None
        self.burst_s = 0.001
        self._payload = payload_bytes
        self._packets = 10.0
        self._threshold = float("inf")
        self._maximum = 0.0
        self._friendly = 0.0
        self._epoch: float | None = None
        self._rtt_s, self._min_rtt_s = 0.1, float("inf")
        self._acked = 0.0

    @property
    def window(self) -> int:
        return int(self._packets * self._payload)

    def acked(self, sample: AckSample) -> None:
        self._rtt_s = sample.rtt_s or self._rtt_s
        self._min_rtt_s = min(self._min_rtt_s, self._rtt_s)
        if sample.lost_bytes and sample.new_loss_round:
            self._lower()
        elif sample.lost_bytes or not sample.window_limited:
            return
        elif self._packets < self._threshold:
            if self._packets > 16 and self._rtt_s > self._min_rtt_s + min(max(self._min_rtt_s / 8, 0.004), 0.016):
                self._threshold = self._packets
            self._packets += sample.acked_bytes / self._payload
        else:
            self._grow(sample.now, sample.acked_bytes / self._payload)

    def timed_out(self, now: float) -> None:
        self._lower()
        self._packets = 1.0

    def packet_size(self, payload_bytes: int) -> None:
        self._payload = payload_bytes

    def _lower(self) -> None:
        converging = self._packets < self._maximum
        self._maximum = self._packets * ((1 + self.BETA) / 2 if converging else 1)
        self._threshold = self._packets = max(2.0, self._packets * self.BETA)
        self._epoch = None

    def _grow(self, now: float, acked: float) -> None:
        if self._epoch is None:
            self._epoch = now
            self._maximum = max(self._maximum, self._packets)
            self._friendly = self._packets
        k = ((self._maximum - self._packets_at_epoch()) / self.C) ** (1 / 3)
        target = self.C * (now - self._epoch + self._rtt_s - k) ** 3 + self._maximum
        self._friendly += 3 * (1 - self.BETA) / (1 + self.BETA) * acked / self._packets
        target = min(max(target, self._packets, self._friendly), 1.5 * self._packets)
        self._packets += (target - self._packets) / self._packets * acked

    def _packets_at_epoch(self) -> float:
        return min(self._threshold, self._maximum)


class BbrOne:
    """BBR version 1: does not react to loss but by one round of packet conservation."""

    STARTUP_GAIN = 2.89
    CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)

    def __init__(self, *, payload_bytes: int) -> None:
        self.window = 10 * payload_bytes
        self.pacing_rate: float | None = None
        self.burst_s = 0.001
        self._payload = payload_bytes
        self._rates: deque[tuple[int, float]] = deque()
        self._round = 0
        self._round_ends = 0
        self._min_rtt, self._min_rtt_at = float("inf"), 0.0
        self._state = "startup"
        self._full, self._full_count = 0.0, 0
        self._phase, self._phase_at = 2, 0.0
        self._probe_until = 0.0
        self._prior = 0
        self._conserve_until = -1

    def acked(self, sample: AckSample) -> None:
        new_round = sample.delivered_before >= self._round_ends
        if new_round:
            self._round += 1
            self._round_ends = sample.delivered_bytes
        self._model(sample)
        rate = max((rate for _, rate in self._rates), default=0.0)
        if not rate or self._min_rtt > 60:
            self.window += sample.acked_bytes
            return
        self._step(sample, rate, new_round)
        self._set(sample, rate)

    def timed_out(self, now: float) -> None:
        self.window = 4 * self._payload

    def packet_size(self, payload_bytes: int) -> None:
        self._payload = payload_bytes

    def _model(self, sample: AckSample) -> None:
        rate = (sample.delivered_bytes - sample.delivered_before) / max(sample.interval_s, 1e-6)
        if not sample.app_limited and sample.interval_s:
            self._rates.append((self._round, rate))
        while self._rates and self._rates[0][0] < self._round - 10:
            self._rates.popleft()
        if sample.rtt_s is not None:
            expired = sample.now > self._min_rtt_at + 10
            if sample.rtt_s <= self._min_rtt or expired:
                self._min_rtt, self._min_rtt_at = sample.rtt_s, sample.now
            if expired and self._state == "probe-bw":
                self._state, self._probe_until, self._prior = "probe-rtt", float("inf"), self.window
        if sample.lost_bytes and sample.new_loss_round:
            self._conserve_until = self._round + 1

    def _step(self, sample: AckSample, rate: float, new_round: bool) -> None:
        now, product = sample.now, rate * self._min_rtt
        if self._state == "startup" and new_round:
            if rate > 1.25 * self._full:
                self._full, self._full_count = rate, 0
            else:
                self._full_count += 1
                self._state = "drain" if self._full_count >= 3 else "startup"
        elif self._state == "drain" and sample.in_flight <= product:
            self._state, self._phase, self._phase_at = "probe-bw", 2, now
        elif self._state == "probe-rtt" and now <= self._probe_until:
            if self._probe_until == float("inf") and sample.in_flight <= 4 * self._payload:
                self._probe_until = now + max(0.2, self._min_rtt)
        elif self._state == "probe-rtt":
            self._state, self._phase, self._phase_at, self._min_rtt_at = "probe-bw", 2, now, now
            self.window = max(self.window, self._prior)
        elif self._state == "probe-bw":
            gain, elapsed = self.CYCLE[self._phase], now > self._phase_at + self._min_rtt
            over = elapsed and (gain <= 1 or sample.lost_bytes > 0 or sample.in_flight >= gain * product)
            if over or (gain < 1 and sample.in_flight <= product):
                self._phase, self._phase_at = (self._phase + 1) % len(self.CYCLE), now

    def _set(self, sample: AckSample, rate: float) -> None:
        gain = {"startup": self.STARTUP_GAIN, "drain": 1 / self.STARTUP_GAIN}.get(self._state, self.CYCLE[self._phase])
        self.pacing_rate = rate * (gain if self._state != "probe-rtt" else 1.0)
        window_gain = self.STARTUP_GAIN if self._state in ("startup", "drain") else 2.0
        target = int(window_gain * rate * self._min_rtt) + 3 * self._payload
        if self._state == "probe-rtt":
            target = 4 * self._payload
        elif self._round <= self._conserve_until:
            target = min(target, sample.in_flight + sample.acked_bytes)
        self.window = max(4 * self._payload, min(self.window + sample.acked_bytes, target))
