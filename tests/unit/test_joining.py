"""First contact, with fakes of the signalers and a loop whose clock is ours."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.errors import CoordinatorUnreachable, JoinError
from agent.identity import Identity, PeerId
from agent.joining import (
    ADDRESSES_CACHED_MAX,
    CONTACTS_PER_ATTEMPT,
    AddressBook,
    Contact,
    FirstContact,
    JoinConfig,
    Sources,
    peer_of,
)


def peer(number: int) -> PeerId:
    return Identity.from_seed(bytes([number]) * 32).peer_id


def address(number: int) -> str:
    return f"ws://127.0.0.1:{7000 + number}/{peer(number)}"


@dataclass
class ByAddress:
    address: str

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        raise NotImplementedError


@dataclass
class AtRendezvous:
    peers: list[PeerId]
    connected: bool = True

    def waiting(self) -> list[PeerId]:
        return self.peers

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        raise NotImplementedError


@dataclass
class Door:
    """Stands for Overlay.join: opens for `alive` peers only."""

    alive: set[PeerId] = field(default_factory=set)
    attempts: list[list[PeerId]] = field(default_factory=list)
    opens_after: int = 0

    async def enter(self, contacts: Sequence[Contact]) -> None:
        self.attempts.append([p for p, _ in contacts])
        if contacts and (len(self.attempts) <= self.opens_after or not self.alive & {p for p, _ in contacts}):
            raise JoinError("nobody answers")


def sources(tmp_path: Path, **given: object) -> Sources:
    return Sources(own=peer(1), book=AddressBook(tmp_path / "peers.json"), signaler=ByAddress, **{"given": (), **given})  # type: ignore[arg-type]


def first_contact(origin: Sources, door: Door, *, may_found: bool = False, give_up_s: float = 90.0) -> FirstContact:
    quick = JoinConfig(first_wait_s=1e-6, wait_max_s=1e-5, give_up_s=give_up_s)
    return FirstContact(origin, door.enter, quick, rng=random.Random(0), may_found=may_found)


async def test_every_source_is_asked_and_nobody_twice(tmp_path: Path) -> None:
    async def listed() -> list[str]:
        return [address(4), address(2), "nonsense", address(1)]

    origin = sources(tmp_path, given=[address(2)], listed=listed, rendezvous=AtRendezvous([peer(5), peer(1)]))
    origin.book.met([address(3)])
    contacts = await origin.contacts(random.Random(0))
    assert [p for p, _ in contacts] == [peer(2), peer(3), peer(4), peer(5)]
    assert isinstance(contacts[0][1], ByAddress) and isinstance(contacts[3][1], AtRendezvous)


async def test_an_address_of_a_former_run_does_not_hide_the_present_one(tmp_path: Path) -> None:
    async def listed() -> list[str]:
        return [f"ws://127.0.0.1:9999/{peer(2)}"]

    origin = sources(tmp_path, listed=listed, rendezvous=AtRendezvous([peer(2)]))
    origin.book.met([address(2)])
    ways = [getattr(way, "address", "rendezvous") for _, way in await origin.contacts(random.Random(0))]
    assert ways == [address(2), f"ws://127.0.0.1:9999/{peer(2)}", "rendezvous"]


async def test_contacts_are_bounded(tmp_path: Path) -> None:
    many = [address(i) for i in range(2, 40)]
    waiting = AtRendezvous([peer(i) for i in range(50, 90)])
    contacts = await sources(tmp_path, given=many, rendezvous=waiting).contacts(random.Random(0))
    assert len(contacts) == 2 * CONTACTS_PER_ATTEMPT


async def test_stale_addresses_leave_room_for_those_that_the_coordinator_lists(tmp_path: Path) -> None:
    async def listed() -> list[str]:
        return [address(i) for i in range(60, 80)]

    origin = sources(tmp_path, listed=listed)
    origin.book.met([address(i) for i in range(2, 2 + 2 * CONTACTS_PER_ATTEMPT)])
    asked = [p for p, _ in await origin.contacts(random.Random(0))]
    assert asked[CONTACTS_PER_ATTEMPT:] == [peer(i) for i in range(60, 60 + CONTACTS_PER_ATTEMPT)]


async def test_a_dead_coordinator_leaves_the_cache(tmp_path: Path) -> None:
    async def listed() -> list[str]:
        raise CoordinatorUnreachable("away")

    sources(tmp_path).book.met([address(2)])
    door = Door(alive={peer(2)})
    origin = sources(tmp_path, listed=listed, rendezvous=AtRendezvous([], connected=False))
    assert await first_contact(origin, door).join() == 1


async def test_with_nobody_waiting_one_founds_the_overlay(tmp_path: Path) -> None:
    door = Door()
    assert await first_contact(sources(tmp_path, rendezvous=AtRendezvous([peer(1)])), door).join() == 0
    assert door.attempts == [[]]


async def test_stale_addresses_do_not_keep_one_from_founding(tmp_path: Path) -> None:
    door = Door()
    assert await first_contact(sources(tmp_path, given=[address(2)], rendezvous=AtRendezvous([])), door).join() == 0
    assert door.attempts == [[peer(2)], []]


async def test_it_tries_again_until_somebody_answers(tmp_path: Path) -> None:
    door = Door(alive={peer(2)}, opens_after=3)
    contact = first_contact(sources(tmp_path, given=[address(2)]), door)
    told: list[str] = []
    contact.on_why = told.append
    assert await contact.join() == 1
    assert len(door.attempts) == 4 and told == ["nobody answers"] * 3


async def test_a_bootstrap_peer_with_nobody_to_ask_founds_and_one_with_contacts_does_not(tmp_path: Path) -> None:
    assert await first_contact(sources(tmp_path), Door(), may_found=True).join() == 0
    with pytest.raises(JoinError, match="--bootstrap"):
        await first_contact(sources(tmp_path, given=[address(2)]), Door(), may_found=True, give_up_s=1e-9).join()


async def test_without_anyone_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JoinError, match="no peer is known yet.*--bootstrap"):
        await first_contact(sources(tmp_path, rendezvous=AtRendezvous([], connected=False)), Door(), give_up_s=1e-9).join()


async def test_alone_again_it_looks_for_others(tmp_path: Path) -> None:
    door = Door(alive={peer(2), peer(3)})
    contact = first_contact(sources(tmp_path, given=[address(2), address(3)]), door)
    await contact.reunite(lambda: {peer(2)})
    assert door.attempts == [[peer(3)]]
    door.alive.clear()
    await contact.reunite(set)  # failing is not an error


def test_the_address_book_survives_and_is_bounded(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    book.met([address(i) for i in range(2, 2 + ADDRESSES_CACHED_MAX)])
    book.met([address(200), "http://elsewhere", "ws://host:1/short"])
    again = AddressBook(tmp_path / "peers.json").addresses
    assert len(again) == ADDRESSES_CACHED_MAX and again[0] == address(200)
    (tmp_path / "peers.json").write_bytes(b"\xff{")
    assert AddressBook(tmp_path / "peers.json").addresses == []


def test_a_full_disk_does_not_stop_the_address_book(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = AddressBook(tmp_path / "gone" / "peers.json")
    book.met([address(2)])
    assert book.addresses == [address(2)] and "cannot remember" in caplog.text


@pytest.mark.parametrize("text", ["", "ws://host:1", "http://host:1/" + "a" * 52, "ws://host:1/" + "1" * 52, "ws://" + "h" * 300])
def test_what_is_no_address(text: str) -> None:
    assert peer_of(text) is None


def test_an_address_names_its_peer() -> None:
    assert peer_of(address(2)) == peer(2)
