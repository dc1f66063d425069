"""Custodians of several hosts over one record store, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from agent.errors import LocalError
from agent.experts import records
from agent.experts.custodian import Clocks, Custodian
from agent.experts.directory import Directory
from agent.experts.records import HOSTS, HostRecord, Lease
from agent.experts.server import HostedInfo
from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.manifest import GPTModel, Manifest, Rules
from agent.net.overlay import Entry
from tests import virtual_loop
from tests.unit.experts.record_store import UNIX, OverlayOf, RecordStore

MANIFEST = Manifest(
    name="t", revision=1, title="t", model=GPTModel(layers=1, grid=(2, 4)), rules=Rules(lease_s=12.0, experts_per_agent_max=100)
)
GRID = MANIFEST.model.grids()[0]
GRID_FIRST = ExpertId("ffn0", (0, 0))


class LoopClock:
    """The running loop's."""

    def __call__(self) -> float:
        return asyncio.get_running_loop().time()

    def unix(self) -> float:
        return UNIX + self()


@dataclass
class FakeServer:
    """Hosts without computing. A version is the number of times that the test let an expert learn."""

    versions: dict[ExpertId, int] = field(default_factory=dict)
    room: int = 1000

    async def host(self, uid: ExpertId, state: ExpertState | None = None) -> None:
        await asyncio.sleep(0)
        if len(self.versions) >= self.room:
            raise LocalError("full")
        self.versions.setdefault(uid, state.version if state else 0)

    async def drop(self, uid: ExpertId) -> ExpertState | None:
        version = self.versions.pop(uid, None)
        await asyncio.sleep(0)
        return None if version is None else ExpertState(version, {"weights/w": torch.zeros(1)})

    def hosted(self) -> Mapping[ExpertId, HostedInfo]:
        return {uid: HostedInfo(version, 0, 0) for uid, version in self.versions.items()}


@dataclass
class Site:
    peer: PeerId
    server: FakeServer
    custodian: Custodian
    directory: Directory
    running: asyncio.Task[None]
    told: list[tuple[str, ExpertId, object]] = field(default_factory=list)

    async def crash(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        self.server.versions.clear()

    async def leave(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.custodian.release()


class Bench:
    def __init__(self) -> None:
        self.clock = LoopClock()
        self.store = RecordStore(self.clock)  # type: ignore[arg-type]
        self.sites: list[Site] = []

    def start(self, capacity: int = 100, *, manifest: Manifest = MANIFEST) -> Site:
        peer = PeerId(bytes([len(self.sites) + 1]) * 32)
        overlay, server = OverlayOf(self.store, peer), FakeServer()
        directory = Directory(overlay, manifest.model.grids(), clock=self.clock, unix=self.clock.unix)
        clocks = Clocks(monotonic=self.clock, unix=self.clock.unix)
        custodian = Custodian(overlay, server, manifest, capacity=capacity, directory=directory, clocks=clocks)
        site = Site(peer, server, custodian, directory, asyncio.create_task(custodian.run()))
        custodian.on_claimed = lambda uid, epoch: site.told.append(("claimed", uid, epoch))
        custodian.on_lost = lambda uid, reason: site.told.append(("lost", uid, reason))
        self.sites.append(site)
        return site

    def holders(self, uid: ExpertId) -> list[Site]:
        return [s for s in self.sites if uid in s.server.versions]

    def is_settled(self) -> bool:
        return all(len(self.holders(uid)) == 1 for uid in GRID) and all(
            s.custodian.held().keys() == s.server.versions.keys() for s in self.sites if not s.running.done()
        )

    async def stop(self) -> None:
        for site in self.sites:
            site.running.cancel()
        await asyncio.gather(*(s.running for s in self.sites), return_exceptions=True)


def on_virtual_clock(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs `test(bench)`; `after` in it turns the clock."""

    def wrapped() -> None:
        async def main() -> None:
            bench = Bench()
            try:
                await test(bench)
            finally:
                await bench.stop()

        virtual_loop.run(main())

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    return wrapped


async def after(seconds: float) -> None:
    """Turn the virtual clock."""
    loop = asyncio.get_running_loop()
    passed = loop.create_future()
    loop.call_later(seconds, passed.set_result, None)
    await passed


@on_virtual_clock
async def test_three_hosts_share_and_publish(bench: Bench) -> None:
    for _ in range(3):
        bench.start()
        await after(1.0)
    await after(25.0)
    assert bench.is_settled()
    assert sorted(len(s.server.versions) for s in bench.sites) in ([2, 3, 3], [2, 2, 4])
    found = bench.store.get_many(["ffn0.", "ffn0.0.", "ffn0.1.", HOSTS])
    assert {k.subkey for k in found["ffn0."]} == {"0", "1"}
    for name in ("ffn0.0.", "ffn0.1."):
        assert {k.subkey for k in found[name]} == {"0", "1", "2", "3"}
        for kept in found[name]:
            assert records.decode(kept.value, Lease).uid == name + kept.subkey
    assert [records.decode(k.value, HostRecord) for k in found[HOSTS]] == [HostRecord(100, True)] * 3
    assert bench.sites[0].directory.alive() == set(GRID)


@on_virtual_clock
async def test_leases_carry_the_version(bench: Bench) -> None:
    site = bench.start()
    await after(20.0)
    uid = ExpertId("ffn0", (0, 1))
    site.server.versions[uid] = 77
    await after(5.0)
    (kept,) = bench.store.get_many([str(uid)])[str(uid)]
    lease = records.read_lease(kept, uid)
    assert (lease.version, lease.host, lease.epoch) == (77, site.peer.raw, site.custodian.held()[uid])
    assert kept.expires_at - bench.clock.unix() <= 12.0


@on_virtual_clock
async def test_experts_are_served_before_their_leases_can_be_read(bench: Bench) -> None:
    early: list[str] = []

    def check(owner: PeerId, entries: list[Entry]) -> None:
        serving = {str(uid) for s in bench.sites if s.peer == owner for uid in s.server.versions}
        early.extend(e.name for e in entries if e.name.count(".") == 2 and not e.name.endswith(".") and e.name not in serving)

    bench.store.on_put = check  # type: ignore[assignment]
    bench.start()
    await after(20.0)
    assert bench.is_settled()
    assert not early


@on_virtual_clock
async def test_a_crashed_hosts_experts_are_taken_over(bench: Bench) -> None:
    a, b = bench.start(), bench.start()
    await after(15.0)
    assert a.server.versions
    await a.crash()
    await after(16.0)
    assert bench.is_settled()
    assert b.directory.alive() == set(GRID)
    assert len(b.server.versions) == len(GRID)


@on_virtual_clock
async def test_leaving_gives_up_at_once(bench: Bench) -> None:
    a, b = bench.start(), bench.start()
    await after(15.0)
    held = set(a.server.versions)
    assert held
    await a.leave()
    assert a.server.versions == {}
    assert a.custodian.held() == {}
    assert {(what, uid) for what, uid, why in a.told if why == "left"} == {("lost", uid) for uid in held}
    await after(8.0)
    assert bench.is_settled()
    assert len(b.server.versions) == len(GRID)


@on_virtual_clock
async def test_a_host_that_is_cut_off_drops_and_picks_up_where_it_was(bench: Bench) -> None:
    """Nobody else is there: after the silence it claims its experts again, and they have forgotten nothing."""
    site = bench.start()
    await after(20.0)
    epochs = dict(site.custodian.held())
    for uid in site.server.versions:
        site.server.versions[uid] = 5
    bench.store.silent = True
    await after(13.0)
    assert site.server.versions == {}
    bench.store.silent = False
    await after(16.0)
    assert site.server.versions == dict.fromkeys(GRID, 5)
    assert all(epoch > epochs[uid] for uid, epoch in site.custodian.held().items())
    assert ("lost", GRID_FIRST, "lapsed") in site.told


@on_virtual_clock
async def test_what_somebody_else_took_over_is_not_picked_up(bench: Bench) -> None:
    site = bench.start()
    await after(20.0)
    bench.store.silent = True
    await after(13.0)
    bench.store.silent = False
    uid = GRID_FIRST
    other = PeerId(b"z" * 32)
    value = records.encode(Lease(str(uid), other.raw, 2**40, 1))
    bench.store.put_many(other, [Entry(name=str(uid), value=value, ttl_s=10.0)])
    await after(5.0)
    assert uid not in site.server.versions
    await after(30.0)  # the other one is gone: untrained again, for there is nothing better
    assert site.server.versions[uid] == 0


@on_virtual_clock
async def test_a_lost_expert_is_dropped(bench: Bench) -> None:
    site = bench.start()
    await after(20.0)
    other = PeerId(b"z" * 32)
    value = records.encode(Lease(str(GRID_FIRST), other.raw, 2**40, 1))
    bench.store.put_many(other, [Entry(name=str(GRID_FIRST), value=value, ttl_s=10.0)])
    await after(2.0)
    assert GRID_FIRST not in site.server.versions
    assert site.told[-1] == ("lost", GRID_FIRST, "lost")


@on_virtual_clock
async def test_what_the_server_cannot_hold_is_not_published(bench: Bench) -> None:
    site = bench.start()
    site.server.room = 3
    await after(20.0)
    assert len(site.server.versions) == 3
    published = [uid for uid in GRID if bench.store.get_many([str(uid)])[str(uid)]]
    assert set(published) == set(site.server.versions)


@on_virtual_clock
async def test_a_name_that_nobody_stores_is_given_up(bench: Bench) -> None:
    bench.store.full.add(str(GRID_FIRST))
    site = bench.start()
    await after(20.0)
    assert site.server.versions.keys() == set(GRID) - {GRID_FIRST}
    bench.store.full.clear()
    await after(5.0)
    assert site.server.versions.keys() == set(GRID)


@on_virtual_clock
async def test_bad_host_records_are_left_out(bench: Bench) -> None:
    other = PeerId(b"z" * 32)
    good = records.encode(HostRecord(100, True))
    for subkey, value in ((str(PeerId(b"y" * 32)), good), (str(other), b"\xc1"), ("", good)):
        bench.store.put_many(other, [Entry(name=HOSTS, subkey=subkey, value=value, ttl_s=1000.0)])
    site = bench.start()
    await after(3.0)
    assert len(site.server.versions) == 3  # still in its grace: nobody settled was met
    await after(15.0)
    assert bench.is_settled()


@on_virtual_clock
async def test_what_a_host_acts_on_is_read_carefully(bench: Bench) -> None:
    """A liar may answer an eager read: that an expert is vacant, or that nobody else claims what we hold, is not believed so."""
    bench.store.hidden.update(map(str, GRID))
    first = bench.start(4)
    await after(15.0)
    bench.start(8)
    held = set(first.server.versions)
    await after(30.0)
    assert bench.is_settled() and held == set(first.server.versions)
    careful = [names for names, eager in zip(bench.store.reads, bench.store.eager, strict=True) if not eager]
    assert all(str(uid) in {name for names in careful for name in names} for uid in first.server.versions)
    assert not any(HOSTS in names for names in careful)


@on_virtual_clock
async def test_many_host_records_are_read_less_often(bench: Bench) -> None:
    def reads_of_hosts() -> int:
        return sum(HOSTS in names for names in bench.store.reads)

    bench.start()
    await after(12.0)
    alone = reads_of_hosts()
    assert alone >= 8, "with every read of leases"
    for i in range(150):
        peer = PeerId(i.to_bytes(2, "big") * 16)
        value = records.encode(HostRecord(100, True))
        bench.store.put_many(peer, [Entry(name=HOSTS, subkey=str(peer), value=value, ttl_s=1000.0)])
    await after(2.0)
    before = reads_of_hosts()
    await after(24.0)
    assert 6 <= reads_of_hosts() - before <= 8


@on_virtual_clock
async def test_names_that_cannot_be_read_are_not_claimed(bench: Bench) -> None:
    bench.store.unread.add(str(GRID_FIRST))
    site = bench.start()
    await after(20.0)
    assert site.server.versions.keys() == set(GRID) - {GRID_FIRST}


@on_virtual_clock
async def test_an_agent_with_no_room_does_nothing(bench: Bench) -> None:
    site = bench.start(capacity=0)
    await asyncio.wait([site.running])
    site.running.result()
    await site.custodian.release()
    assert bench.store.reads == []
    assert bench.store.records == {}


@on_virtual_clock
async def test_the_rules_limit_what_one_agent_takes(bench: Bench) -> None:
    manifest = Manifest(name="t", revision=1, title="t", model=MANIFEST.model, rules=Rules(experts_per_agent_max=3))
    site = bench.start(manifest=manifest)
    await after(20.0)
    assert len(site.server.versions) == 3
    assert site.custodian.vacant() == 5


def test_the_test_clock_catches_a_stand_still() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        virtual_loop.run(forever(), limit_s=1.0)
