"""Spreading packets in time: how many bytes may go out by now at the rate that congestion control wants."""

from __future__ import annotations

from agent.net.sctp.congestion import CongestionControl

QUANTUM_S = 0.001
"""How much of the paced rate goes out at once: hosts' timers are no finer."""


class Pacer:
    """A clock that runs ahead with every byte sent, and is never far behind."""

    def __init__(self, congestion: CongestionControl) -> None:
        self.waiting = False
        """Whether something waits for nothing but its time."""
        self._congestion = congestion
        self._until = 0.0

    def budget(self, now: float, packet_bytes: int) -> tuple[float, bool]:
        """Bytes that may go out by now, and whether some of the time was lost because the host came late."""
        rate, late = self._congestion.pacing_rate, False
        if not rate:
            return float("inf"), False
        earliest = now - max(self._congestion.burst_s, 2 * packet_bytes / rate)
        if self._until < earliest:
            late = self.waiting
            self._until = earliest
        return (now - self._until) * rate, late

    def spend(self, size: float) -> None:
        """So many bytes have gone out, on account of the budget."""
        rate = self._congestion.pacing_rate
        if rate:
            self._until += size / rate

    def restart(self, now: float) -> None:
        """Begin anew."""
        self._until = now

    def next_time(self) -> float | None:
        """When more may go out, if something waits for that."""
        return self._until + QUANTUM_S / 2 if self.waiting else None
