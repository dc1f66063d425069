"""One keeper, fed by hand."""

from __future__ import annotations

import pytest

from agent.experts.lease_events import Drop, Effect, Host, Leave, Put, Scan, Scanned, SeenLease, Stored
from agent.experts.leases import HOSTS_MAX, PUTS_MAX, LeaseConfig, LeaseKeeper
from agent.experts.records import HostRecord, Lease, affinity
from agent.grid import ExpertId, Grid
from agent.identity import PeerId

GRID = Grid("ffn0", (4, 4))
ONE = Grid("ffn0", (1,))
UID = ExpertId("ffn0", (0,))
CONFIG = LeaseConfig()
ME, OTHER = sorted((PeerId(b"a" * 32), PeerId(b"b" * 32)), key=lambda p: affinity(p.raw, str(UID)))
"""At equal epochs ME wins UID."""


def keeper(capacity: int = 10, grid: Grid = ONE, config: LeaseConfig = CONFIG, me: PeerId = ME) -> LeaseKeeper:
    return LeaseKeeper(me, list(grid), capacity, config)


def only(effects: list[Effect], kind: type) -> list[Effect]:
    return [e for e in effects if isinstance(e, kind)]


class Hand:
    """Drives a keeper of one expert."""

    def __init__(self, k: LeaseKeeper | None = None) -> None:
        self.keeper = k or keeper()
        self.puts: list[Put] = []
        self.scans: list[Scan] = []
        self.take(self.keeper.tick(0.0))

    def take(self, effects: list[Effect]) -> list[Effect]:
        self.puts += [e for e in effects if isinstance(e, Put)]
        self.scans += [e for e in effects if isinstance(e, Scan)]
        return effects

    def tick(self, now: float) -> list[Effect]:
        return self.take(self.keeper.tick(now))

    def scanned(self, now: float, *seen: SeenLease, read: bool = True) -> list[Effect]:
        leases = {UID: seen} if read else {}
        return self.take(self.keeper.handle(Scanned(self.scans[-1].scan, leases, {}, 50), now))

    def stored(self, now: float, *, ok: bool = True) -> list[Effect]:
        return self.take(self.keeper.handle(Stored(self.puts[-1].put, frozenset([UID] if ok else [])), now))

    def claim(self) -> Put:
        """Claimed at 1.2, stored at 1.3, confirmed at 1.4."""
        self.scanned(0.1)
        self.tick(1.2)
        self.scanned(1.2)
        claim = self.puts[-1]
        self.stored(1.3)
        self.scanned(1.4, mine(claim.leases[0][1], 13.2))
        return claim


def lease(host: PeerId, epoch: int, expires: float) -> SeenLease:
    return SeenLease(Lease(str(UID), host.raw, epoch, 0), expires)


def mine(epoch: int, expires: float) -> SeenLease:
    return lease(ME, epoch, expires)


def test_a_claim_in_order() -> None:
    hand = Hand()
    assert [type(e) for e in hand.scans + hand.puts] == [Scan, Put]
    assert hand.puts[0].leases == ()  # the host record alone
    assert not only(hand.scanned(0.1), Host)  # one read is no vacancy
    assert hand.keeper.vacant() == 1
    hand.tick(1.2)
    effects = hand.scanned(1.25)
    assert effects[:2] == [Host(UID, 50), Put(hand.puts[-1].put, ((UID, 50),), False, 12.0)]
    assert hand.keeper.held() == {UID: 50}
    assert hand.keeper.vacant() == 0
    assert only(hand.stored(1.3), Scan)  # confirms at once


def test_the_epoch_is_above_any_that_was_read() -> None:
    hand = Hand()
    hand.scanned(0.1, lease(OTHER, 70, 0.05))  # expired, yet it was there
    hand.tick(1.2)
    hand.scanned(1.2)
    assert hand.keeper.held() == {UID: 71}


def test_a_claim_that_nobody_stored_is_given_up() -> None:
    hand = Hand()
    hand.scanned(0.1)
    hand.tick(1.2)
    hand.scanned(1.2)
    assert hand.stored(1.3, ok=False) == [Drop(UID, "unstored")]
    assert hand.keeper.held() == {}


@pytest.mark.parametrize(
    ("host_epoch", "dropped"),
    [(49, False), (50, False), (51, True)],
)
def test_settling_as_the_one_with_the_lower_hash(host_epoch: int, dropped: bool) -> None:
    hand = Hand()
    hand.claim()
    hand.tick(2.6)
    effects = hand.scanned(2.7, mine(50, 13.0), lease(OTHER, host_epoch, 14.0))
    assert effects == ([Drop(UID, "lost")] if dropped else [])


def test_settling_as_the_one_with_the_higher_hash() -> None:
    hand = Hand(keeper(me=OTHER))
    hand.scanned(0.1)
    hand.tick(1.2)
    hand.scanned(1.2)
    hand.stored(1.3)
    assert only(hand.scanned(1.4, mine(50, 13.0)), Drop) == [Drop(UID, "lost")]
    assert hand.keeper.held() == {}


def test_an_expired_rival_does_not_count() -> None:
    hand = Hand()
    hand.claim()
    hand.tick(2.6)
    assert hand.scanned(2.7, mine(50, 13.0), lease(OTHER, 99, 2.7)) == []


def test_renewed_every_third_of_a_lease() -> None:
    hand = Hand()
    claim = hand.claim()
    hand.tick(4.0)
    assert hand.puts[-1].leases == claim.leases
    before = len(hand.puts)
    hand.tick(7.9)
    assert len(hand.puts) == before
    hand.tick(8.0)
    assert len(hand.puts) == before + 1


def read_on(hand: Hand, until: float, *, found: bool = True) -> list[Effect]:
    """Answer every scan at once; fail every put."""
    drops: list[Effect] = []
    at = 1.4
    while (due := hand.keeper.next_deadline()) is not None and due <= until:
        at = max(at, due)
        puts, scans = len(hand.puts), len(hand.scans)
        drops += only(hand.tick(at), Drop)
        if len(hand.scans) > scans:
            drops += only(hand.scanned(at, mine(50, at + 1), read=found), Drop)
        if len(hand.puts) > puts:
            drops += only(hand.stored(at, ok=not found), Drop)
    return drops


def test_fenced_when_renewals_fail() -> None:
    hand = Hand()
    hand.claim()
    assert read_on(hand, 13.19) == []
    assert len(hand.puts) > 8  # it kept trying
    assert read_on(hand, 13.21) == [Drop(UID, "lapsed")]
    assert hand.keeper.held() == {}


def test_fenced_when_reads_fail() -> None:
    hand = Hand()
    hand.claim()
    assert read_on(hand, 13.2, found=False) == []
    assert read_on(hand, 13.4, found=False) == [Drop(UID, "lapsed")]  # the last good read was sent at 1.3


def test_fenced_before_anything_else_is_done_after_a_long_stop() -> None:
    hand = Hand()
    hand.claim()
    effects = hand.tick(100.0)
    assert effects[0] == Drop(UID, "lapsed")
    assert hand.puts[-1].leases == ()


def test_whoever_lapsed_claims_again_first() -> None:
    hand = Hand()
    hand.claim()
    hand.tick(100.0)
    hosts = {OTHER: (HostRecord(100, True), 200.0)}
    for now in (100.0, 101.2):
        hand.tick(now)
        effects = hand.take(hand.keeper.handle(Scanned(hand.scans[-1].scan, {UID: ()}, hosts, 150), now))
    assert only(effects, Host) == [Host(UID, 150)]
    assert hand.keeper.held() == {UID: 150}


def test_a_stored_lease_that_cannot_be_found_is_put_again_soon() -> None:
    hand = Hand()
    hand.claim()
    hand.tick(2.6)
    hand.scanned(2.6)
    before = len(hand.puts)
    hand.tick(2.6 + CONFIG.retry_s)
    assert len(hand.puts) == before + 1


def test_a_remembered_lease_is_no_vacancy_until_it_expires() -> None:
    hand = Hand()
    hand.scanned(0.1, lease(OTHER, 5, 10.0))
    for i in range(1, 8):
        hand.tick(1.2 * i)
        hand.scanned(1.2 * i)
        assert hand.keeper.vacant() == 0
    hand.tick(10.0)
    hand.scanned(10.0)
    assert hand.keeper.vacant() == 1


@pytest.mark.parametrize(("late", "claimed"), [(CONFIG.fresh_s - 0.01, True), (CONFIG.fresh_s, False)])
def test_a_read_that_took_long_is_no_reason_for_a_claim(late: float, claimed: bool) -> None:
    hand = Hand()
    hand.scanned(0.1)
    hand.tick(2.0)
    assert bool(only(hand.scanned(2.0 + late), Host)) == claimed


def test_answers_to_old_questions_are_ignored() -> None:
    hand = Hand()
    hand.claim()
    rival = lease(OTHER, 99, 50.0)
    assert hand.keeper.handle(Scanned(12345, {UID: [rival]}, {}, 50), 1.5) == []
    assert hand.keeper.handle(Stored(12345, frozenset()), 1.5) == []
    assert hand.keeper.held()


def test_a_scan_that_is_never_answered_is_given_up() -> None:
    hand = Hand()
    hand.tick(11.9)
    assert len(hand.scans) == 1
    hand.tick(12.0)
    assert len(hand.scans) == 2


def test_puts_under_way_are_limited() -> None:
    config = LeaseConfig(lease_s=12.0)
    hand = Hand(keeper(config=config))
    hand.claim()
    hand.keeper._puts = {i: (5.0, {}) for i in range(1000, 1000 + PUTS_MAX - 1)}
    hand.tick(8.0)
    assert len(hand.puts) == 3  # at the limit
    hand.tick(12.0)
    assert len(hand.puts) == 3


def test_claims_per_read_are_limited() -> None:
    k = keeper(100, GRID, LeaseConfig(claims_max=5, assumed_hosts=1))
    claimed = []
    for now in (0.0, 1.2, 2.4):
        (scan,) = only(k.tick(now), Scan)
        assert isinstance(scan, Scan)
        effects = k.handle(Scanned(scan.scan, dict.fromkeys(scan.uids, ()), {}, 50), now)
        claimed.append(len(only(effects, Host)))
    assert claimed == [0, 5, 5]


def test_hosts_looked_at_are_limited() -> None:
    k = keeper()
    (scan,) = only(k.tick(0.0), Scan)
    assert isinstance(scan, Scan)
    hosts = {PeerId(i.to_bytes(32, "big")): (HostRecord(1, False), 100.0) for i in range(HOSTS_MAX + 1)}
    k.handle(Scanned(scan.scan, {}, hosts, 50), 0.1)
    assert len(k._hosts) == HOSTS_MAX


def test_rounds_cover_all_and_always_what_is_held() -> None:
    k = keeper(100, GRID, LeaseConfig(scan_uids_max=5))
    seen: list[tuple[ExpertId, ...]] = []
    now = 0.0
    for _ in range(5):
        (scan,) = only(k.tick(now), Scan)
        assert isinstance(scan, Scan)
        seen.append(scan.uids)
        k.handle(Scanned(scan.scan, {}, {}, 50), now)
        now += CONFIG.scan_s
    assert all(len(uids) == 5 for uids in seen)
    assert {uid for uids in seen for uid in uids} == set(GRID)


def test_an_agent_without_room_publishes_and_claims_nothing() -> None:
    hand = Hand(keeper(0))
    assert hand.puts == []
    hand.scanned(0.1)
    hand.tick(1.2)
    hand.scanned(1.2)
    assert hand.puts == []
    assert hand.keeper.held() == {}


def test_leaving() -> None:
    hand = Hand()
    hand.claim()
    effects = hand.keeper.handle(Leave(), 5.0)
    assert effects[0] == Drop(UID, "left")
    assert isinstance(effects[1], Put)
    assert effects[1].ttl_s == CONFIG.release_s
    assert hand.keeper.handle(Leave(), 5.0) == []
    assert hand.tick(1000.0) == []


def test_unusable_settings() -> None:
    for bad in ({"lease_s": 0}, {"assumed_hosts": 0}, {"scan_uids_max": 0}, {"claims_max": 0}):
        with pytest.raises(ValueError, match="unusable"):
            LeaseConfig(**bad)  # type: ignore[arg-type]
