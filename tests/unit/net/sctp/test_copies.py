"""Second copies of urgent chunks."""

from __future__ import annotations

from agent.net.sctp.config import SctpConfig
from agent.net.sctp.copies import CHUNK_BYTES_MAX, LOSSY_S, REMEMBERED_MAX, RIDER_BYTES_MAX, WAITING_MAX, Copies
from agent.net.sctp.packet import Data, Framer, parse
from agent.net.sctp.sent import ACKED, LOST, Sent
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather

FRAMER = Framer(5000, 5000)


def chunk(tsn: int = 1, size: int = 100) -> Sent:
    return Sent(tsn, size, FRAMER.idata(3, tsn, 0, tsn, 51, memoryview(bytes(size))), tsn, 0.0, 0, 0.0, False)


def tsns(*packets: bytes) -> list[list[int]]:
    """The chunks of each packet, whose checksums are right."""
    return [[c.tsn for c in parse(packet)[1] if isinstance(c, Data)] for packet in packets]


def test_only_on_a_path_that_loses():
    copies = Copies(FRAMER)
    copies.plan(chunk(), 1.0, 0.1)
    assert copies.next_due() is None
    copies.path_loses(1.0)
    copies.plan(chunk(), 1.0, 0.1)
    due = copies.next_due()
    assert due is not None and 1.0 < due < 1.01
    assert copies.due(1.0) == []
    assert tsns(*copies.due(due)) == [[1]]
    assert copies.unexplained([1, 7]) == 1
    copies.plan(chunk(), 1.0 + LOSSY_S, 0.1)
    assert copies.next_due() is None


def test_not_of_what_has_come_nor_of_what_was_sent_again():
    copies = Copies(FRAMER)
    copies.path_loses(0.0)
    come, again = chunk(1), chunk(2)
    copies.plan(come, 0.0, None)
    copies.plan(again, 0.0, None)
    come.state, again.repeats = ACKED, 1
    assert copies.due(1.0) == []
    assert copies.unexplained([1, 2]) == 2


def test_limits():
    copies = Copies(FRAMER)
    copies.path_loses(0.0)
    copies.plan(chunk(size=CHUNK_BYTES_MAX + 1), 0.0, None)
    assert copies.next_due() is None
    for tsn in range(WAITING_MAX + 1):
        copies.plan(chunk(tsn), 0.0, None)
    assert [tsn for packet in tsns(*copies.due(1.0)) for tsn in packet] == list(range(WAITING_MAX))
    for tsn in range(REMEMBERED_MAX + 1):
        copies.plan(chunk(1000 + tsn), 0.0, None)
        copies.due(1.0)
    assert copies.unexplained([1000, 1001]) == 1


def test_the_second_copy_rides_with_a_later_packet():
    copies = Copies(FRAMER)
    copies.path_loses(0.0)
    copies.plan(chunk(1), 0.0, 0.1)
    (first,) = copies.due(0.007)
    assert tsns(first, copies.ride(chunk(2).packet, 0.008)) == [[1], [2]]  # a burst would take both
    copies.plan(chunk(2), 0.008, 0.1)
    assert tsns(copies.ride(chunk(3).packet, 0.012)) == [[3, 1, 2]]
    assert tsns(copies.ride(chunk(4).packet, 0.013)) == [[4]]
    assert tsns(copies.ride(chunk(5).packet, 0.015)) == [[5, 2]]
    assert tsns(copies.ride(chunk(6).packet, 0.1)) == [[6]]
    assert copies.due(1.0) == []
    assert copies.unexplained([1, 2, 3]) == 1


def test_what_has_come_or_is_sent_again_does_not_ride():
    copies = Copies(FRAMER)
    copies.path_loses(0.0)
    come, again, lost = chunk(1), chunk(2), chunk(3)
    for sent in (come, again, lost):
        copies.plan(sent, 0.0, 0.1)
    assert tsns(*copies.due(0.01)) == [[1, 2, 3]]
    come.state, again.repeats, lost.state = ACKED, 1, LOST
    assert tsns(copies.ride(chunk(4).packet, 0.02)) == [[4]]


def test_what_is_large_or_does_not_fit_does_not_ride():
    copies = Copies(FRAMER)
    copies.path_loses(0.0)
    copies.plan(chunk(1, RIDER_BYTES_MAX + 1), 0.0, 0.1)
    for tsn in range(2, 7):
        copies.plan(chunk(tsn, RIDER_BYTES_MAX), 0.0, 0.1)
    assert tsns(copies.ride(chunk(7).packet, 0.003)) == [[7, 2, 3, 4]]
    assert tsns(*copies.due(0.01)) == [[1, 5, 6]]


def test_control_does_not_wait_for_a_round_trip_that_was_lost():
    """A hundred small messages beside bulk at 2 % loss and 100 ms: hardly one takes longer than the way and a little."""
    link = VirtualLink(1, Weather(delay_s=0.05, loss=0.02), SctpConfig(priorities={0: 0}, message_bytes_max=60_000))
    link.begin()
    link.run(2)
    late = 0
    for index in range(150):
        while link.ends[0].association.buffered() < 400_000:
            link.send(0, 1, bytes(60_000))
        link.send(0, 0, b"%d" % index)
        sent_at = link.now
        wanted = sum(1 for message in link.ends[1].messages if message.stream == 0) + 1
        link.run(5, lambda wanted=wanted: sum(m.stream == 0 for m in link.ends[1].messages) >= wanted)
        late += link.now > sent_at + 0.07 and index >= 50
    assert late <= 1
