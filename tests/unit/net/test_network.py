from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from agent.errors import (
    CallRefused,
    CallTimeout,
    HandshakeRejected,
    LinkClosed,
    NotReachable,
    ProtocolViolation,
    RemoteError,
)
from agent.identity import PeerId
from agent.net.network import Network, NetworkConfig, Reply, Request
from agent.net.transport import Lane
from agent.wire.config import WireConfig
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Heard, Town, until


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    yield town
    await town.close()
    assert not [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and not t.done()]


async def connected(town: Town) -> tuple[Network, Network]:
    alice, bob = town.join(ALICE), town.join(BOB)
    await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    await until(lambda: bob.is_connected(alice.peer_id))
    return alice, bob


async def test_calls_go_both_ways_with_headers_and_buffers(town: Town) -> None:
    alice, bob = await connected(town)
    big = os.urandom(3_000_000)
    reply = await alice.call(bob.peer_id, "echo", b"hello", [big, b"", b"x"], timeout_s=5)
    assert reply.header == b"hello" and [bytes(b) for b in reply.buffers] == [big, b"", b"x"]
    assert (await bob.call(alice.peer_id, "echo", timeout_s=5)).header == b""
    assert alice.stats.calls == 1 and alice.stats.calls_failed == 0 and alice.stats.bytes_sent > 3_000_000


async def test_peers_tells_kind_and_who_began(town: Town) -> None:
    alice, bob = await connected(town)
    mine, theirs = alice.peers()[bob.peer_id], bob.peers()[alice.peer_id]
    assert mine.kind == theirs.kind == "direct" and mine.initiator and not theirs.initiator
    assert town.log == [("bob", "opened", "alice"), ("alice", "opened", "bob")] or len(town.log) == 2


async def test_refusals_come_back_by_code(town: Town) -> None:
    alice, bob = await connected(town)

    async def refuse(request: Request) -> Reply:
        raise CallRefused("inputs-gone", "send them again")

    async def fail(request: Request) -> Reply:
        raise LinkClosed("some third peer left")

    async def crash(request: Request) -> Reply:
        raise KeyError("a bug")

    for name, handler in (("refuse", refuse), ("fail", fail), ("crash", crash)):
        bob.register(name, handler)
    for name, code in (("refuse", "inputs-gone"), ("fail", "failed"), ("crash", "internal-error"), ("none", "unknown-method")):
        with pytest.raises(CallRefused) as caught:
            await alice.call(bob.peer_id, name, timeout_s=5)
        assert caught.value.code == code
    assert alice.stats.calls_failed == 4
    assert (await alice.call(bob.peer_id, "echo", b"still here", timeout_s=5)).header == b"still here"


async def test_cancelling_a_call_cancels_its_handler(town: Town) -> None:
    alice, bob = await connected(town)
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Reply:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Reply()

    bob.register("slow", slow)
    task = asyncio.create_task(alice.call(bob.peer_id, "slow", timeout_s=60))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended.wait()


async def test_a_call_without_an_answer_times_out(town: Town) -> None:
    alice, bob = await connected(town)
    never = asyncio.Event()

    async def slow(request: Request) -> Reply:
        await never.wait()
        return Reply()

    bob.register("slow", slow)
    with pytest.raises(CallTimeout):
        await alice.call(bob.peer_id, "slow", timeout_s=0.05)


async def test_a_call_ends_when_the_link_does(town: Town) -> None:
    alice, bob = await connected(town)
    began = asyncio.Event()

    async def slow(request: Request) -> Reply:
        began.set()
        await asyncio.Event().wait()
        return Reply()

    bob.register("slow", slow)
    task = asyncio.create_task(alice.call(bob.peer_id, "slow", timeout_s=60))
    await began.wait()
    bob.disconnect(alice.peer_id, "enough")
    with pytest.raises(LinkClosed, match="enough"):
        await task
    assert not alice.peers() and not bob.peers()
    assert sorted(town.log[2:]) == [("alice", "closed", "bob"), ("bob", "closed", "alice")]


async def test_notifications(town: Town) -> None:
    alice, bob = await connected(town)
    heard = Heard(bob, "gossip")
    assert alice.notify(bob.peer_id, "gossip", b"news")
    await heard.count(1)
    assert heard.got == [(alice.peer_id, b"news")]
    assert not alice.notify(CHARLIE.peer_id, "gossip", b"news")
    assert alice.notify(bob.peer_id, "nobody-listens", b"")


async def test_a_violation_found_by_a_callback_closes_that_connection_only(town: Town) -> None:
    alice, bob = await connected(town)
    charlie = town.join(CHARLIE)
    await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)

    def reject(peer: PeerId, body: bytes) -> None:
        raise ProtocolViolation("not what was agreed")

    bob.on_notify("bad", reject)
    alice.notify(bob.peer_id, "bad", b"")
    await until(lambda: not alice.is_connected(bob.peer_id))
    assert (await charlie.call(bob.peer_id, "echo", b"ok", timeout_s=5)).header == b"ok"


@pytest.mark.parametrize("lane", list(Lane))
async def test_garbage_on_a_lane_closes_that_connection_with_its_name(town: Town, lane: Lane) -> None:
    alice, bob = await connected(town)
    reasons: list[str] = []
    alice.add_listener(lambda _: None, lambda _, why: reasons.append(why))
    town.fabric.links[0][0].send(lane, b"\xc1garbage")
    await until(lambda: not alice.peers() and not bob.peers())
    assert "ProtocolViolation" in reasons[0]


async def test_dials_at_the_same_time_share_one_offer(town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    await asyncio.gather(*(alice.dial(bob.peer_id, town.signaler, timeout_s=5) for _ in range(5)))
    await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    assert len(town.signaler.carried) == 1 and len(town.fabric.links) == 1


async def test_two_peers_that_dial_each_other_get_one_connection(town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    town.signaler.gate = asyncio.Event()
    dials = [
        asyncio.create_task(alice.dial(bob.peer_id, town.signaler, timeout_s=5)),
        asyncio.create_task(bob.dial(alice.peer_id, town.signaler, timeout_s=5)),
    ]
    await until(lambda: len(town.signaler.carried) == 2)
    town.signaler.gate.set()
    await asyncio.gather(*dials)
    await until(lambda: alice.is_connected(bob.peer_id) and bob.is_connected(alice.peer_id))
    assert len(town.fabric.links) == 1 and len(town.log) == 2
    assert alice.peers()[bob.peer_id].initiator, "the lower id's offer wins"
    assert (await bob.call(alice.peer_id, "echo", b"x", timeout_s=5)).header == b"x"


@pytest.mark.parametrize("broken", ["to the lower", "to the higher"])
async def test_if_they_dial_each_other_one_working_path_is_enough(town: Town, broken: str) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    town.signaler.gate = asyncio.Event()
    town.signaler.broken = {alice.peer_id if broken == "to the lower" else bob.peer_id}
    dials = [
        asyncio.create_task(alice.dial(bob.peer_id, town.signaler, timeout_s=5)),
        asyncio.create_task(bob.dial(alice.peer_id, town.signaler, timeout_s=5)),
    ]
    await until(lambda: len(town.signaler.carried) == 2)
    town.signaler.gate.set()
    await asyncio.gather(*dials)
    assert alice.is_connected(bob.peer_id) and bob.is_connected(alice.peer_id) and len(town.fabric.links) == 1


async def test_a_peer_that_lost_the_connection_unnoticed_can_come_back(town: Town) -> None:
    alice, bob = await connected(town)
    town.fabric.links[0][0].cut()
    bob.disconnect(alice.peer_id, "gone, and the cable with it")
    assert alice.is_connected(bob.peer_id) and not bob.is_connected(alice.peer_id)
    await bob.dial(alice.peer_id, town.signaler, timeout_s=5)
    await until(lambda: len(town.log) >= 6)
    assert town.log[-3:] != [] and len(alice.peers()) == len(bob.peers()) == 1
    assert [e for e in town.log if e[0] == "alice"] == [
        ("alice", "opened", "bob"),
        ("alice", "closed", "bob"),
        ("alice", "opened", "bob"),
    ]
    assert (await alice.call(bob.peer_id, "echo", b"x", timeout_s=5)).header == b"x"


async def test_an_unreachable_peer_is_an_error_that_says_so(town: Town) -> None:
    alice = town.join(ALICE)
    with pytest.raises(NotReachable, match="nobody carries"):
        await alice.dial(BOB.peer_id, town.signaler, timeout_s=5)
    with pytest.raises(NotReachable, match="no way to make one"):
        await alice.call(BOB.peer_id, "echo", timeout_s=5)
    with pytest.raises(NotReachable, match="not an id"):
        await alice.dial(PeerId(b"\x01" + bytes(31)), town.signaler, timeout_s=5)
    town.join(BOB)
    town.fabric.block("alice", "bob")
    with pytest.raises(NotReachable):
        await alice.dial(BOB.peer_id, town.signaler, timeout_s=5)
    town.signaler.gate = asyncio.Event()
    with pytest.raises(NotReachable, match=r"within 0\.02 s"):
        await alice.dial(BOB.peer_id, town.signaler, timeout_s=0.02)


async def test_callers_own_mistakes(town: Town) -> None:
    alice = town.join(ALICE)
    with pytest.raises(ValueError):
        await alice.dial(alice.peer_id, town.signaler, timeout_s=1)
    with pytest.raises(ValueError):
        await alice.call(alice.peer_id, "echo", timeout_s=1)
    with pytest.raises(ValueError):
        alice.register("echo", alice._handlers["echo"])


async def test_a_call_dials_through_the_dialer_once_for_all_callers(town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    dialed: list[PeerId] = []

    async def dialer(peer: PeerId) -> None:
        dialed.append(peer)
        await alice.dial(peer, town.signaler, timeout_s=5)

    alice.dialer = dialer
    replies = await asyncio.gather(*(alice.call(bob.peer_id, "echo", bytes([i]), timeout_s=5) for i in range(9)))
    assert [r.header for r in replies] == [bytes([i]) for i in range(9)] and dialed == [bob.peer_id]


async def test_after_a_failed_dial_calls_fail_at_once_for_a_while(town: Town) -> None:
    alice = town.join(ALICE)
    dialed: list[PeerId] = []

    async def dialer(peer: PeerId) -> None:
        dialed.append(peer)
        raise RemoteError("no route")

    alice.dialer = dialer
    for _ in range(3):
        with pytest.raises(NotReachable, match="no route"):
            await alice.call(BOB.peer_id, "echo", timeout_s=5)
    assert len(dialed) == 1 and alice.stats.calls_failed == 3


async def test_an_answer_of_another_peer_does_not_connect(town: Town) -> None:
    alice, bob, charlie = town.join(ALICE), town.join(BOB), town.join(CHARLIE)
    town.signaler.networks[BOB.peer_id] = charlie
    with pytest.raises(NotReachable, match="not for this peer"):
        await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    town.signaler.networks[BOB.peer_id] = bob
    town.signaler.alter = lambda answer: answer[:-1] + bytes([answer[-1] ^ 1])
    with pytest.raises(NotReachable, match="altered"):
        await alice.dial(bob.peer_id, town.signaler, timeout_s=5)


async def test_a_certificate_that_was_swapped_on_the_way_is_found(town: Town) -> None:
    """A relay that could alter descriptions would show in the fingerprints that the handshake signs."""
    transport = town.fabric.transport("alice")
    alice, bob = town.join(ALICE, transport=transport), town.join(BOB)
    connect = town.fabric.connect

    def meddle(a, b):  # type: ignore[no-untyped-def]
        link = connect(a, b)
        link.remote_fingerprint = bytes(32)
        return link

    town.fabric.connect = meddle  # type: ignore[method-assign]
    with pytest.raises((HandshakeRejected, LinkClosed)):
        await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    await until(lambda: not alice.peers() and not bob.peers())


async def test_offers_beyond_the_limit_are_refused_until_one_is_done(town: Town) -> None:
    town.config = NetworkConfig(answers_max=1, open_timeout_s=0.05)
    bob = town.join(BOB)
    alice, charlie = town.join(ALICE), town.join(CHARLIE)
    town.signaler.gate = asyncio.Event()
    dial = asyncio.create_task(alice.dial(bob.peer_id, town.signaler, timeout_s=5))
    await until(lambda: len(town.signaler.carried) == 1)
    await bob.answer(town.signaler.carried[0])
    town.signaler.gate = None
    with pytest.raises(NotReachable, match="too many connections at the moment"):
        await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)
    await asyncio.wait(bob._introducer._inbound.values())
    await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)
    dial.cancel()
    await asyncio.wait({dial})


async def test_an_offer_that_does_not_open_gives_way_after_its_grace(town: Town) -> None:
    town.config = NetworkConfig(answers_max=1, answer_grace_s=0)
    bob = town.join(BOB)
    alice, charlie = town.join(ALICE), town.join(CHARLIE)
    town.signaler.gate = asyncio.Event()
    dial = asyncio.create_task(alice.dial(bob.peer_id, town.signaler, timeout_s=5))
    await until(lambda: len(town.signaler.carried) == 1)
    await bob.answer(town.signaler.carried[0])
    town.signaler.gate = None
    await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)
    await until(lambda: not bob._introducer._opening_since and not bob._introducer._answering)
    dial.cancel()
    await asyncio.wait({dial})


async def test_a_peer_that_is_silent_is_noticed(town: Town) -> None:
    town.config = NetworkConfig(wire=WireConfig(ping_period_s=0.02, pings_unanswered_max=2))
    alice, _ = await connected(town)
    closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    alice.add_listener(lambda _: None, lambda _, why: closed.set_result(why))
    town.fabric.links[0][0].cut()
    async with asyncio.timeout(5):
        assert "silent" in await closed


async def test_connections_beyond_the_limit_are_refused(town: Town) -> None:
    town.config = NetworkConfig(connections_max=1)
    alice, bob = await connected(town)
    charlie = town.join(CHARLIE)
    with pytest.raises(NotReachable, match="as many connections"):
        await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)
    alice.disconnect(bob.peer_id, "make room")
    await until(lambda: not bob.peers())
    await charlie.dial(bob.peer_id, town.signaler, timeout_s=5)


async def test_a_dial_that_nobody_waits_for_ends(town: Town) -> None:
    alice, bob = town.join(ALICE), town.join(BOB)
    town.signaler.gate = asyncio.Event()
    dials = [asyncio.create_task(alice.dial(bob.peer_id, town.signaler, timeout_s=5)) for _ in range(2)]
    await until(lambda: len(town.signaler.carried) == 1)
    dials[0].cancel()
    await asyncio.wait({dials[0]})
    assert alice._introducer._attempts
    dials[1].cancel()
    await until(lambda: not alice._introducer._attempts and not alice._introducer._dials)


async def test_dials_beyond_the_limit_fail_at_once(town: Town) -> None:
    town.config = NetworkConfig(dials_max=1)
    alice = town.join(ALICE)
    town.signaler.gate = asyncio.Event()
    dial = asyncio.create_task(alice.dial(BOB.peer_id, town.signaler, timeout_s=5))
    await until(lambda: len(town.signaler.carried) == 1)
    with pytest.raises(NotReachable, match="too many"):
        await alice.dial(CHARLIE.peer_id, town.signaler, timeout_s=5)
    dial.cancel()
    await asyncio.wait({dial})


async def test_the_same_offer_is_not_answered_twice(town: Town) -> None:
    alice, bob = await connected(town)
    with pytest.raises(RemoteError, match="used before"):
        await bob.answer(town.signaler.carried[0])
    assert alice.is_connected(bob.peer_id)


async def test_closing_is_quick_and_final(town: Town) -> None:
    alice, bob = await connected(town)
    await alice.close()
    await alice.close()
    await until(lambda: not bob.peers())
    with pytest.raises(NotReachable):
        await alice.dial(bob.peer_id, town.signaler, timeout_s=1)
    with pytest.raises(NotReachable, match="too many connections at the moment"):
        await bob.dial(alice.peer_id, town.signaler, timeout_s=1)
