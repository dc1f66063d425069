"""The sending half: what is in flight, what of it came through, what to send next (RFC 9260 sections 6 and 7).

Losses are found by the order of transmission (RFC 8985, RACK): a packet is lost once one that was sent `REORDER_PACKETS`
later has come through, or one that was sent a round trip later. If the peer reports duplicates, we were wrong: then the
later packet must also have been sent a little later in time. If nothing comes back, a probe repeats the last packet
(tail loss); after it the retransmission timeout declares everything lost. A retransmitted packet is the same bytes again.

Work per packet does not grow with what is in flight: acknowledged intervals are compared with the previous SACK's, and
each transmission enters and leaves the queue of transmissions once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from agent.errors import LinkClosed, ProtocolViolation
from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.sctp.congestion import AckSample, CongestionControl
from agent.net.sctp.copies import Copies
from agent.net.sctp.express import fragment_packets
from agent.net.sctp.intervals import newly_covered, shifted
from agent.net.sctp.outbound import Outbound, Part
from agent.net.sctp.pacing import Pacer
from agent.net.sctp.packet import DATA_HEADER_BYTES, IDATA_HEADER_BYTES, MASK_32, Framer, Sack
from agent.net.sctp.rtt import LOSSES_MAX, LOSSES_UNTIL_DOUBT, TIMEOUTS_MAX, TIMEOUTS_UNTIL_DOUBT, RttEstimator
from agent.net.sctp.sent import ACKED, IN_FLIGHT, KEPT_BYTES_MAX, LOST, SenderCounts, SenderStart, Sent

REORDER_PACKETS = 3
BURST_PACKETS = 128
"""Most packets that one `transmit` returns; the host calls again."""
URGENT_BYTES_MAX = 16_384
"""What streams that go first may have in flight whatever the congestion window and the pace. Bulk leaves them so much, or an
eighth, of the peer's window too."""
_HALF = 1 << 31
_TRIM = 4096


class Sender:
    """Sends what `outbound` holds, as fast as `congestion` and the peer's window allow."""

    def __init__(
        self, start: SenderStart, framer: Framer, outbound: Outbound, congestion: CongestionControl, rtt: RttEstimator
    ) -> None:
        self.counts = SenderCounts()
        self.in_flight = 0
        """Payload bytes sent and neither acknowledged nor lost."""
        self.unacknowledged = 0
        """Payload bytes sent at least once and not acknowledged."""
        self._urgent_bytes = 0  # those of them on streams that go first
        self.congestion = congestion
        self.copies = Copies(framer)
        self._framer = framer
        self._outbound = outbound
        self._rtt = rtt
        self._interleave = start.interleave
        self._next_tsn = start.tsn
        self._peer_window = start.peer_window
        self._payload_max = 0
        self.resize(start.packet_bytes)
        self._sent: list[Sent] = []
        self._head = 0
        self._gaps: list[tuple[int, int]] = []
        self._transmissions: deque[tuple[int, Sent]] = deque()
        self._lost: deque[Sent] = deque()
        self._order = 0
        self._newest: Sent | None = None
        self._newest_order = -1
        self._plausible = 0.0  # what was repeated later than this has not been acknowledged yet
        self._newest_sent_at = 0.0
        self._recovery_order = -1
        self._reorder_s = 0.0
        self._delivered = 0
        self._delivered_at = 0.0
        self._window_limited = False
        self._app_limited = False
        self._pacer = Pacer(congestion)
        self._timer_base = 0.0
        self._silent_rounds = 0
        self._stalled_timeouts = 0
        self._repeats_max = 0
        self.black_hole_suspected = False
        """Whether large packets seem not to pass; whoever acts on it sets it back."""

    @property
    def idle(self) -> bool:
        """Nothing waits to be sent or acknowledged."""
        return self._head == len(self._sent) and not self._outbound

    @property
    def pipe_bytes(self) -> int:
        """Bytes that may be in flight at once."""
        return min(self.congestion.window, self._peer_window + self.in_flight)

    @property
    def last_tsn(self) -> int:
        """Unwrapped TSN of the newest chunk."""
        return self._next_tsn - 1

    def resize(self, packet_bytes: int) -> None:
        """Cut new chunks for packets of this size. What was sent before keeps its size."""
        header = 12 + (IDATA_HEADER_BYTES if self._interleave else DATA_HEADER_BYTES)
        self._payload_max = (packet_bytes - header) & ~3
        self.congestion.packet_size(self._payload_max)

    # sending

    def transmit(self, now: float) -> list[bytes]:
        """Return the packets to send now, at most BURST_PACKETS; the host calls until it gets none."""
        room = max(self._peer_window, 0 if self.in_flight else 1)
        limit = min(self.congestion.window, room - min(URGENT_BYTES_MAX, room >> 3))
        allowed, late = self._pacer.budget(now, self._payload_max)
        self._app_limited = self._app_limited or late  # what is measured now is not the path's doing
        before, packets = self.in_flight, self.copies.due(now)
        may_keep = (len(self._sent) - self._head) * self._payload_max < KEPT_BYTES_MAX
        budget = allowed - (self._send_urgent(now, room, packets) if may_keep else 0)
        while self._lost and len(packets) < BURST_PACKETS:
            sent = self._lost[0]
            if not sent.urgent and (self.in_flight >= limit or budget <= 0):
                break
            self._lost.popleft()
            if sent.state == LOST:
                self._repeat(sent, now)
                packets.append(sent.packet)
                budget -= sent.size
        if may_keep and not self._lost:
            budget = self._send_new(now, limit, budget, packets)
        self._window_limited = self._window_limited or self.in_flight + self._payload_max > self.congestion.window
        self._pacer.waiting = budget <= 0 and self.in_flight < limit and bool(self._lost or self._outbound)
        self._app_limited = not self._lost and not self._outbound
        if packets:
            self._timer_base = self._timer_base if before else now
            self._pacer.spend(allowed - budget)
        return packets

    def _send_urgent(self, now: float, room: int, packets: list[bytes]) -> int:
        """Append what goes before everything else, whatever the pace; return its bytes."""
        total = 0
        while self._outbound.urgent and self.in_flight < room and len(packets) < BURST_PACKETS:
            if self.in_flight >= self.congestion.window and self._urgent_bytes >= URGENT_BYTES_MAX:
                break
            part = self._outbound.cut(self._payload_max)
            assert part is not None
            if not self.unacknowledged:
                self._delivered_at = now
            (packet,) = self._send_part(part, now)
            packets.append(self.copies.ride(packet, now))
            sent = self._sent[-1]
            sent.urgent = True
            self._urgent_bytes += sent.size
            self.copies.plan(sent, now, self._rtt.smoothed_s)
            total += sent.size
        return total

    def _send_new(self, now: float, limit: int, budget: float, packets: list[bytes]) -> float:
        """Append packets with chunks that are sent for the first time; return what is left of the budget."""
        size = self._payload_max
        if not self.unacknowledged:
            self._delivered_at = now
        while self.in_flight < limit and budget > 0 and len(packets) < BURST_PACKETS:
            count = min(-(-min(limit - self.in_flight, budget) // size), BURST_PACKETS - len(packets))
            part = self._outbound.cut(size, int(count))
            if part is None:
                break
            budget -= len(part.payload)
            packets += self._send_part(part, now)
        return budget

    def _send_part(self, part: Part, now: float) -> list[bytes]:
        """Return the packets of a part, and remember them."""
        size, order, tsn = self._payload_max, self._order, self._next_tsn
        packets = fragment_packets(self._framer, part, tsn, size, interleave=self._interleave)
        count = len(packets)
        delivered, delivered_at, app_limited = self._delivered, self._delivered_at, self._app_limited
        sent = [
            Sent(tsn + index, size, packet, order + index, now, delivered, delivered_at, app_limited)
            for index, packet in enumerate(packets)
        ]
        total = len(part.payload)
        sent[-1].size = total - (count - 1) * size
        self._sent += sent
        self._transmissions.extend(zip(range(order, order + count), sent, strict=True))
        self._next_tsn = tsn + count
        self._order = order + count
        self.in_flight += total
        self.unacknowledged += total
        self.counts.packets += count
        return packets

    def _repeat(self, sent: Sent, now: float) -> None:
        sent.repeats += 1
        self._repeats_max = max(self._repeats_max, sent.repeats)
        if sent.repeats >= LOSSES_UNTIL_DOUBT and len(sent.packet) > PACKET_BYTES_BASE:
            self.black_hole_suspected = True
        self.counts.retransmitted += 1
        sent.state = IN_FLIGHT
        self.in_flight += sent.size
        self.counts.packets += 1
        sent.order = self._order
        sent.sent_at = now
        sent.delivered = self._delivered
        sent.delivered_at = self._delivered_at
        sent.app_limited = self._app_limited
        self._transmissions.append((self._order, sent))
        self._order += 1

    # acknowledgements

    def sack(self, sack: Sack, now: float) -> None:
        """Take one SACK. Raises ProtocolViolation if it acknowledges what was never sent."""
        head_tsn = self._sent[self._head].tsn if self._head < len(self._sent) else self._next_tsn
        cumulative = head_tsn + ((sack.cumulative - head_tsn + _HALF) & MASK_32) - _HALF
        if cumulative >= self._next_tsn:
            raise ProtocolViolation("sctp: SACK of a chunk that was never sent")
        if cumulative < head_tsn - 1:
            return
        self._peer_window = sack.window
        self.counts.duplicates += len(sack.duplicates)
        if self.copies.unexplained(sack.duplicates) and self._rtt.smoothed_s is not None:
            self._reorder_s = min(self._reorder_s + self._rtt.min_s / 4, self._rtt.smoothed_s)
        before = self._delivered
        self._newest = None
        self._plausible = now - self._rtt.min_s if self._rtt.smoothed_s is not None else now
        head = self._head + cumulative - head_tsn + 1
        covered = self._sent[self._head : head]
        self._acknowledge(covered)
        for sent in covered:
            sent.packet = b""  # the list is trimmed later; the memory goes now
        self._head = head
        self._acknowledge_gaps(cumulative, sack.gaps)
        self._trim()
        acked = self._delivered - before
        if not acked:
            if self._peer_window < self._payload_max:
                self._silent_rounds = min(self._silent_rounds, 1)
                self._stalled_timeouts = 0
            return
        self._silent_rounds = 0
        if cumulative >= head_tsn:
            self._stalled_timeouts = 0
        self._timer_base = now
        self._finish_sack(acked, now)

    def _acknowledge(self, chunks: Iterable[Sent]) -> None:
        """Repeated chunks acknowledged within less than a round trip are so for an earlier transmission (RFC 8985 6.2.2)."""
        newest_order, plausible, in_flight, delivered = self._newest_order, self._plausible, self.in_flight, 0
        for sent in chunks:
            state = sent.state
            if state == ACKED:
                continue
            if state == IN_FLIGHT:
                in_flight -= sent.size
            sent.state = ACKED
            delivered += sent.size
            if sent.urgent:
                self._urgent_bytes -= sent.size
            if sent.order > newest_order and (not sent.repeats or sent.sent_at <= plausible):
                newest_order = sent.order
                self._newest = sent
        self.in_flight = in_flight
        self._delivered += delivered
        self.unacknowledged -= delivered
        if newest_order > self._newest_order and self._newest is not None:
            self._newest_order, self._newest_sent_at = newest_order, self._newest.sent_at

    def _acknowledge_gaps(self, cumulative: int, gaps: list[tuple[int, int]]) -> None:
        absolute = shifted(gaps, cumulative, self._next_tsn - 1)
        base = self._next_tsn - len(self._sent)
        for first, final in newly_covered(self._gaps, absolute):
            self._acknowledge(self._sent[first - base : final - base + 1])
        self._gaps = absolute

    def _finish_sack(self, acked: int, now: float) -> None:
        """Draw the conclusions from newly acknowledged bytes."""
        newest, rtt_s, interval_s = self._newest, None, 0.0
        if newest is not None:
            if not newest.repeats:
                rtt_s = max(now - newest.sent_at, 1e-6)
                self._rtt.sample(rtt_s)
            interval_s = max(now - newest.delivered_at, now - newest.sent_at, 1e-6)
        self._delivered_at = now
        reacted_before = self._recovery_order
        lost, new_round = self._find_lost(reacted_before)
        if lost:
            self.copies.path_loses(now)
        self.congestion.acked(
            AckSample(
                now=now,
                acked_bytes=acked,
                lost_bytes=lost,
                in_flight=self.in_flight,
                window_limited=self._window_limited,
                new_loss_round=new_round,
                rtt_s=rtt_s,
                delivered_bytes=self._delivered,
                delivered_before=newest.delivered if newest is not None else self._delivered,
                interval_s=interval_s,
                app_limited=newest.app_limited if newest is not None else True,
            )
        )
        self._window_limited = False

    def _find_lost(self, recovery_order: int) -> tuple[int, bool]:
        """Declare lost what was sent well before the newest packet that came through; (bytes, whether a new round)."""
        order_max = self._newest_order - REORDER_PACKETS
        time_max = self._newest_sent_at - self._reorder_s
        surely_lost = self._newest_sent_at - (self._rtt.smoothed_s or float("inf"))
        lost, new_round = 0, False
        queue = self._transmissions
        while queue:
            order, sent = queue[0]
            if sent.state == IN_FLIGHT and sent.order == order:
                if (order > order_max or sent.sent_at > time_max) and sent.sent_at > surely_lost:
                    break
                sent.state = LOST
                self.in_flight -= sent.size
                (self._lost.appendleft if sent.urgent else self._lost.append)(sent)
                lost += sent.size
                new_round = new_round or order > recovery_order
            queue.popleft()
        self._recovery_order = self._order - 1 if new_round else self._recovery_order
        return lost, new_round

    def _trim(self) -> None:
        if self._head == len(self._sent):
            self._sent.clear()
            self._head = 0
        elif self._head > _TRIM and 2 * self._head > len(self._sent):
            del self._sent[: self._head]
            self._head = 0

    # timers

    def next_deadline(self) -> float | None:
        """When `tick` is wanted, or `transmit` because of pacing."""
        deadlines = [self._pacer.next_time(), self.copies.next_due()]
        if self._head < len(self._sent):
            deadlines.append(self._timer_base + self._patience_s())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> list[bytes]:
        """Return a probe if one is due; declare everything lost if that was in vain. Raises LinkClosed at the end."""
        if self._repeats_max > LOSSES_MAX:
            raise LinkClosed("sctp: a packet was lost again and again")
        if self._head == len(self._sent) or now < self._timer_base + self._patience_s():
            return []
        self._silent_rounds += 1
        self._timer_base = now
        if self._silent_rounds == 1:
            return self._probe(now)
        self._stalled_timeouts += 1
        if self._stalled_timeouts > TIMEOUTS_MAX:
            raise LinkClosed("sctp: the peer does not answer any more")
        if self._stalled_timeouts >= TIMEOUTS_UNTIL_DOUBT:
            self.black_hole_suspected = True
        self.counts.timeouts += 1
        self.congestion.timed_out(now)
        self._pacer.restart(now)
        self._recovery_order = self._order - 1
        self._lose_everything(withdrawn=self._stalled_timeouts >= TIMEOUTS_UNTIL_DOUBT)
        return []

    def _patience_s(self) -> float:
        if self._silent_rounds == 0:
            return self._rtt.probe_timeout_s()
        return self._rtt.timeout_s(self._silent_rounds - 1)

    def _probe(self, now: float) -> list[bytes]:
        """Send the newest chunk again, whatever the window says; its SACK shows what else is missing."""
        for index in range(len(self._sent) - 1, self._head - 1, -1):
            sent = self._sent[index]
            if sent.state == IN_FLIGHT:
                self.in_flight -= sent.size
                self._repeat(sent, now)
                self.counts.probes += 1
                return [sent.packet]
        return []

    def _lose_everything(self, *, withdrawn: bool) -> None:
        """Send again all that is in flight, and what was only acknowledged in gaps if the peer may have taken that back.

        A peer may do so (section 6.2.1); it then acknowledges nothing more until it gets those chunks again.
        """
        self._lost.clear()
        self._transmissions.clear()
        if withdrawn:
            self._gaps = []
        for index in range(self._head, len(self._sent)):
            sent = self._sent[index]
            if sent.state == IN_FLIGHT:
                self.in_flight -= sent.size
            elif sent.state == ACKED:
                if not withdrawn:
                    continue
                self._delivered -= sent.size
                self.unacknowledged += sent.size
                self._urgent_bytes += sent.size * sent.urgent
            sent.state = LOST
            self._lost.append(sent)
