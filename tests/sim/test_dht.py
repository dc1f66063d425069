"""The DHT's production code in small and middling overlays, on a virtual clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.errors import CallRefused, NotReachable
from agent.identity import PeerId
from tests.sim.engine import START, World, make_record
from tests.sim.engine.survey import strangers

ROOT = Path(__file__).resolve().parents[2]


def grown(n: int, seed: int = 0, *, settle_s: float = 20.0) -> World:
    sim = World(seed)
    sim.grow(n)
    sim.run(settle_s)
    return sim


@pytest.mark.parametrize("n", [2, 3, 4, 9, 16])
def test_in_a_small_overlay_everyone_is_connected_to_everyones_siblings(n: int) -> None:
    for seed in range(3):
        sim = grown(n, seed)
        assert sim.siblings_complete(min(8, n - 1))
        assert all(peer.settled_at is not None and peer.settled_at - START < n * 0.5 + 5 for peer in sim.peers.values())


def test_one_peer_alone_keeps_its_own_records() -> None:
    sim = World()
    alone = sim.add()
    assert sim.put(alone, "a") == 1
    assert sim.get(alone, "a")
    assert sim.get(alone, "b") == []
    assert isinstance(sim.route(alone, PeerId(bytes(32))), NotReachable)


def test_everyone_reads_what_anyone_wrote() -> None:
    sim = grown(40)
    peers = sim.alive()
    for i, peer in enumerate(peers):
        assert sim.put(peer, f"name{i}", b"%d" % i) >= sim.config.replicas  # further paths, if any, may end at further holders
    for i in range(len(peers)):
        for reader in sim.rng.sample(peers, 3):
            found = sim.get(reader, f"name{i}")
            assert found is not None and [r.value for r in found] == [b"%d" % i]


def test_in_a_small_overlay_three_replicas_are_kept() -> None:
    sim = grown(4)
    assert sim.put(sim.alive()[0], "a") == 3


def test_a_newer_record_replaces_the_older_everywhere() -> None:
    sim = grown(12)
    writer, *readers = sim.alive()
    sim.put(writer, "a", b"old", sequence=1)
    sim.put(writer, "a", b"new", sequence=2)
    for reader in readers:
        found = sim.get(reader, "a")
        assert found is not None and [r.value for r in found] == [b"new"]


def test_an_expired_record_is_gone() -> None:
    sim = grown(8)
    sim.put(sim.alive()[0], "a", ttl_s=5)
    sim.run(6)
    assert sim.get(sim.alive()[1], "a") == []


def test_bulk_reads_and_writes_of_many_keys() -> None:
    sim = grown(30)
    writer, reader = sim.alive()[:2]
    keys = [sim.key(f"k{i}") for i in range(600)]
    records = [make_record(k, writer, b"x" * 300, expires_at=sim.now + 600) for k in keys]
    counts = sim.ask(writer, lambda op: events.Put(op, records))
    assert min(counts) >= 4 and max(counts) <= 6  # two paths may see the replica set a little differently
    before = sim.delivered
    found = sim.ask(reader, lambda op: events.Get(op, keys))
    assert {k: [r.key for r in rs] for k, rs in found.items()} == {k: [k] for k in keys}
    assert sim.delivered - before < 6 * len(keys), "with the statements of five holders of each, twice"
    before = sim.delivered
    assert sim.ask(reader, lambda op: events.Get(op, keys, eager=True)) == found
    assert sim.delivered - before < len(keys)


def test_a_large_dictionary_comes_in_parts() -> None:
    sim = grown(6)
    writer, reader = sim.alive()[:2]
    key = sim.key("ffn0.")
    records = [make_record(key, writer, b"x" * 1000, subkey=str(i), expires_at=sim.now + 600) for i in range(200)]
    assert sim.ask(writer, lambda op: events.Put(op, records)) == [3] * 200
    found = sim.ask(reader, lambda op: events.Get(op, [key]))
    assert {r.subkey for r in found[key]} == {str(i) for i in range(200)}


def test_any_peer_reaches_any_other_and_only_that_one() -> None:
    sim = grown(60)
    seen: list[tuple[PeerId, PeerId, bytes]] = []

    def note(me: PeerId, origin: PeerId, kind: str, body: bytes) -> tuple[bool, bytes]:
        seen.append((me, origin, body))
        return True, body

    sim.handler = note
    for i in range(60):
        source, target = sim.rng.sample(sim.alive(), 2)
        assert sim.route(source, target, b"%d" % i) == b"%d" % i
        assert seen.pop() == (target, source, b"%d" % i)
        assert not seen


def test_a_peer_that_is_not_there_is_not_reachable() -> None:
    sim = grown(20)
    start = sim.now
    assert isinstance(sim.route(sim.alive()[0], PeerId(bytes(32)), timeout_s=10.0), NotReachable)
    assert sim.now - start < 2


def test_a_handler_may_refuse() -> None:
    sim = grown(5)
    sim.handler = lambda me, origin, kind, body: (False, b"no thanks")
    result = sim.route(sim.alive()[0], sim.alive()[3], b"please")
    assert isinstance(result, CallRefused) and "no thanks" in str(result)


@pytest.mark.parametrize("noticed_after_s", [0.0, 10.0])
@pytest.mark.parametrize("n", [3, 4, 8, 30])
def test_after_a_peer_dies_reads_and_writes_succeed_within_seconds(n: int, noticed_after_s: float) -> None:
    """Whether its links close at once or stay half-open."""
    for seed in range(3):
        sim = grown(n, seed)
        peers = sim.alive()
        for i in range(12):
            assert sim.put(peers[i % n], f"k{i}") >= min(n, 3)
        sim.kill(peers[0], noticed_after_s=noticed_after_s)
        for i in range(12):
            start = sim.now
            reader = peers[1 + i % (n - 1)]
            assert sim.get(reader, f"k{i}")
            assert sim.put(reader, f"after{i}") >= 2
            assert sim.now - start < 4


def test_records_are_replicated_again_when_holders_leave() -> None:
    sim = grown(24)
    peers = sim.alive()
    for i in range(30):
        sim.put(peers[i % 24], f"k{i}", ttl_s=3000)
    for dead in sim.rng.sample(peers, 12):  # one after the other, so that every replica of the start is likely to go
        sim.kill(dead)
        sim.run(15)
    for i in range(30):
        key = sim.key(f"k{i}")
        holders = [p for p in sim.closest(sim.space.decode(key), 4) if sim.peers[p].node.core.store.get(key, sim.now)]
        assert len(holders) == 4
        assert sim.get(sim.alive()[0], f"k{i}")


def test_records_move_to_closer_newcomers() -> None:
    sim = grown(10)
    for i in range(20):
        sim.put(sim.alive()[i % 10], f"k{i}", ttl_s=3000)
    sim.grow(20)
    sim.run(100)
    for i in range(20):
        key = sim.key(f"k{i}")
        assert all(sim.peers[p].node.core.store.get(key, sim.now) for p in sim.closest(sim.space.decode(key), 4))


def test_joining_survives_the_loss_of_any_single_message() -> None:
    """Lose the n-th message that the joiner sends or gets, for each n of the first forty."""
    for lost in range(40):
        sim = grown(6, settle_s=10)
        count = 0
        joiner = sim.add()

        def drop(source: PeerId, target: PeerId, data: bytes, lost: int = lost, joiner: PeerId = joiner) -> bool:
            nonlocal count
            count += joiner in (source, target)
            return count == lost + 1 and joiner in (source, target)

        sim.links.drop = drop
        sim.link(joiner, sim.alive()[0])
        sim.run(15)
        assert sim.siblings_complete(6), lost


def test_the_overlay_works_while_one_message_in_fifty_is_lost() -> None:
    sim = grown(30)
    sim.links.drop = lambda source, target, data: sim.rng.random() < 0.02
    peers = sim.alive()
    for i in range(60):
        assert sim.put(sim.rng.choice(peers), f"k{i}") >= 1
        assert sim.get(sim.rng.choice(peers), f"k{i}")


def test_a_peer_that_never_answers_is_disconnected() -> None:
    sim = grown(4)
    peers = sim.alive()
    sim.kill(peers[0], noticed_after_s=1e9)
    for i in range(20):
        sim.put(peers[1], f"k{i}")
        sim.run(1)
    sim.run(20)
    assert peers[0] not in sim.peers[peers[1]].links


def test_connections_are_bounded() -> None:
    config = DhtConfig(siblings=4, replicas=3, links_max=12, check_max_s=20.0)
    sim = World(config=config)
    sim.grow(60, gap_s=0.3)
    assert max(len(peer.links) for peer in sim.peers.values()) <= 18
    sim.run(120)
    assert max(len(peer.links) for peer in sim.peers.values()) <= 18
    assert sum(len(peer.links) for peer in sim.peers.values()) / 60 < 12.5, "the half more is for a while, and for a few"
    assert strangers(sim, 4) == 0


def test_an_overlay_of_a_hundred_routes_in_few_hops() -> None:
    sim = grown(100)
    before = sim.delivered
    for _ in range(50):
        source, target = sim.rng.sample(sim.alive(), 2)
        assert sim.route(source, target) == b""
    assert sim.delivered - before < 50 * 16


def test_the_same_seed_gives_the_same_course_of_events() -> None:
    first, second, other = grown(20, 5), grown(20, 5), grown(20, 6)
    assert first.trace.digest() == second.trace.digest() != other.trace.digest()


def test_the_course_of_events_does_not_depend_on_hash_seeds() -> None:
    program = "from tests.sim.test_dht import grown; s = grown(12, 3); s.put(s.alive()[0], 'a'); print(s.trace.hexdigest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1
