"""Second copies of urgent chunks."""

from __future__ import annotations

from agent.net.sctp.config import SctpConfig
from agent.net.sctp.copies import CHUNK_BYTES_MAX, LOSSY_S, REMEMBERED_MAX, WAITING_MAX, Copies
from agent.net.sctp.sent import ACKED, Sent
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather


def chunk(tsn: int = 1, size: int = 100) -> Sent:
    return Sent(tsn, size, b"packet %d" % tsn, tsn, 0.0, 0, 0.0, False)


def test_only_on_a_path_that_loses():
    copies = Copies()
    copies.plan(chunk(), 1.0, 0.1)
    assert copies.next_due() is None
    copies.path_loses(1.0)
    copies.plan(chunk(), 1.0, 0.1)
    due = copies.next_due()
    assert due is not None and 1.0 < due < 1.01
    assert copies.due(1.0) == []
    assert copies.due(due) == [b"packet 1"]
    assert copies.unexplained([1, 7]) == 1
    copies.plan(chunk(), 1.0 + LOSSY_S, 0.1)
    assert copies.next_due() is None


def test_not_of_what_has_come_nor_of_what_was_sent_again():
    copies = Copies()
    copies.path_loses(0.0)
    come, again = chunk(1), chunk(2)
    copies.plan(come, 0.0, None)
    copies.plan(again, 0.0, None)
    come.state, again.repeats = ACKED, 1
    assert copies.due(1.0) == []
    assert copies.unexplained([1, 2]) == 2


def test_limits():
    copies = Copies()
    copies.path_loses(0.0)
    copies.plan(chunk(size=CHUNK_BYTES_MAX + 1), 0.0, None)
    assert copies.next_due() is None
    for tsn in range(WAITING_MAX + 1):
        copies.plan(chunk(tsn), 0.0, None)
    assert len(copies.due(1.0)) == WAITING_MAX
    for tsn in range(REMEMBERED_MAX + 1):
        copies.plan(chunk(1000 + tsn), 0.0, None)
        copies.due(1.0)
    assert copies.unexplained([1000, 1001]) == 1


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
