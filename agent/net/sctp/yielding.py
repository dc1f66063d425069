"""When to behave as CUBIC does: what leaves a CUBIC flow its share of a link, and does not give ours away (RFC 9438).

A queue that overflows, with more loss than the path has of its own, is contested, or too short for us. CUBIC flows cut to 0.7
of what they had and take it back along a cubic curve; while we follow the same curve, each keeps about its part. A flow
that does not react to loss (BBR version 1) would then take all: so once we have given up three tenths of what we had, we
stop yielding for a while.
"""

from __future__ import annotations

CUT = 0.7
"""CUBIC's beta."""
SCALE = 0.4
"""CUBIC's C, packets per cubed second."""
PACKET_BYTES = 1448
"""The packet of a TCP beside us: the curve is in packets, and must not depend on how large ours are."""
PATIENCE_ROUNDS = 4
"""Losses so many rounds after a cut may still be of the same overflow."""
KEEP = 0.7
"""Share of what we had lately below which we do not yield any more."""
RATE_GAIN = 0.05
MEMORY_S = 30.0
"""What we had lately: in the last one to two such periods."""
DEFIANCE_S = 10.0
BACKGROUND_GAIN = (0.05, 0.0125)
"""How fast the path's own loss is learnt, per round trip: without a queue, and with one, which a busy host always sees."""
BACKGROUND_MAX = 0.02
"""More is never taken for usual: it may be our own bursts."""
BACKGROUND_MARGIN, BACKGROUND_MORE = 2.0, 0.005
"""An overflow is more than so many times the usual loss, and so much more."""
LOSS_PACKETS_MIN = 1.5
"""One packet lost is no sign of anything, however short the round."""


class Curve:
    """CUBIC's window after a cut (section 4.2), or Reno's if that grows faster (section 4.3). Bytes and seconds."""

    def __init__(self, bytes_before: float, now: float, earlier: Curve | None) -> None:
        self._cut_to = CUT * bytes_before / PACKET_BYTES
        self._before = bytes_before / PACKET_BYTES
        if earlier is not None and self._before < earlier._before:  # "fast convergence", section 4.7
            self._before *= (1 + CUT) / 2
        self._at = now
        self._k = (max(0.0, self._before - self._cut_to) / SCALE) ** (1 / 3)

    def window(self, now: float, rtt_s: float) -> float:
        """What may be in flight now."""
        elapsed = now - self._at
        cubic = SCALE * (elapsed - self._k) ** 3 + self._before
        reno = self._cut_to + 3 * (1 - CUT) / (1 + CUT) * elapsed / max(rtt_s, 1e-3)
        return max(cubic, reno) * PACKET_BYTES


class Yielding:
    """Tells overflow from the path's own loss, and says whether to yield to it."""

    def __init__(self) -> None:
        self.background = 0.0
        """Share of packets that the path usually loses."""
        self._cut_round: int | None = None
        self._defiant_until = 0.0
        self._most = [0.0, 0.0]
        self._most_at = 0.0
        self._rate = 0.0

    def round_ended(self, *, lost: int, total: int, packet_bytes: int, queued: bool) -> bool:
        """Take what a round trip lost, in bytes; True if that was an overflow."""
        share = lost / total if total else 0.0
        usual = BACKGROUND_MARGIN * self.background + BACKGROUND_MORE
        self.background += BACKGROUND_GAIN[queued] * (min(share, BACKGROUND_MAX) - self.background)
        return queued and lost > LOSS_PACKETS_MIN * packet_bytes and share > usual

    def note_rate(self, rate: float, now: float) -> None:
        """Remember what a round trip got: smoothed, as single ones are uneven where hosts are busy."""
        self._rate += RATE_GAIN * (rate - self._rate)
        if now > self._most_at + MEMORY_S:
            self._most, self._most_at = [self._most[1], 0.0], now
        self._most[1] = max(self._most[1], self._rate)

    def yields(self, *, round_number: int, now: float) -> bool:
        """Whether to yield, now that the queue has overflowed; `fresh_cut` says whether by a cut now."""
        if self.defiant(now):
            return False
        if self._cut_round is not None and round_number < self._cut_round + PATIENCE_ROUNDS:
            return True
        if self._rate < KEEP * max(self._most):
            self._defiant_until = now + DEFIANCE_S
            return False
        self._cut_round = round_number
        return True

    def patient(self, round_number: int) -> bool:
        """Whether what is lost now may have been sent before our last cut took effect."""
        return self._cut_round is not None and round_number < self._cut_round + PATIENCE_ROUNDS

    def defiant(self, now: float) -> bool:
        """Whether we have stopped to yield."""
        return now < self._defiant_until

    def fresh_cut(self, round_number: int) -> bool:
        """Whether the last cut was made in this round, rather than before."""
        return self._cut_round == round_number
