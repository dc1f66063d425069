"""What the sending half concludes from acknowledgements, by hand."""

from __future__ import annotations

from agent.net.sctp.congestion import NewReno
from agent.net.sctp.outbound import Outbound
from agent.net.sctp.packet import Framer, Sack
from agent.net.sctp.rtt import RttConfig, RttEstimator
from agent.net.sctp.sender import URGENT_BYTES_MAX, Sender
from agent.net.sctp.sent import SenderStart

WINDOW = 1 << 20
PACKET = 1188


def sender(*, packets: int = 30, window: int = 100) -> Sender:
    """A sender that has sent so many bulk packets at 0 s, with the first acknowledged a tenth of a second later."""
    outbound = Outbound(interleave=True, priorities={0: 0})
    start = SenderStart(tsn=1, peer_window=WINDOW, packet_bytes=PACKET, interleave=True)
    congestion = NewReno(payload_bytes=PACKET, initial_packets=window)
    made = Sender(start, Framer(5000, 5000), outbound, congestion, RttEstimator(RttConfig()))
    outbound.put(1, 53, memoryview(bytes((PACKET - 32) * packets)))
    made.transmit(0.0)
    made.sack(Sack(1, WINDOW, [], []), 0.1)
    return made


def test_an_early_acknowledgement_of_a_repeated_chunk_says_nothing_about_others() -> None:
    """The first transmission was only late: were this of the repetition, all that was sent before that would be lost."""
    made = sender()
    made.sack(Sack(1, WINDOW, [(4, 7)], []), 0.101)
    assert len(made.transmit(0.101)) == made.counts.retransmitted > 0
    repeated, in_flight = made.counts.retransmitted, made.in_flight
    made.sack(Sack(2, WINDOW, [(3, 6)], []), 0.102)
    assert made.in_flight > in_flight - 2 * PACKET
    made.transmit(0.102)
    assert made.counts.retransmitted == repeated


def test_urgent_chunks_go_beyond_the_window_but_not_without_limit() -> None:
    made = sender(window=30)
    made.congestion.window = made.in_flight
    made._outbound.put(1, 53, memoryview(bytes(10_000)))
    assert made.transmit(0.2) == []
    made._outbound.put(0, 53, memoryview(b"quick"))
    assert len(made.transmit(0.2)) == 1
    for _ in range(100):
        made._outbound.put(0, 53, memoryview(bytes(1000)))
    sent = sum(map(len, made.transmit(0.2)))
    assert URGENT_BYTES_MAX < sent < URGENT_BYTES_MAX + 2 * PACKET


def test_urgent_chunks_do_not_wait_for_a_window_that_has_shrunk() -> None:
    made = sender(window=30)
    made.congestion.window = made.in_flight // 10
    made._outbound.put(0, 53, memoryview(bytes(1000)))
    assert len(made.transmit(0.2)) == 1


def test_what_was_acknowledged_gives_urgent_chunks_their_room_back() -> None:
    made = sender(window=30)
    made.congestion.window = made.in_flight // 10
    for _ in range(100):
        made._outbound.put(0, 53, memoryview(bytes(1000)))
    sent = len(made.transmit(0.2))
    assert made.transmit(0.2) == []
    made.sack(Sack(30 + sent, WINDOW, [], []), 0.3)
    made.congestion.window = 0
    assert len(made.transmit(0.3)) == sent


def test_bulk_leaves_room_in_the_peers_window_for_urgent_chunks() -> None:
    made = sender(window=30)
    made.congestion.window = 1 << 30
    made._outbound.put(1, 53, memoryview(bytes(1 << 20)))
    made.sack(Sack(1, made.in_flight + 100_000, [], []), 0.1)
    while made.transmit(0.2):
        pass
    assert made._peer_window - URGENT_BYTES_MAX <= made.in_flight < made._peer_window - URGENT_BYTES_MAX + PACKET
    for _ in range(100):
        made._outbound.put(0, 53, memoryview(bytes(1000)))
    made.transmit(0.2)
    assert made._peer_window <= made.in_flight < made._peer_window + PACKET
