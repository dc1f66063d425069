"""Whatever the link does, every message arrives exactly once, in the order of its stream, unaltered; or there is an error
with a name. And whatever a peer sends, nothing else than that comes out."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import LinkClosed, ProtocolViolation
from agent.net.sctp.config import PACKET_BYTES_BASE, PACKET_BYTES_MAX, SctpConfig
from agent.net.sctp.packet import Framer, Sack, chunk_bytes, sack_bytes
from tests.unit.net.sctp.virtual_link import VirtualLink, Weather

WEATHER = st.builds(
    Weather,
    delay_s=st.floats(0, 0.2),
    jitter_s=st.floats(0, 0.1),
    loss=st.floats(0, 0.25),
    duplicate=st.floats(0, 0.3),
    corrupt=st.floats(0, 0.1),
    rate=st.one_of(st.none(), st.floats(1e5, 1e8)),
    queue_bytes=st.integers(20_000, 1 << 20),
    size_max=st.integers(PACKET_BYTES_BASE, 20_000),
)
CONFIG = st.builds(
    SctpConfig,
    interleave=st.booleans(),
    zero_checksum=st.just(False),  # the link alters packets, and there is no DTLS to notice
    packet_bytes_max=st.sampled_from((PACKET_BYTES_BASE, 1412, PACKET_BYTES_MAX)),
    window_bytes=st.sampled_from((1 << 17, 1 << 20)),
    congestion=st.sampled_from(("reno", "bbr")),
)
MESSAGES = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.one_of(st.integers(1, 2000), st.integers(1, 200_000))), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), WEATHER, CONFIG, CONFIG, MESSAGES)
def test_exactly_once_and_in_order(
    seed: int, weather: Weather, one: SctpConfig, other: SctpConfig, messages: list[tuple[int, int, int]]
) -> None:
    link = VirtualLink(seed, weather, one, other)
    link.begin()
    rng = random.Random(seed)
    expected: list[dict[int, list[bytes]]] = [{}, {}]
    for side, stream, size in messages:
        data = rng.randbytes(size)
        expected[1 - side].setdefault(stream, []).append(data)
        link.send(side, stream, data)
        link.run(rng.random() * 0.05)
    counts = [sum(map(len, expected[side].values())) for side in (0, 1)]
    link.run(
        900, lambda: all(len(e.messages) == n for e, n in zip(link.ends, counts, strict=True)) or any(e.ended for e in link.ends)
    )
    for side, end in enumerate(link.ends):
        whole = {stream: [bytes(m.data) for m in end.messages if m.stream == stream] for stream in range(4)}
        if end.ended is None and link.ends[1 - side].ended is None:
            assert whole == {stream: expected[side].get(stream, []) for stream in range(4)}
        else:
            for stream in range(4):
                assert whole[stream] == expected[side].get(stream, [])[: len(whole[stream])]
            assert all(isinstance(e.ended.error, LinkClosed) for e in link.ends if e.ended is not None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), WEATHER, CONFIG, st.integers(0, 80), st.integers(1, 120_000))
def test_sequence_numbers_wrap_in_any_weather(seed: int, weather: Weather, config: SctpConfig, before: int, size: int) -> None:
    """Both ends' transmission sequence numbers pass 2^32 on the way."""
    link = VirtualLink(seed, weather, config)
    for end in link.ends:
        end.association._handshake.tsn = (1 << 32) - 1 - before
    link.begin()
    data = [random.Random(seed + n).randbytes(size) for n in range(3)]
    for message in data:
        for side in (0, 1):
            link.send(side, 1, message)
    link.run(900, lambda: all(len(end.messages) == len(data) or end.ended for end in link.ends))
    for end in link.ends:
        got = [bytes(message.data) for message in end.messages]
        assert got == data[: len(got)]
        assert len(got) == len(data) or any(isinstance(e.ended.error, LinkClosed) for e in link.ends if e.ended is not None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32), st.floats(0.0, 3.0), st.booleans())
def test_a_link_that_dies_at_any_time_ends_with_a_name(seed: int, dies_after_s: float, one_way: bool) -> None:
    link = VirtualLink(seed, Weather(loss=0.02, delay_s=0.05))
    link.begin()
    for _ in range(20):
        link.send(0, 1, bytes(20_000))
    link.run(dies_after_s)
    link.weather.loss = 1.0
    if one_way:
        link.ends[1].association.abort("gone")
        link.flush()
    link.send(0, 1, bytes(10))
    assert link.run(600, lambda: link.ends[0].ended is not None)
    assert link.ends[0].ended is not None and isinstance(link.ends[0].ended.error, LinkClosed)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.lists(
        st.tuples(st.sampled_from((0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 14, 64, 130, 132, 192, 194, 77)), st.binary(max_size=60))
    ),
    st.booleans(),
)
def test_a_hostile_peer_gets_an_error_with_a_name(seed: int, chunks: list[tuple[int, bytes]], is_open: bool) -> None:
    link = VirtualLink(seed, Weather())
    if is_open:
        link.begin()
        assert link.run(5, lambda: all(end.association.is_open for end in link.ends))
        link.send(0, 1, bytes(5000))
        link.flush()
    victim = link.ends[0].association
    framer = Framer(5000, 5000)
    framer.tag = victim._handshake.tag
    for kind, body in chunks:
        victim.receive(framer.packet(chunk_bytes(kind, body, seed & 7)), link.now)
        victim.transmit(link.now)
        victim.tick(link.now)
    ended = link.run(1, lambda: link.ends[0].ended is not None)
    if ended:
        assert link.ends[0].ended is not None
        assert isinstance(link.ends[0].ended.error, (LinkClosed, ProtocolViolation, type(None)))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.lists(
        st.tuples(
            st.integers(-3, 40),
            st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=4),
            st.integers(0, 1 << 20),
            st.floats(0, 2),
        ),
        max_size=12,
    ),
)
def test_lying_acknowledgements(seed: int, sacks: list[tuple[int, list[tuple[int, int]], int, float]]) -> None:
    """SACKs that go back, take gaps back, or close the window: accounts stay right, and an impossible one ends it."""
    link = VirtualLink(seed, Weather(), SctpConfig(packet_bytes_max=PACKET_BYTES_BASE))
    link.begin()
    assert link.run(5, lambda: all(end.association.is_open for end in link.ends))
    victim = link.ends[0].association
    sender = victim._sender
    assert sender is not None
    first = sender.last_tsn
    link.send(0, 1, bytes(30_000))
    victim.transmit(link.now)
    framer = Framer(5000, 5000)
    framer.tag = victim._handshake.tag
    now = link.now
    for ahead, gaps, window, pause in sacks:
        now += pause
        sack = Sack((first + ahead) & 0xFFFFFFFF, window, gaps, [])
        victim.receive(framer.packet(sack_bytes(sack)), now)
        victim.tick(now)
        while victim.transmit(now):
            pass
        assert 0 <= sender.in_flight <= sender.unacknowledged <= 30_000
        assert 0 <= victim.buffered() <= 30_000
        if victim.ended:
            break
        in_flight = [s for s in sender._sent[sender._head :] if s.state == 0]
        assert sender.in_flight == sum(s.size for s in in_flight)
        assert sender.unacknowledged == sum(s.size for s in sender._sent[sender._head :] if s.state != 2)
