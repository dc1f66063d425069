"""Two associations on a virtual link: opening, exactly-once delivery in any weather, ends with a name."""

from __future__ import annotations

import random

import pytest

from agent.errors import LinkClosed, LocalError, ProtocolViolation
from agent.net.sctp import sender
from agent.net.sctp.config import PACKET_BYTES_BASE, SctpConfig
from agent.net.sctp.events import Ended, Opened, StreamsReset
from agent.net.sctp.packet import ChunkType, ParameterType, chunk_bytes, parameters_bytes
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather

CHECKED = SctpConfig(zero_checksum=False)
SMALL = SctpConfig(packet_bytes_max=PACKET_BYTES_BASE)


def opened(seed: int = 1, weather: Weather | None = None, *configs: SctpConfig) -> VirtualLink:
    link = VirtualLink(seed, weather or Weather(), *configs)
    link.begin()
    assert link.run(60, lambda: all(end.association.is_open for end in link.ends))
    return link


def payload(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size)


def exchange(link: VirtualLink, messages: int, size_max: int, until_s: float = 600) -> None:
    """Both ends send on three streams; everything comes once, in the order of its stream, unaltered."""
    rng = random.Random(7)
    sent: list[dict[int, list[bytes]]] = [{}, {}]
    for number in range(messages):
        side, stream = number % 2, rng.choice((0, 1, 5))
        data = payload(rng, rng.randint(1, size_max))
        sent[side].setdefault(stream, []).append(data)
        link.send(side, stream, data)
    done = link.run(until_s, lambda: all(len(link.ends[s].messages) == messages // 2 for s in (0, 1)))
    assert done, [(end.ended, len(end.messages)) for end in link.ends]
    for side in (0, 1):
        for stream, expected in sent[1 - side].items():
            assert [bytes(m.data) for m in link.ends[side].messages if m.stream == stream] == expected
        assert all(m.protocol == 53 for m in link.ends[side].messages)
    assert link.run(60, lambda: all(end.association.buffered() == 0 for end in link.ends))


def test_opens_when_both_start_at_once():
    link = opened()
    for end in link.ends:
        assert isinstance(end.events[0], Opened)
        assert end.events[0].peer.interleave


def test_opens_when_only_one_starts():
    link = VirtualLink(1, Weather())
    link.ends[0].association.begin(link.now)
    assert link.run(5, lambda: all(end.association.is_open for end in link.ends))


@pytest.mark.parametrize("seed", range(20))
def test_opens_in_bad_weather(seed):
    link = VirtualLink(seed, Weather(loss=0.3, duplicate=0.2, jitter_s=0.5, corrupt=0.1), CHECKED)
    link.begin()
    assert link.run(120, lambda: all(end.association.is_open for end in link.ends))
    exchange(link, 10, 5000)


@pytest.mark.parametrize("interleave", [True, False])
def test_in_order_and_once_on_a_good_link(interleave):
    link = opened(1, Weather(), SctpConfig(interleave=interleave))
    exchange(link, 60, 60_000)
    assert sum(end.association.counts.retransmitted for end in link.ends) == 0


def test_interleaving_needs_both():
    link = opened(1, Weather(), SctpConfig(interleave=False), SctpConfig(interleave=True))
    exchange(link, 20, 30_000)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("interleave", [True, False])
def test_in_order_and_once_in_bad_weather(seed, interleave):
    weather = Weather(loss=0.05, duplicate=0.05, jitter_s=0.03, corrupt=0.02)
    config = SctpConfig(interleave=interleave, zero_checksum=False, packet_bytes_max=PACKET_BYTES_BASE)
    exchange(opened(seed, weather, config), 40, 60_000)


def test_sequence_numbers_wrap_around():
    """TSNs start just below 2^32, and more than 65,536 messages pass on one stream of a DATA association."""

    config = SctpConfig(interleave=False, packet_bytes_max=PACKET_BYTES_BASE)
    link = VirtualLink(1, Weather(delay_s=0.001, loss=0.001), config)
    for end in link.ends:
        end.association._handshake.tsn = (1 << 32) - 3
    link.begin()
    assert link.run(5, lambda: link.ends[0].association.is_open and link.ends[1].association.is_open)
    total = 66_000
    for number in range(total):
        link.send(0, 1, number.to_bytes(4, "big"))
    assert link.run(600, lambda: len(link.ends[1].messages) == total)
    assert [int.from_bytes(m.data, "big") for m in link.ends[1].messages] == list(range(total))


@pytest.mark.parametrize("interleave", [True, False])
def test_control_overtakes_bulk(interleave):
    config = SctpConfig(interleave=interleave, packet_bytes_max=PACKET_BYTES_BASE)
    link = opened(1, Weather(delay_s=0.02, rate=2e6, queue_bytes=100_000), config)
    for _ in range(100):
        link.send(0, 1, bytes(60_000))
    link.run(0.3)
    link.send(0, 0, b"urgent")
    before = len(link.ends[1].messages)
    start = link.now
    assert link.run(10, lambda: any(m.stream == 0 for m in link.ends[1].messages))
    assert link.now - start < 0.3
    assert len(link.ends[1].messages) - before < 12


def test_a_lost_bulk_packet_does_not_hold_up_control():
    link = opened(1, Weather(delay_s=0.05), SMALL)
    link.send(0, 1, bytes(1000))
    link.weather.loss = 1.0
    link.flush()
    link.weather.loss = 0.0
    link.send(0, 0, b"urgent")
    assert link.run(0.06, lambda: bool(link.ends[1].messages))
    assert link.ends[1].messages[0].stream == 0


def test_graceful_shutdown_delivers_everything_first():
    link = opened(3, Weather(loss=0.1))
    link.send(0, 1, bytes(200_000))
    link.ends[0].association.shutdown()
    with pytest.raises(LinkClosed):
        link.send(0, 1, b"late")
    assert link.run(60, lambda: all(end.ended for end in link.ends))
    assert [end.ended.error for end in link.ends] == [None, None]
    assert len(link.ends[1].messages) == 1


def test_both_shut_down_at_once():
    link = opened()
    for end in link.ends:
        end.association.shutdown()
    assert link.run(60, lambda: all(end.ended for end in link.ends))
    assert [end.ended.error for end in link.ends] == [None, None]


def test_abort_reaches_the_peer():
    link = opened()
    link.ends[0].association.abort("test")
    assert link.run(1, lambda: all(end.ended for end in link.ends))
    assert isinstance(link.ends[1].ended.error, LinkClosed)
    assert link.ends[0].association.next_deadline() is None
    assert link.ends[0].association.transmit(link.now) == []


def test_a_half_open_link_ends_with_a_name_while_sending():
    link = opened()
    link.weather.loss = 1.0
    link.send(0, 1, bytes(5000))
    assert link.run(300, lambda: link.ends[0].ended is not None)
    assert isinstance(link.ends[0].ended.error, LinkClosed)


def test_a_half_open_link_ends_with_a_name_while_idle():
    link = opened()
    link.weather.loss = 1.0
    assert link.run(100, lambda: all(end.ended for end in link.ends))
    assert all(isinstance(end.ended.error, LinkClosed) for end in link.ends)


def test_an_idle_link_stays_open_and_quiet():
    link = opened()
    before = sum(end.packets for end in link.ends)
    assert not link.run(3600, lambda: any(end.ended for end in link.ends))
    assert sum(end.packets for end in link.ends) - before < 3600 / 15 * 5


def test_nobody_there_ends_the_handshake():
    link = VirtualLink(1, Weather(loss=1.0))
    link.begin()
    assert link.run(300, lambda: all(end.ended for end in link.ends))


def test_send_limits():
    config = SctpConfig(message_bytes_max=1000, send_buffer_bytes_max=3000)
    link = VirtualLink(1, Weather(), config)
    association = link.ends[0].association
    association.send(1, 53, memoryview(bytes(1000)))
    with pytest.raises(ValueError):
        association.send(1, 53, memoryview(bytes(1001)))
    with pytest.raises(ValueError):
        association.send(1, 53, memoryview(b""))
    with pytest.raises(ValueError):
        association.send(config.streams, 53, memoryview(b"x"))
    association.send(1, 53, memoryview(bytes(1000)))
    association.send(1, 53, memoryview(bytes(1000)))
    with pytest.raises(LocalError):
        association.send(1, 53, memoryview(b"x"))
    assert association.buffered() == 3000
    link.begin()
    assert link.run(5, lambda: len(link.ends[1].messages) == 3)
    assert link.run(5, lambda: association.buffered() == 0)


def test_too_large_a_message_is_a_violation():
    link = opened(1, Weather(), SctpConfig(), SctpConfig(message_bytes_max=1000))
    link.send(0, 1, bytes(3000))
    assert link.run(5, lambda: all(end.ended for end in link.ends))
    assert isinstance(link.ends[1].ended.error, ProtocolViolation)
    assert isinstance(link.ends[0].ended.error, LinkClosed)


def test_packets_grow_with_the_path_and_shrink_with_it():
    link = opened()
    link.run(5)
    assert link.ends[0].association.packet_bytes == 16384
    link.weather.size_max = 1400
    link.send(0, 1, bytes(100))
    exchange_one(link)
    link.send(0, 1, bytes(50_000))
    link.run(3)
    assert link.ends[0].association.path_fell_back
    assert link.ends[0].association.packet_bytes == PACKET_BYTES_BASE
    link.weather.size_max = 1 << 20  # the host lets the network fragment
    assert link.run(60, lambda: len(link.ends[1].messages) == 2)


def test_large_packets_that_vanish_among_small_ones_that_pass_are_noticed():
    """Control keeps being acknowledged, so no timeout ever fires; the bulk message must not wait for ever."""
    link = opened()
    link.run(5)
    assert link.ends[0].association.packet_bytes == 16384
    link.weather.size_max = 1400
    link.send(0, 1, bytes(50_000))
    for _ in range(400):
        link.send(0, 0, b"small")
        link.run(0.01)
    assert link.ends[0].association.path_fell_back
    link.weather.size_max = 1 << 20
    assert link.run(10, lambda: any(m.stream == 1 for m in link.ends[1].messages))


def test_one_packet_that_never_passes_ends_the_association():
    link = opened(1, Weather(), SMALL)
    link.weather.size_max = 1000
    link.send(0, 1, bytes(3000))
    for _ in range(6000):
        if link.ends[0].ended:
            break
        link.send(0, 0, b"small")
        link.run(0.01)
    assert isinstance(link.ends[0].ended.error, LinkClosed)


def test_acknowledged_packets_are_not_kept():
    link = opened()
    link.run(5)
    for _ in range(20):
        link.send(0, 1, bytes(200_000))
    assert link.run(60, lambda: link.ends[0].association.buffered() < 200_000)
    sender = link.ends[0].association._sender
    assert sum(len(sent.packet) for sent in sender._sent) < 400_000
    assert link.run(60, lambda: link.ends[0].association.buffered() == 0)
    assert sender._sent == []
    assert len(sender._transmissions) == 0
    assert link.ends[1].association._receiver.reassembler.held_bytes == 0


def test_a_peer_that_never_acknowledges_the_first_packet_does_not_make_us_keep_all_that_follow(monkeypatch):
    """It may take gap acknowledgements back (RFC 9260 section 6.2.1), so nothing behind a hole can be let go."""
    monkeypatch.setattr(sender, "KEPT_BYTES_MAX", 200_000)
    link = opened(1, Weather(), SMALL)
    end, other = (link.ends[side].association for side in (0, 1))
    receive = other.receive
    first = end._sender._next_tsn
    monkeypatch.setattr(other, "receive", lambda packet, now: receive(packet, now) if tsn_of(packet) != first else None)
    monkeypatch.setattr(other, "_express", False)
    kept, sent = 0, 0
    while end.is_open and sent < 5_000_000:
        link.send(0, 1, bytes(50_000))
        sent += 50_000
        link.run(0.03)
        kept = max(kept, sum(len(chunk.packet) for chunk in end._sender._sent))
    assert 150_000 < kept < 220_000


def tsn_of(packet: bytes) -> int:
    return int.from_bytes(packet[16:20], "big") if packet[12] == ChunkType.I_DATA else -1


def test_an_acknowledgement_rides_with_a_single_reply_and_with_nothing_larger():
    for replies, size, packets in ((0, 0, 1), (1, 500, 1), (1, 1100, 1), (1, 1150, 2), (3, 500, 4)):
        link = opened(1, Weather(), SMALL)
        link.run(1)
        asked, answering = (link.ends[side].association for side in (0, 1))
        asked.send(0, 53, memoryview(b"?"))
        answering.receive_all(asked.transmit(link.now), link.now)
        for _ in range(replies):
            answering.send(0, 53, memoryview(bytes(size)))
        sent = answering.transmit(link.now)
        assert len(sent) == packets
        assert all(len(packet) <= PACKET_BYTES_BASE for packet in sent)
        asked.receive_all(sent, link.now)
        assert asked.buffered() == 0
        assert [len(message.data) for message in asked.events()] == [size] * replies


def exchange_one(link: VirtualLink) -> None:
    assert link.run(5, lambda: bool(link.ends[1].messages))


def test_packet_size_stops_at_the_path():
    link = opened(1, Weather(size_max=1380))
    link.run(30)
    assert link.ends[0].association.packet_bytes == 1372
    exchange(link, 20, 60_000)


def test_the_peer_resets_streams():
    link = opened()
    link.send(0, 1, b"last")
    peer = link.ends[1].association
    request = link.ends[0].association._handshake.tsn.to_bytes(4, "big") + bytes(4)
    last_tsn = link.ends[0].association._handshake.tsn & 0xFFFFFFFF
    value = request + last_tsn.to_bytes(4, "big") + (1).to_bytes(2, "big")
    chunk = chunk_bytes(ChunkType.RE_CONFIG, parameters_bytes([(ParameterType.RESET_OUTGOING, value)]))
    packet = link.ends[0].association._framer.packet(chunk)
    peer.receive(packet, link.now)
    assert peer.events() == []
    link.run(1)
    resets = [event for event in link.ends[1].events if isinstance(event, StreamsReset)]
    assert [event.streams for event in resets] == [[1]]
    peer.receive(packet, link.now)
    link.run(1)
    assert len([event for event in link.ends[1].events if isinstance(event, StreamsReset)]) == 1


def test_a_second_reset_does_not_take_the_place_of_one_that_waits_for_data():
    link = opened()
    peer, framer, tsn = link.ends[1].association, link.ends[0].association._framer, link.ends[0].association._handshake.tsn

    def reset(number: int, last_tsn: int, stream: int) -> list[bytes]:
        fields = (tsn + number) & 0xFFFFFFFF, 0, last_tsn & 0xFFFFFFFF
        value = b"".join(field.to_bytes(4, "big") for field in fields) + stream.to_bytes(2, "big")
        chunk = chunk_bytes(ChunkType.RE_CONFIG, parameters_bytes([(ParameterType.RESET_OUTGOING, value)]))
        peer.receive(framer.packet(chunk), link.now)
        return peer.transmit(link.now)

    (in_progress,) = reset(0, tsn, 1)  # waits for one more chunk
    (refused,) = reset(1, tsn - 1, 2)
    assert (in_progress[-1], refused[-1]) == (6, 4)
    assert peer.events() == []
    link.send(0, 1, b"last")
    link.run(1)
    assert [event.streams for event in link.ends[1].events if isinstance(event, StreamsReset)] == [[1]]
    (performed,) = reset(1, tsn, 2)
    assert performed[-1] == 1


def test_same_seed_same_course():
    def course() -> list[float]:
        link = opened(5, Weather(loss=0.05, jitter_s=0.02), CHECKED)
        exchange(link, 20, 20_000)
        return [link.now, link.steps, link.ends[0].packets, link.ends[1].packets]

    assert course() == course()


def test_nothing_is_taken_after_the_end():
    link = opened()
    link.ends[0].association.abort("test")
    link.ends[0].association.receive(bytes(100), link.now)
    link.ends[0].association.tick(link.now)
    assert [type(event) for event in link.ends[0].association.events()] == [Ended]
    with pytest.raises(LinkClosed):
        link.send(0, 1, b"x")
