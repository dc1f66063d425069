"""What is known of prefixes, and the directory of a grid that is too large to know whole."""

from __future__ import annotations

import pytest

from agent.experts import prefixes, records
from agent.experts.directory import FIRST_WAYS_MAX, Directory, DirectoryConfig
from agent.experts.prefixes import PrefixBook
from agent.experts.records import Lease, PrefixHint
from agent.grid import ExpertId, Grid
from agent.identity import PeerId
from agent.net.overlay import Entry
from tests.unit.experts.record_store import Clock, OverlayOf, RecordStore

GRID = Grid("ffn0", (40, 30))
ALICE, BOB = PeerId(b"a" * 32), PeerId(b"b" * 32)
CONFIG = DirectoryConfig(lease_s=12.0, use_s=30.0)


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = RecordStore(self.clock)
        self.directory = Directory(OverlayOf(self.store, BOB), [GRID], CONFIG, clock=self.clock, unix=self.clock.unix)

    def host(self, uid: ExpertId, host: PeerId = ALICE, epoch: int = 1, ttl_s: float = 12.0) -> None:
        """What a custodian publishes that beam searches need."""
        *upper, (name, coordinate) = uid.prefixes
        lease = records.encode(Lease(str(uid), host.raw, epoch, 0))
        hint = records.encode(PrefixHint(str(uid)))
        entries = [Entry(name=n, subkey=str(c), value=hint, ttl_s=3 * ttl_s) for n, c in upper]
        self.store.put_many(host, [Entry(name=name, subkey=str(coordinate), value=lease, ttl_s=ttl_s), *entries])


@pytest.fixture
def bench() -> Bench:
    return Bench()


A, B = ExpertId("ffn0", (3, 7)), ExpertId("ffn0", (3, 9))


async def test_prefixes_are_explored_and_then_known(bench: Bench) -> None:
    bench.host(A)
    bench.host(B, BOB)
    names = ["ffn0.", "ffn0.3.", "ffn0.5."]
    assert not bench.directory.is_whole
    assert bench.directory.unknown(names) == names
    await bench.directory.explore(names)
    assert bench.store.reads == [names]
    assert bench.directory.unknown(names) == []
    assert [bench.directory.children(n) for n in names] == [(3,), (7, 9), ()]
    located = bench.directory.locate(A)
    assert located is not None and located.host == ALICE


async def test_what_was_read_gets_old(bench: Bench) -> None:
    bench.host(A)
    bench.directory.unknown(["ffn0.3."])
    await bench.directory.explore(["ffn0.3."])
    bench.clock.now += CONFIG.lease_s / 3 + 0.1
    assert bench.directory.unknown(["ffn0.3."]) == ["ffn0.3."]


async def test_a_lease_that_ends_takes_its_expert_out_of_the_prefix(bench: Bench) -> None:
    bench.host(A)
    await bench.directory.explore(["ffn0.", "ffn0.3."])
    bench.clock.now += 12.1
    assert bench.directory.children("ffn0.3.") == ()
    assert bench.directory.children("ffn0.") == (3,)  # a hint lives longer: it may be stale
    bench.clock.now += 24.0
    assert bench.directory.children("ffn0.") == ()


async def test_an_expert_that_did_not_answer_is_left_out(bench: Bench) -> None:
    bench.host(A)
    await bench.directory.explore(["ffn0.3."])
    bench.directory.mark_dead(A, ALICE)
    assert bench.directory.children("ffn0.3.") == ()


async def test_prefixes_in_use_are_kept_fresh(bench: Bench) -> None:
    bench.directory.unknown(["ffn0.3."])
    await bench.directory.refresh()
    assert bench.store.reads == [["ffn0.", "ffn0.3."]]
    bench.clock.now += CONFIG.use_s
    await bench.directory.refresh()
    assert bench.store.reads[1:] == [["ffn0."]]


async def test_leases_and_hints_that_lie_are_ignored(bench: Bench) -> None:
    lease = records.encode(Lease("ffn0.9.9", ALICE.raw, 1, 0))
    hint = records.encode(PrefixHint("ffn0.9.9"))
    entries = [Entry(name="ffn0.3.", subkey=subkey, value=lease, ttl_s=10) for subkey in ("7", "30", "-1", "x", "٣", "0007", "")]
    entries += [Entry(name="ffn0.", subkey=subkey, value=hint, ttl_s=10) for subkey in ("3", "40", "x")]
    entries += [Entry(name="ffn0.", subkey="5", value=b"\xc1", ttl_s=10)]
    bench.store.put_many(ALICE, entries)
    await bench.directory.explore(["ffn0.", "ffn0.3."])
    assert bench.directory.children("ffn0.") == bench.directory.children("ffn0.3.") == ()


async def test_a_small_grid_is_known_whole_and_has_nothing_to_explore() -> None:
    clock = Clock()
    directory = Directory(OverlayOf(RecordStore(clock), BOB), [Grid("ffn0", (16, 32))], CONFIG, clock=clock, unix=clock.unix)
    assert directory.is_whole
    assert directory.unknown(["ffn0."]) == []
    larger = Directory(OverlayOf(RecordStore(clock), BOB), [Grid("ffn0", (19, 27))], CONFIG, clock=clock, unix=clock.unix)
    assert not larger.is_whole


@pytest.mark.parametrize("name", ["ffn1.", "ffn0", "ffn0.3.7.", "ffn0.x.", ""])
def test_what_is_no_prefix_of_the_grid_is_a_mistake(name: str) -> None:
    book = PrefixBook([GRID], fresh_s=4.0, use_s=30.0)
    with pytest.raises(ValueError):
        book.unknown([name], 0.0)


def test_no_more_prefixes_are_remembered_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "NAMES_MAX", 5)
    book = PrefixBook([GRID], fresh_s=4.0, use_s=30.0)
    book.unknown([f"ffn0.{i}." for i in range(6)], 0.0)
    assert book.in_use(0.0) == ["ffn0.", *(f"ffn0.{i}." for i in range(1, 6))]


async def test_whoever_searches_nothing_yet_finds_first_experts_level_by_level(bench: Bench) -> None:
    for row in range(20):
        bench.host(ExpertId("ffn0", (row, 7)))
    await bench.directory.refresh()
    assert bench.store.reads == [["ffn0."]] and bench.directory.alive() == frozenset()
    await bench.directory.refresh()
    assert bench.directory.alive() == {ExpertId("ffn0", (row, 7)) for row in range(FIRST_WAYS_MAX)}
    await bench.directory.refresh()
    assert bench.store.reads[2] == ["ffn0."]  # enough is known to begin with; searches find the rest
