"""Who else is on the link: those who yield as CUBIC does, or BBR version 1, which does not.

BBR version 1 (Cardwell et al. 2016; draft-cardwell-iccrg-bbr-congestion-control-00) runs by two clocks, which show in what
happens to us. It sends a quarter more for one of every *eight round trips* of the empty path (section 4.3.4): out of a queue that
is full or short, our losses come in that *beat*. And every ten seconds it *looks* at the empty path (`queue_watch.py`). CUBIC's
overflows come when windows have grown back: as often, with small windows, but not in time.

Beside one that does not yield we *press*: we do as it does, for a while, and then try again to yield. Our own pressing keeps
another time (`bbr.py`), so that others like us do not take it for BBR's and press as well.
"""

from __future__ import annotations

from collections import deque

from agent.net.sctp.path_model import PathModel
from agent.net.sctp.queue_watch import Falls, Looks, Sign

BEAT = (7.8, 7.9, 8.0, 8.1, 8.2, 8.3, 8.4)
"""Round trips of the empty path from beat to beat: about eight, as each ends with an acknowledgement and one may end early."""
BEATS, SKIPPED = 7, 6
"""So many bursts of loss in a row, each at most so many beats after an earlier one,"""
BEAT_EARLY = 0.4
"""give or take so many round trips, are no chance: one of 144 simulated runs without BBR had them, of five packets a window."""
APART = 2.5
"""What is lost so many round trips after other loss is another burst."""
PRESS_S, PRESS_S_MAX, AGAIN_S = 20.0, 60.0, 30.0
"""How long to press on a beat; twice as long whenever it is heard again within the third, up to the second."""
LOOK_PRESS_S = 23.0
"""How long to press on a look: the next two, ten seconds apart, say whether to go on. What we have in flight may fill one."""
PRESS_QUIET_S = 3.0
"""Pressing ends early when nothing has been lost for so long: then nobody presses against us."""
OTHERS_CUTS = 2
"""On a short queue we cut as well when others have had to so many times since we did."""


class Beat:
    """Hears whether bursts of loss keep the time of BBR version 1. Seconds."""

    def __init__(self) -> None:
        self._bursts: deque[float] = deque(maxlen=2 * BEATS)
        self._lost_at = float("-inf")

    def forget(self) -> None:
        """What is lost now is our own doing."""
        self._bursts.clear()

    def lost(self, now: float, min_rtt_s: float) -> bool:
        """Something was found lost on a path of that round-trip time; whether that was one more beat of so many."""
        new = now > self._lost_at + APART * min_rtt_s
        self._lost_at = now
        if not new:
            return False
        self._bursts.append(now)
        bursts = list(self._bursts)
        recent = range(len(bursts) - BEATS, len(bursts))
        return recent.start > 0 and any(
            all(self._follows(bursts, index, beats * min_rtt_s, BEAT_EARLY * min_rtt_s) for index in recent) for beats in BEAT
        )

    @staticmethod
    def _follows(bursts: list[float], index: int, beat_s: float, early_s: float) -> bool:
        """Whether a burst comes one or a few beats after any of those before it: there may be more than one BBR."""
        for before in reversed(bursts[:index]):
            beats = round((bursts[index] - before) / beat_s)
            if beats > SKIPPED:
                return False
            if beats and abs(bursts[index] - before - beats * beat_s) <= early_s:
                return True
        return False


class Rivals:
    """Says when to press, and when others have given way for us often enough. Ask it while the link is contested."""

    def __init__(self) -> None:
        self._beat = Beat()
        self._looks, self._falls = Looks(), Falls()
        self._others_cuts = 0
        self._press_until = float("-inf")
        self._press_s = PRESS_S
        self._lost_at = 0.0

    def lost(self, model: PathModel, now: float) -> None:
        """Something was found lost."""
        self._lost_at = now
        if self.presses(now):
            self._beat.forget()
        elif self._beat.lost(now, model.min_rtt):
            self._press_s = min(2 * self._press_s, PRESS_S_MAX) if now < self._press_until + AGAIN_S else PRESS_S
            self._press_until = now + self._press_s

    def round(self, model: PathModel, now: float) -> bool:
        """A round has ended; whether to cut, since others on a short queue have done so for us."""
        sign = self._looks.round(now, model.floor_s, model.min_rtt, model.recent_rate)
        if sign is Sign.LOOKED:
            self._press_until = max(self._press_until, now + LOOK_PRESS_S)
            self._lost_at = now
        elif sign is Sign.MISTAKEN:
            self._press_until = min(self._press_until, now)
        waited_s = model.rtt_s - model.min_rtt
        self._others_cuts += self._falls.round(model.queue_s, waited_s, model.queue_full_s, model.min_rtt)
        return self._others_cuts >= OTHERS_CUTS

    def cut(self) -> None:
        """We have given way."""
        self._others_cuts = 0
        self._looks.cut()
        self._falls.cut()

    def forget(self) -> None:
        """What the queue did lately was our own doing."""
        self._looks.forget()
        self._falls.forget()

    def presses(self, now: float) -> bool:
        """Whether to press: somebody does not yield, and still presses against us."""
        if now < self._press_until and now > self._lost_at + PRESS_QUIET_S:
            self._press_until = now
        return now < self._press_until
