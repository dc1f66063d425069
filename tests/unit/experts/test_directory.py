from __future__ import annotations

import asyncio
import threading

import pytest

from agent.errors import CallTimeout
from agent.experts import records
from agent.experts.directory import Directory, DirectoryConfig
from agent.experts.records import Lease
from agent.grid import ExpertId, Grid
from agent.identity import PeerId
from agent.net.overlay import Entry
from tests.unit.experts.record_store import Clock, OverlayOf, RecordStore

GRIDS = [Grid("ffn0", (2, 3)), Grid("ffn1", (2, 3))]
A, B = ExpertId("ffn0", (0, 1)), ExpertId("ffn0", (1, 2))
ALICE, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)
CONFIG = DirectoryConfig(lease_s=12.0)


class Bench:
    def __init__(self, config: DirectoryConfig = CONFIG) -> None:
        self.clock = Clock()
        self.store = RecordStore(self.clock)
        self.directory = Directory(OverlayOf(self.store, BOB), GRIDS, config, clock=self.clock, unix=self.clock.unix)

    def lease(self, uid: ExpertId, host: PeerId = ALICE, epoch: int = 1, ttl_s: float = 12.0, version: int = 0) -> None:
        value = records.encode(Lease(str(uid), host.raw, epoch, version))
        self.store.put_many(host, [Entry(name=str(uid), value=value, ttl_s=ttl_s)])

    async def refreshed(self) -> frozenset[ExpertId]:
        await self.directory.refresh()
        return self.directory.alive()

    def host_of(self, uid: ExpertId) -> PeerId | None:
        located = self.directory.locate(uid)
        return located.host if located else None


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_live_leases_are_found_with_their_prefixes(bench: Bench) -> None:
    bench.lease(A, ALICE, 3, version=17)
    bench.lease(B, BOB)
    assert await bench.refreshed() == {A, B}
    located = bench.directory.locate(A)
    assert located is not None
    assert (located.uid, located.host, located.epoch, located.version) == (A, ALICE, 3, 17)
    assert bench.directory.children("ffn0.") == (0, 1)
    assert bench.directory.children("ffn0.0.") == (1,)
    assert bench.directory.children("ffn0.1.") == (2,)
    assert bench.directory.children("ffn1.") == ()
    assert bench.directory.locate(ExpertId("ffn1", (0, 0))) is None


async def test_a_lease_ends_with_no_further_read(bench: Bench) -> None:
    bench.lease(A, ttl_s=5.0)
    bench.lease(B, ttl_s=9.0)
    await bench.refreshed()
    bench.clock.now += 4.9
    assert bench.directory.alive() == {A, B}
    bench.clock.now += 0.1
    assert bench.directory.alive() == {B}
    assert bench.directory.children("ffn0.") == (1,)
    bench.clock.now += 4.0
    assert bench.directory.alive() == frozenset()


async def test_no_record_is_believed_longer_than_a_lease(bench: Bench) -> None:
    bench.lease(A, ttl_s=3600.0)
    await bench.refreshed()
    bench.clock.now += 12.0
    assert bench.directory.alive() == frozenset()
    assert await bench.refreshed() == {A}


async def test_the_same_object_while_nothing_changes(bench: Bench) -> None:
    bench.lease(A)
    first = await bench.refreshed()
    bench.lease(A)
    assert await bench.refreshed() is first
    bench.lease(B)
    assert await bench.refreshed() is not first


async def test_of_several_leases_the_one_that_counts(bench: Bench) -> None:
    bench.lease(A, ALICE, 5)
    bench.lease(A, BOB, 4)
    await bench.refreshed()
    assert bench.host_of(A) == ALICE
    bench.lease(A, BOB, 6)
    await bench.refreshed()
    assert bench.host_of(A) == BOB


async def test_bad_records_are_left_out(bench: Bench) -> None:
    forged = records.encode(Lease(str(A), ALICE.raw, 99, 0))
    bench.store.put_many(BOB, [Entry(name=str(A), value=forged, ttl_s=12.0), Entry(name=str(B), value=b"\xc1", ttl_s=12.0)])
    assert await bench.refreshed() == frozenset()


async def test_a_read_that_finds_nothing_ends_no_lease(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.store.records.clear()
    assert await bench.refreshed() == {A}
    bench.store.unread.add(str(A))
    assert await bench.refreshed() == {A}


async def test_a_released_lease_ends_soon(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.lease(A, ttl_s=1.0)
    assert await bench.refreshed() == {A}
    bench.clock.now += 1.0
    assert bench.directory.alive() == frozenset()


async def test_a_failed_refresh_is_told_and_changes_nothing(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.store.silent = True
    with pytest.raises(CallTimeout):
        await bench.directory.refresh()
    assert bench.directory.alive() == {A}


async def test_a_suspect_is_away_for_a_while_and_longer_each_time(bench: Bench) -> None:
    bench.lease(A)
    bench.lease(B)
    await bench.refreshed()
    for hold in (1.0, 2.0, 4.0):
        bench.directory.mark_dead(A, ALICE)
        assert bench.directory.alive() == {B}
        assert bench.directory.locate(A) is None
        assert bench.directory.children("ffn0.") == (1,)
        bench.clock.now += hold - 0.01
        assert bench.directory.alive() == {B}
        bench.clock.now += 0.01
        assert bench.directory.alive() == {A, B}


async def test_suspicion_has_a_limit() -> None:
    bench = Bench(DirectoryConfig(lease_s=1000.0, suspect_s=1.0, suspect_max_s=16.0))
    bench.lease(A, ttl_s=1000.0)
    await bench.refreshed()
    for _ in range(50):
        bench.directory.mark_dead(A, ALICE)
    bench.clock.now += 15.9
    assert bench.directory.alive() == frozenset()
    bench.clock.now += 0.1
    assert bench.directory.alive() == {A}


async def test_a_renewal_forgives_a_first_failure_only(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.directory.mark_dead(A, ALICE)
    bench.lease(A)
    assert await bench.refreshed() == {A}
    bench.directory.mark_dead(A, ALICE)
    bench.directory.mark_dead(A, ALICE)
    bench.lease(A)
    assert await bench.refreshed() == frozenset()
    bench.lease(A, epoch=2)
    assert await bench.refreshed() == {A}


async def test_a_new_host_is_not_suspected(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.directory.mark_dead(A, ALICE)
    bench.directory.mark_dead(A, ALICE)
    bench.lease(A, BOB, 2)
    await bench.refreshed()
    assert bench.host_of(A) == BOB
    bench.directory.mark_dead(A, ALICE)  # late news of the former host
    assert bench.host_of(A) == BOB


async def test_an_answer_clears_the_count(bench: Bench) -> None:
    bench.lease(A)
    await bench.refreshed()
    bench.directory.mark_dead(A, ALICE)
    bench.directory.mark_dead(A, ALICE)
    bench.directory.mark_alive(A, BOB)
    assert bench.directory.alive() == frozenset()
    bench.directory.mark_alive(A, ALICE)
    assert bench.directory.alive() == {A}
    bench.directory.mark_alive(B, ALICE)
    bench.directory.mark_dead(B, ALICE)
    bench.directory.mark_dead(A, ALICE)
    bench.clock.now += 1.0
    assert bench.directory.alive() == {A}


@pytest.mark.parametrize(("names_max", "reads"), [(12, 1), (11, 2), (5, 3)])
async def test_names_per_read_are_limited(names_max: int, reads: int) -> None:
    bench = Bench(DirectoryConfig(names_max=names_max))
    bench.lease(A)
    bench.lease(B)
    assert await bench.refreshed() == {A, B}
    assert len(bench.store.reads) == reads
    assert all(len(names) <= names_max for names in bench.store.reads)
    assert len({name for names in bench.store.reads for name in names}) == 12


async def test_running_refreshes_and_survives_failures() -> None:
    bench = Bench(DirectoryConfig(lease_s=0.01))
    bench.store.silent = True
    running = asyncio.create_task(bench.directory.run())
    await asyncio.sleep(0)
    assert bench.store.reads
    bench.store.silent = False
    bench.lease(A)
    async with asyncio.timeout(30):
        while not bench.directory.alive():
            bench.clock.now += 0.001
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_reads_of_others_spare_own_ones(bench: Bench) -> None:
    bench.directory.absorb({})
    running = asyncio.create_task(bench.directory.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert bench.store.reads == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_threads_read_while_the_loop_writes(bench: Bench) -> None:
    """Readers see whole views: what is alive is located."""
    bench.lease(A)
    bench.lease(B)
    await bench.refreshed()
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if bench.directory.locate(B) is None or B not in bench.directory.alive():
                wrong.append("B is gone")
            bench.directory.mark_dead(A, ALICE)
            bench.directory.mark_alive(A, ALICE)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        bench.lease(A)
        bench.lease(B)
        await bench.refreshed()
        bench.clock.now += 0.5
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_unusable_settings() -> None:
    for bad in ({"lease_s": 0.0}, {"suspect_s": 0.0}, {"suspect_s": 20.0}, {"names_max": 0}):
        with pytest.raises(ValueError, match="unusable"):
            DirectoryConfig(**bad)  # type: ignore[arg-type]
