"""What every transport must do. Runs on all of them; `transports` in conftest.py makes the pairs."""

from __future__ import annotations

import asyncio
import os

import pytest

from agent.errors import LinkClosed, NotReachable, ProtocolViolation
from agent.net.transport import DESCRIPTION_BYTES_MAX, Lane, Link, Transport
from tests.unit.net.ends import End, open_pair

Pair = tuple[Transport, Transport]


async def test_messages_arrive_whole_and_in_order_on_both_lanes(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    sent = {lane: [os.urandom(1 + 977 * i % 60_000) for i in range(40)] for lane in Lane}
    for x, y in zip(sent[Lane.CONTROL], sent[Lane.BULK], strict=True):
        a.link.send(Lane.CONTROL, x)
        a.link.send(Lane.BULK, memoryview(bytearray(y)))
    await b.count(80)
    for lane in Lane:
        assert [bytes(m) for at, m in b.messages if at is lane] == sent[lane]
    assert a.link.bytes_sent == b.link.bytes_received == sum(len(m) for lane in Lane for m in sent[lane])


async def test_both_directions_at_once(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    for i in range(100):
        a.link.send(Lane.BULK, b"a" * (i + 1))
        b.link.send(Lane.BULK, b"b" * (i + 1))
    await a.count(100)
    await b.count(100)


async def test_the_largest_message_passes_and_one_more_byte_does_not(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    most = a.link.message_bytes_max
    a.link.send(Lane.BULK, os.urandom(most))
    await b.count(1)
    assert len(b.messages[0][1]) == most
    with pytest.raises(ValueError, match="message"):
        a.link.send(Lane.BULK, bytes(most + 1))
    with pytest.raises(ValueError, match="message"):
        a.link.send(Lane.BULK, b"")


async def test_what_comes_before_start_is_delivered_at_start_in_order(transports: Pair) -> None:
    first, second = await links(*transports)
    early = End(first)
    for i in range(5):
        early.link.send(Lane.CONTROL, bytes([i]))
    await early.drained()
    late = End(second)
    await late.count(5)
    assert [bytes(m) for _, m in late.messages] == [bytes([i]) for i in range(5)]


async def test_buffered_counts_what_is_not_acknowledged_and_room_is_announced(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    assert a.link.buffered() == 0
    for _ in range(20):
        a.link.send(Lane.BULK, bytes(50_000))
    assert a.link.buffered() >= 500_000
    await b.count(20)
    await a.drained()
    assert a.link.buffered() == 0 and a.rooms > 0


async def test_closing_is_noticed_by_both_ends_once(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    a.link.close("done here")
    a.link.close("again")
    assert a.closed == []
    async with asyncio.timeout(5):
        await a.ended.wait()
        await b.ended.wait()
    assert a.closed == ["done here"] and len(b.closed) == 1
    b.link.close("too late")
    with pytest.raises(LinkClosed):
        a.link.send(Lane.CONTROL, b"x")
    with pytest.raises(LinkClosed):
        b.link.send(Lane.CONTROL, b"x")


async def test_a_last_word_on_control_arrives_before_the_end(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    a.link.send(Lane.CONTROL, b"goodbye")
    a.link.close("done")
    async with asyncio.timeout(5):
        await b.ended.wait()
    assert [bytes(m) for _, m in b.messages] == [b"goodbye"]


async def test_a_link_that_closed_before_start_says_so_after_start(transports: Pair) -> None:
    first, second = await links(*transports)
    end = End(first)
    end.link.close("never mind")
    async with asyncio.timeout(5):
        await end.ended.wait()
        late = End(second)
        assert late.closed == []
        await late.ended.wait()


async def test_fingerprints_are_those_of_the_other_end(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    assert a.link.local_fingerprint == b.link.remote_fingerprint
    assert a.link.remote_fingerprint == b.link.local_fingerprint
    assert len(a.link.local_fingerprint) == len(a.link.remote_fingerprint) == 32
    assert a.link.local_fingerprint != a.link.remote_fingerprint
    assert a.link.kind == b.link.kind == "direct"


async def test_descriptions_are_small(transports: Pair) -> None:
    offered = await transports[0].offer()
    answered = await transports[1].answer(offered.description)
    assert 0 < len(offered.description) <= DESCRIPTION_BYTES_MAX
    assert 0 < len(answered.description) <= DESCRIPTION_BYTES_MAX
    offered.abandon()
    answered.abandon()
    offered.abandon()


async def test_an_answer_to_an_abandoned_offer_does_not_open(transports: Pair) -> None:
    offered = await transports[0].offer()
    answered = await transports[1].answer(offered.description)
    offered.abandon()
    with pytest.raises(NotReachable):
        await answered.open(0.2)


async def test_an_offer_whose_answerer_left_does_not_open(transports: Pair) -> None:
    offered = await transports[0].offer()
    answered = await transports[1].answer(offered.description)
    answered.abandon()
    with pytest.raises(NotReachable):
        await offered.accept(answered.description, 0.2)


async def test_cancelling_an_opening_releases_it(transports: Pair) -> None:
    offered = await transports[0].offer()
    answered = await transports[1].answer(offered.description)
    task = asyncio.create_task(answered.open(30))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    offered.abandon()


@pytest.mark.parametrize("junk", [b"", b"\x00", b"nonsense" * 40, os.urandom(300), b"\x95" * 2048])
async def test_junk_descriptions_are_refused_by_name(transports: Pair, junk: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        await transports[1].answer(junk)
    offered = await transports[0].offer()
    with pytest.raises(ProtocolViolation):
        await offered.accept(junk, 1)


async def test_closing_a_transport_closes_its_links_and_can_be_repeated(transports: Pair) -> None:
    a, b = await open_pair(*transports)
    await transports[0].offer()
    await transports[0].close()
    await transports[0].close()
    async with asyncio.timeout(5):
        await a.ended.wait()
        await b.ended.wait()


async def test_several_links_between_the_same_two(transports: Pair) -> None:
    ends = [await open_pair(*transports) for _ in range(3)]
    for i, (a, _) in enumerate(ends):
        a.link.send(Lane.CONTROL, bytes([i]))
    for i, (_, b) in enumerate(ends):
        await b.count(1)
        assert bytes(b.messages[0][1]) == bytes([i])


async def links(x: Transport, y: Transport) -> tuple[Link, Link]:
    offered = await x.offer()
    answered = await y.answer(offered.description)
    a, b = await asyncio.gather(offered.accept(answered.description, 10), answered.open(10))
    return a, b
