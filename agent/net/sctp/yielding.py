"""How to behave as CUBIC does, and when: what leaves a CUBIC flow its share of a link.

A queue that overflows, with more loss than the path has of its own, is contested, or too short for us. CUBIC flows cut to 0.7
of what they had and take it back along a cubic curve (RFC 9438); while we follow the same curve, each keeps about its part.
Who does not react to loss (BBR version 1) would then take all: `rivals.py` finds out whether one is there.
"""

from __future__ import annotations

from agent.net.sctp.path_model import PathModel

CUT = 0.7
"""CUBIC's beta."""
CUT_LOSING = 0.6
"""If the window was smaller already than at the cut before: somebody else's grows, and has his half sooner."""
SCALE = 0.4
"""CUBIC's C, packets per cubed second."""
PACKET_BYTES = 1448
"""The packet of a TCP beside us: the curve is in packets, and must not depend on how large ours are."""
PATIENCE_ROUNDS = 4
"""Losses so many rounds after a cut may still be of the same overflow."""
BACKGROUND_GAIN = (0.05, 0.0125)
"""How fast the path's own loss is learnt, per round trip: without a queue, and with one, which a busy host always sees."""
BACKGROUND_MAX = 0.02
"""More is never taken for usual: it may be our own bursts."""
BACKGROUND_MARGIN, BACKGROUND_MORE = 2.0, 0.005
"""An overflow is more than so many times the usual loss, and so much more."""
LOSSY, LOSSY_MORE = 0.003, 0.02
"""A path that loses so much by itself leaves CUBIC about twenty packets, whatever we do: there it takes this much more loss to
be an overflow, as a round's share of chance losses swings."""
RARE_PACKETS = 0.15
"""Where the path loses fewer packets than this in a round by itself, a single one lost at a full queue is an overflow."""
HALF_FULL, QUEUE_SEEN_S = 0.5, 0.002
"""Bursts overflow a short queue that is half full on the mean, more than this many seconds."""
FULL = 0.7
"""A queue is full at this part of the longest one seen lately."""
LOSS_PACKETS_MIN = 1.5


class Curve:
    """CUBIC's window after a cut (section 4.2), or Reno's if that grows faster (section 4.3). Bytes and seconds."""

    def __init__(self, bytes_before: float, now: float, earlier: Curve | None, *, cut: float = CUT) -> None:
        self._before = self._had = bytes_before / PACKET_BYTES
        if cut < 1 and earlier is not None and self._before < earlier._had:  # "fast convergence", section 4.7
            cut = CUT_LOSING
            self._before *= (1 + cut) / 2
        self._cut_to = cut * bytes_before / PACKET_BYTES
        self._at = now
        self._k = (max(0.0, self._before - self._cut_to) / SCALE) ** (1 / 3)

    def window(self, now: float, rtt_s: float) -> float:
        """What may be in flight now."""
        elapsed = now - self._at
        cubic = SCALE * (elapsed - self._k) ** 3 + self._before
        reno = self._cut_to + 3 * (1 - CUT) / (1 + CUT) * elapsed / max(rtt_s, 1e-3)
        return max(cubic, reno) * PACKET_BYTES


class Yielding:
    """Tells overflow from the path's own loss."""

    def __init__(self) -> None:
        self.background = 0.0
        """Share of packets that the path usually loses."""
        self._cut_round: int | None = None

    @property
    def lossy(self) -> bool:
        """Whether the path loses so much by itself that nobody is to be yielded to."""
        return self.background > LOSSY

    def overflowed(self, model: PathModel, packet_bytes: int) -> bool:
        """Whether the round trip that has just ended saw a queue overflow. To be asked once about each."""
        lost, total = model.lost_bytes, model.acked_bytes + model.lost_bytes
        queued = model.rtt_s > model.min_rtt + min(0.1 * model.min_rtt + 0.001, max(HALF_FULL * model.queue_full_s, QUEUE_SEEN_S))
        share = lost / total if total else 0.0
        usual = BACKGROUND_MARGIN * self.background + (LOSSY_MORE if self.lossy else BACKGROUND_MORE)
        rare = self.background * total < RARE_PACKETS * packet_bytes
        full = model.queue_s > max(FULL * model.queue_full_s, 0.05 * model.min_rtt + 0.001)
        if not full:  # what a full queue loses is not the path's own
            self.background += BACKGROUND_GAIN[queued] * (min(share, BACKGROUND_MAX) - self.background)
        return (queued and lost > LOSS_PACKETS_MIN * packet_bytes and share > usual) or (lost > 0 and rare and full)

    def cut(self, model: PathModel) -> None:
        """An overflow has been answered."""
        self._cut_round = model.round

    def patient(self, round_number: int) -> bool:
        """Whether what is lost now may be of the overflow that was answered last."""
        return self._cut_round is not None and round_number < self._cut_round + PATIENCE_ROUNDS
