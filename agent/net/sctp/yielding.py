"""When to behave as CUBIC does, and when not: what leaves a CUBIC flow its share of a link, and does not give ours away.

A queue that overflows, with more loss than the path has of its own, is contested, or too short for us. CUBIC flows cut to 0.7
of what they had and take it back along a cubic curve (RFC 9438); while we follow the same curve, each keeps about its part.

A flow that does not react to loss (BBR version 1) would then take all. It shows: what we gave up is gone at once, and the
queue overflows again long before our curve is back, time after time. CUBIC flows cut too, and need as long as we do. After
a few such overflows in a row we *press* for a while, that is, we do as that flow does, and then try again to yield.
"""

from __future__ import annotations

from enum import Enum

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
EARLY = 0.5
"""An overflow is early if it comes before the curve has taken back so much of what was cut."""
SOON_ROUNDS = 12
"""With small windows the curve is back at once. Then an overflow counts, if for less, that comes so few rounds after the last
cut (BBR version 1 probes every eighth round trip), or after a cut that has not let the queue get shorter."""
DRAIN_ROUNDS = 2
SUDDEN, SUDDEN_ROUNDS = 0.35, 24
"""Windows that grow together fill a queue bit by bit: between two overflows it is half full on the mean, counted from where the
cuts of all leave it. One that was emptier than this part, and overflows so few rounds after the last cut, was hit by a probe."""
STOOD, STOOD_ROUNDS, STOOD_QUEUE = 0.45, 6, 0.6
"""Nor do the cuts of all leave so much of a queue, on the mean of so many rounds after the first two: only we cut then.
Looked for on queues of more than this part of the round trip; on shorter ones bursts look alike."""
EARLY_SCORE, SOON_SCORE, LATE_SCORE = 3, 1, 1
PRESS_SCORE = 5
"""With so many points nobody yields but us. An overflow that comes in good time takes LATE_SCORE off again."""
GIVEN_UP = 0.4
"""Whoever yields as we do stops at our half. With less than this of the window that we had when it began, they do not."""
PRESS_AFTER_S = 1.5
"""They must also go on for so long: the start-up of a newcomer does not. Until then what we have is held."""
PRESS_S, PRESS_S_MAX, AGAIN_S = 10.0, 60.0, 20.0
"""How long to press; twice as long whenever it proves necessary again within the third, up to the second."""
PRESS_QUIET_S = 3.0
"""Pressing ends early when no queue has overflowed for so long: then nobody presses against us."""
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
FULL, STILL_FULL = 0.7, 0.8
"""A queue is full at this part of the longest one seen lately, and has not got shorter if it never fell below that."""
LOSS_PACKETS_MIN = 1.5


class Answer(Enum):
    """To an overflow."""

    CUT = "cut"
    HOLD = "hold"
    PRESS = "press"


class Curve:
    """CUBIC's window after a cut (section 4.2), or Reno's if that grows faster (section 4.3). Bytes and seconds."""

    def __init__(self, bytes_before: float, now: float, earlier: Curve | None, *, cut: float = CUT) -> None:
        self._before = self.packets_before = bytes_before / PACKET_BYTES
        if cut < 1 and earlier is not None and self._before < earlier.packets_before:  # "fast convergence", section 4.7
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

    def is_early(self, now: float, rtt_s: float) -> bool:
        """Whether little of what was cut has been taken back."""
        return self.window(now, rtt_s) / PACKET_BYTES < self._cut_to + EARLY * (self._before - self._cut_to)


class Yielding:
    """Tells overflow from the path's own loss, and says whether to yield to it."""

    def __init__(self) -> None:
        self.background = 0.0
        """Share of packets that the path usually loses."""
        self._cut_round: int | None = None
        self._early, self._early_since = 0, 0.0
        self._press_until = float("-inf")
        self._press_s = PRESS_S
        self._overflow_at = 0.0
        self._queue_low_s = float("inf")
        self._most_packets = 0.0
        self._queues: list[float] = []
        """Of each round since the last cut but the first two."""

    @property
    def lossy(self) -> bool:
        """Whether the path loses so much by itself that nobody is to be yielded to."""
        return self.background > LOSSY

    def overflowed(self, model: PathModel, packet_bytes: int, now: float) -> bool:
        """Whether the round trip that has just ended saw a queue overflow. To be asked once about each."""
        self._queue_low_s = min(self._queue_low_s, model.queue_s)
        if self._cut_round is not None and model.round > self._cut_round + DRAIN_ROUNDS:
            self._queues.append(model.queue_s)
            del self._queues[SUDDEN_ROUNDS:]
        lost, total = model.lost_bytes, model.acked_bytes + model.lost_bytes
        queued = model.rtt_s > model.min_rtt + min(0.1 * model.min_rtt + 0.001, max(HALF_FULL * model.queue_full_s, QUEUE_SEEN_S))
        share = lost / total if total else 0.0
        usual = BACKGROUND_MARGIN * self.background + (LOSSY_MORE if self.lossy else BACKGROUND_MORE)
        rare = self.background * total < RARE_PACKETS * packet_bytes
        full = model.queue_s > max(FULL * model.queue_full_s, 0.05 * model.min_rtt + 0.001)
        if not full:  # what a full queue loses is not the path's own
            self.background += BACKGROUND_GAIN[queued] * (min(share, BACKGROUND_MAX) - self.background)
        found = (queued and lost > LOSS_PACKETS_MIN * packet_bytes and share > usual) or (lost > 0 and rare and full)
        if found:
            self._overflow_at = now
        return found

    def answer(self, curve: Curve | None, model: PathModel, now: float) -> Answer:
        """What to do about an overflow that is not of the last cut (see `patient`); `curve` is the one that we are on."""
        if self.presses(now):
            return Answer.PRESS
        again = now < self._press_until + AGAIN_S
        if self._given_up(curve, model, now):
            self._early = max(self._early, PRESS_SCORE)
        elif curve is not None and curve.is_early(now, model.rtt_s):
            self._early += EARLY_SCORE
        elif self._soon(model):
            self._early += SOON_SCORE
        else:
            self._early = max(0, self._early - LATE_SCORE)
        if not self._early:
            self._early_since = now
        if self._early >= PRESS_SCORE:
            if now < self._early_since + PRESS_AFTER_S:
                self._cut_round, self._queues = model.round, []
                return Answer.HOLD
            self._press_s = min(2 * self._press_s, PRESS_S_MAX) if again else PRESS_S
            self._press_until = now + self._press_s
            self._early, self._most_packets = 0, 0.0
            return Answer.PRESS
        self._cut_round, self._queues = model.round, []
        self._queue_low_s = float("inf")
        return Answer.CUT

    def patient(self, round_number: int) -> bool:
        """Whether what is lost now may be of the overflow that was answered last."""
        return self._cut_round is not None and round_number < self._cut_round + PATIENCE_ROUNDS

    def _given_up(self, curve: Curve | None, model: PathModel, now: float) -> bool:
        """Whether cut after cut has left us less than one other flow that yields would."""
        if curve is None:
            self._most_packets = 0.0
            return False
        self._most_packets = max(self._most_packets, curve.packets_before)
        return curve.window(now, model.rtt_s) / PACKET_BYTES < GIVEN_UP * self._most_packets

    def _soon(self, model: PathModel) -> bool:
        """Whether the overflow comes sooner after the last cut than windows that grow would bring it about."""
        if self._cut_round is None:
            return False
        rounds, queues = model.round - self._cut_round, self._queues
        if rounds < SOON_ROUNDS or self._stood_full(model):
            return True
        if rounds <= SUDDEN_ROUNDS and len(queues) > 1 and self._mean(queues[:-1], model) < SUDDEN:
            return True
        long = model.queue_full_s > STOOD_QUEUE * model.min_rtt and len(queues) > STOOD_ROUNDS
        return long and self._mean(queues[:STOOD_ROUNDS], model) > STOOD

    def _stood_full(self, model: PathModel) -> bool:
        return self._queue_low_s > STILL_FULL * model.queue_full_s

    @staticmethod
    def _mean(queues: list[float], model: PathModel) -> float:
        """Mean of the queues, from 0, where the cuts of all leave it, to 1, where it overflows."""
        left_s = max(0.0, CUT * model.queue_full_s - (1 - CUT) * model.min_rtt)
        return (sum(queues) / len(queues) - left_s) / max(model.queue_full_s - left_s, 1e-9)

    def presses(self, now: float) -> bool:
        """Whether we have stopped to yield, and somebody still presses against us."""
        if now < self._press_until and now > self._overflow_at + PRESS_QUIET_S:
            self._press_until = now
        return now < self._press_until
