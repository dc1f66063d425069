"""The routing table, the record store and the decoder against simple twins, over random histories."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.dht import events, messages
from agent.dht.config import DhtConfig, RecordLimits
from agent.dht.node import DhtNode
from agent.dht.records import Record, RecordStore
from agent.dht.routing_table import RoutingTable
from agent.errors import ProtocolViolation, RecordError
from agent.identity import PeerId
from tests.sim.engine import START, CheapSeal, cheap_verify, make_record
from tests.unit.dht.peers import SPACE, at

KEYS = st.integers(0, 255)
CONFIG = DhtConfig(siblings=4, replicas=3, known_max=5)


class Table(RuleBasedStateMachine):
    """A RoutingTable beside a plain set."""

    def __init__(self) -> None:
        super().__init__()
        self.table = RoutingTable(at(0b0110_0110), CONFIG)
        self.connected: set[int] = set()

    @rule(key=KEYS)
    def open(self, key: int) -> None:
        new = key != self.table.me.key and key not in self.connected
        assert self.table.add(at(key), 0.0) == new
        if new:
            self.connected.add(key)

    @rule(key=KEYS)
    def close(self, key: int) -> None:
        assert (self.table.remove(at(key).peer) is not None) == (key in self.connected)
        self.connected.discard(key)

    @rule(key=KEYS)
    def learn(self, key: int) -> None:
        self.table.learn(at(key))

    @rule(key=KEYS, n=st.integers(0, 12))
    def look(self, key: int, n: int) -> None:
        by_distance = sorted(self.connected, key=lambda k: k ^ key)
        assert [c.key for c in self.table.closest(key, n)] == by_distance[:n]
        closer = [k for k in by_distance if k ^ key < self.table.me.key ^ key]
        assert [c.key for c in self.table.closer(key)] == closer
        assert [c.key for c in self.table.further(key)] == by_distance[len(closer) :]

    @invariant()
    def wants_the_nearest(self) -> None:
        me = self.table.me.key
        known = {c.key for c in self.table.known.values()}
        assert len(known) <= CONFIG.known_max and not known & self.connected and me not in known
        nearest = sorted(known | self.connected, key=lambda k: k ^ me)[: CONFIG.siblings]
        assert [c.key for c in self.table.wanted_siblings()] == [k for k in nearest if k not in self.connected]

    @invariant()
    def spares_siblings(self) -> None:
        victim = self.table.victim(1000.0)
        assert (victim is None) == (len(self.connected) <= CONFIG.siblings)
        assert victim is None or victim not in self.table.siblings()


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

OWNERS = [PeerId(bytes([i]) * 32) for i in range(3)]
LIMITS = RecordLimits(per_key_max=5, owners_per_subkey_max=2, per_owner_max=6, records_max=9, ttl_max_s=100)


class Store(RuleBasedStateMachine):
    """A RecordStore beside a list of all that it took."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.store = RecordStore(LIMITS, cheap_verify, key_bytes=1)
        self.taken: dict[tuple[bytes, str, PeerId], Record] = {}
        self.highest: dict[tuple[bytes, str, PeerId], tuple[int, float]] = {}

    @rule(
        key=st.sampled_from([b"a", b"b"]),
        subkey=st.sampled_from(["", "1", "2"]),
        owner=st.sampled_from(OWNERS),
        sequence=st.integers(0, 4),
        ttl_s=st.integers(-5, 40),
        forged=st.booleans(),
    )
    def put(self, key: bytes, subkey: str, owner: PeerId, sequence: int, ttl_s: int, forged: bool) -> None:
        record = make_record(key, owner, b"v", subkey=subkey, sequence=sequence, expires_at=self.now + ttl_s)
        if forged:
            record = msgspec.structs.replace(record, value=b"forged")
        place = (key, subkey, owner)
        try:
            self.store.put(record, self.now)
        except RecordError:
            return
        assert not forged and ttl_s > 0
        highest, until = self.highest.get(place, (-1, 0.0))
        assert sequence > highest or self.now >= until or record == self.taken[place], "an older one came back"
        self.taken[place] = record
        self.highest[place] = (sequence, max(until, record.expires_at))

    @rule(seconds=st.integers(0, 30))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def serves_what_is_alive(self) -> None:
        for key in (b"a", b"b"):
            alive = {r for (k, _, _), r in self.taken.items() if k == key and r.expires_at > self.now}
            assert set(self.store.get(key, self.now)) == alive

    @invariant()
    def keeps_its_books(self) -> None:
        held = [r for key in list(self.store.keys()) for r in self.store.get(key, self.now)]
        assert len(held) <= len(self.store) <= LIMITS.records_max
        assert self.store.held_bytes >= sum(r.wire_bytes for r in held)
        for owner in OWNERS:
            assert sum(r.owner == owner for r in held) <= LIMITS.per_owner_max
        for key in (b"a", b"b"):
            assert len(self.store.get(key, self.now)) <= LIMITS.per_key_max


TestStore = Store.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def a_message(rng: random.Random) -> bytes:
    """A valid message with random content."""
    key, raw = bytes([rng.randrange(256)]), at(rng.randrange(256)).peer.raw
    record = make_record(key, at(rng.randrange(256)).peer, rng.randbytes(5), expires_at=START + rng.randrange(-5, 500))
    letter = at(0).peer.raw + messages.encode(messages.Letter("x", b"y"))
    body = rng.choice([b"", b"junk", messages.encode([record]), letter])
    items = [messages.Item(i, bytes([rng.randrange(256)]), body) for i in range(rng.randrange(1, 4))]
    hop, path = rng.randrange(8), rng.randrange(3)
    return messages.encode(
        rng.choice(
            [
                messages.Request(hop, rng.randbytes(8), messages.Kind(rng.randrange(5)), path, 5, 900, raw, items, [raw]),
                messages.Ack(hop),
                messages.Answer(hop, [messages.Result(0, messages.Status.OK, body, rng.random() < 0.5)]),
                messages.Store(hop, [record]),
                messages.Stored(hop, [rng.randrange(256)]),
                messages.Offer(hop, [messages.Digest(key, b"x")]),
                messages.Want(hop, [key]),
                messages.Near(True),
                messages.NearPeers([raw]),
                messages.Attest(hop, rng.randbytes(8), [messages.Claim(0, key, rng.randbytes(rng.choice([0, 8, 9])))]),
                messages.Attested(hop, messages.Statement(raw, [messages.Entry(0, [record])], b"s"), [rng.randbytes(8)]),
                messages.Seek([key]),
            ]
        )
    )


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_hostile_neighbours_cannot_break_a_node(seed: int) -> None:
    """Valid, altered and random messages in any order: ProtocolViolation is all that may come of it."""
    rng = random.Random(seed)
    config = DhtConfig(siblings=4, replicas=3, relays_max=16, deliveries_max=4)
    node = DhtNode(at(0).peer, config, verify=cheap_verify, seal=CheapSeal(at(0).peer), rng=random.Random(seed), space=SPACE)
    now = START
    node.begin(now)
    for key in (1, 2, 4, 64, 128, 200):
        node.handle(events.PeerOpened(at(key).peer), now)
    for op in range(60):
        now += rng.random() * 0.3
        data = bytearray(a_message(rng))
        if rng.random() < 0.3:
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            node.handle(events.Received(at(rng.choice([1, 2, 4, 64, 128, 200])).peer, bytes(data)), now)
        except ProtocolViolation:
            pass
        if op % 10 == 0:
            node.handle(events.Get(op, [b"a", b"b"], eager=rng.random() < 0.5), now)
    assert node._router.relaying <= 16
    assert all(
        cheap_verify(r) and r.expires_at > now for key in list(node.core.store.keys()) for r in node.core.store.get(key, now)
    )
    for _ in range(1000):
        due = node.next_deadline()
        if due is None or due > now + 30:
            break
        node.tick(due)
    assert node._operations.running <= 2 and node._router.relaying <= 8  # its own, which end within seconds
    assert not node._witnesses._open


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_violation(data: bytes) -> None:
    for decode in (messages.decode, messages.decode_records, messages.decode_peers, messages.decode_letter):
        try:
            decode(data)
        except ProtocolViolation:
            pass


@pytest.mark.parametrize("depth", [100, 10_000])
def test_nesting_is_a_violation(depth: int) -> None:
    with pytest.raises(ProtocolViolation):
        messages.decode(b"\x91" * depth)
