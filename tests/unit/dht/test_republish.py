"""Our own records are written again until they expire or are replaced."""

from __future__ import annotations

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import Kind, Request
from tests.sim.engine import make_record
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

CONFIG = DhtConfig(siblings=4, replicas=3, read_paths=1, write_paths=1, republish_s=100.0, republished_max=2)


def put(played: Played, name: bytes, *, sequence: int = 1, ttl_s: float = 1000.0, owner: int = 0) -> None:
    record = make_record(name, at(owner).peer, b"v", sequence=sequence, expires_at=played.now + ttl_s)
    played.handle(events.Put(1, [record]))
    played.take()


def written(played: Played, seconds: float) -> list[bytes]:
    """The keys written in that time."""
    before = played.node._republisher.written
    played.passes(seconds)
    keys = [item.key for _, m in played.take(Request) if m.kind == Kind.PUT and m.path == 0 for item in m.items]
    assert len(keys) >= played.node._republisher.written - before
    return keys


def test_a_record_of_ours_is_written_again_until_it_expires() -> None:
    played = Played(0, 128, config=CONFIG)
    put(played, b"\xff", ttl_s=350.0)
    played.passes(30)
    before = played.node._republisher.written
    assert b"\xff" in written(played, 130)
    played.passes(1000)
    assert before < played.node._republisher.written <= before + 4


def test_what_is_renewed_anyhow_or_anothers_is_not() -> None:
    played = Played(0, 128, config=CONFIG)
    put(played, b"\xff", ttl_s=90.0)
    put(played, b"\xfe", owner=128)
    played.passes(1000)
    assert played.node._republisher.written == 0


def test_the_oldest_is_forgotten_at_the_limit() -> None:
    played = Played(0, 128, config=CONFIG)
    for name in (b"\xff", b"\xfe", b"\xfd"):
        put(played, name)
    played.passes(130)
    assert set(played.node._republisher._own) == {(b"\xfe", ""), (b"\xfd", "")}
