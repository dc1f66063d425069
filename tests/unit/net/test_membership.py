from __future__ import annotations

import asyncio
import random

import pytest

from agent.errors import JoinError, LocalError, NotReachable
from agent.identity import PeerId
from agent.net.membership import BOOK_MAX, CONTACTS_MAX, DIALS_MAX, ContactBook, Membership
from tests.virtual_loop import run

PEERS = [PeerId(bytes([i]) * 32) for i in range(100)]


class FakeNetwork:
    """Dials take a second, and fail for all but `reachable`."""

    def __init__(self, *reachable: PeerId) -> None:
        self.peer_id = PEERS[99]
        self.reachable = set(reachable)
        self.open: set[PeerId] = set()
        self.dialed: list[PeerId] = []
        self.at_once = self.most_at_once = 0
        self.error: Exception = NotReachable("not there")

    def peers(self) -> set[PeerId]:
        return self.open

    async def dial(self, peer: PeerId, signaler: object, *, timeout_s: float) -> None:
        self.dialed.append(peer)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        done = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1.0, done.set_result, None)
        try:
            await done
        finally:
            self.at_once -= 1
        if peer not in self.reachable:
            raise self.error
        self.open.add(peer)


def membership(network: FakeNetwork) -> Membership:
    return Membership(network, random.Random(0))  # type: ignore[arg-type]


def contacts(peers: list[PeerId]) -> list[tuple[PeerId, object]]:
    return [(peer, object()) for peer in peers]


def test_few_are_dialed_at_once_until_one_is_reached() -> None:
    async def story() -> None:
        network = FakeNetwork(PEERS[9])
        member = membership(network)
        await member.join(contacts(PEERS[:20]))  # type: ignore[arg-type]
        assert network.open == {PEERS[9]}
        assert network.most_at_once == DIALS_MAX
        assert len(network.dialed) < 20
        await member.close()

    run(story())


def test_a_peer_is_tried_by_each_way_and_one_after_the_other() -> None:
    async def story() -> None:
        network = FakeNetwork()
        member = membership(network)
        with pytest.raises(JoinError, match="none of 2 known peers"):
            await member.join(contacts([PEERS[0], PEERS[0], PEERS[1]]))  # type: ignore[arg-type]
        assert network.dialed == [PEERS[0], PEERS[1], PEERS[0]] and network.most_at_once == 2
        await member.close()

    run(story())


def test_contacts_are_bounded_and_we_are_none_of_them() -> None:
    async def story() -> None:
        network = FakeNetwork()
        member = membership(network)
        with pytest.raises(JoinError, match=f"none of {CONTACTS_MAX} known peers could be reached; the last said: not there"):
            await member.join(contacts([PEERS[99], *PEERS[: CONTACTS_MAX + 5]]))  # type: ignore[arg-type]
        assert network.dialed == PEERS[:CONTACTS_MAX]
        await member.close()

    run(story())


def test_being_reached_meanwhile_is_as_good() -> None:
    async def story() -> None:
        network = FakeNetwork()
        member = membership(network)
        asyncio.get_running_loop().call_later(0.5, network.open.add, PEERS[50])
        await member.join(contacts(PEERS[:1]))  # type: ignore[arg-type]
        await member.close()

    run(story())


def test_our_own_mistakes_are_raised() -> None:
    async def story() -> None:
        network = FakeNetwork()
        network.error = LocalError("no sockets left")
        member = membership(network)
        with pytest.raises(LocalError, match="no sockets"):
            await member.join(contacts(PEERS[:2]))  # type: ignore[arg-type]
        await member.close()

    run(story())


def test_when_everyone_is_lost_the_contacts_are_tried_ever_more_slowly_until_one_is_there() -> None:
    async def story() -> None:
        network = FakeNetwork(PEERS[0])
        member = membership(network)
        await member.join(contacts(PEERS[:1]))  # type: ignore[arg-type]
        member.peers_changed()
        network.reachable.clear()
        network.open.clear()
        network.dialed.clear()
        member.peers_changed()
        loop = asyncio.get_running_loop()
        waited = loop.create_future()
        loop.call_later(300.0, waited.set_result, None)
        await waited
        assert 6 <= len(network.dialed) <= 14
        network.reachable.add(PEERS[0])
        waited = loop.create_future()
        loop.call_later(80.0, waited.set_result, None)
        await waited
        assert network.open == {PEERS[0]}
        await member.close()

    run(story())


def test_the_book_remembers_the_latest() -> None:
    book = ContactBook()
    for peer in PEERS[: BOOK_MAX + 1]:
        book.remember(peer, f"ws://192.0.2.1:1/{peer}")
    book.remember(PEERS[1], "ws://192.0.2.1:2/new")
    entries = book.entries()
    assert len(entries) == BOOK_MAX
    assert entries[0] == (PEERS[1], "ws://192.0.2.1:2/new")
    assert PEERS[0] not in dict(entries)
    for bad in ("", "http://a", "ws://" + "x" * 200):
        book.remember(PEERS[70], bad)
    assert PEERS[70] not in dict(book.entries())
