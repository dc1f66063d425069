"""Everything that decodes what others sent, against hostile bytes: altered, cut, joined, repeated, nested, random.

The fuzzer keeps inputs that led to an outcome not seen before (which type was decoded, or which complaint was made, numbers left
out) and alters those further, so that it gets past the first check. Whatever comes, a decoder returns or raises an error of the
tree in agent/errors.py; and memory stays bounded. With -m slow a million frames, otherwise a part of that.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Sequence

import msgspec
import pytest

from agent import admission, manifest
from agent.dht import events, messages
from agent.dht.census import NONCE_BYTES, Answered, Census, CensusConfig, Heard, Survey
from agent.dht.config import DhtConfig
from agent.dht.node import DhtNode
from agent.dht.records import Record
from agent.errors import HiveError
from agent.experts import records
from agent.experts.messages import BackwardRequest, ExpertReply, ForwardRequest, decode, encode, parse_uid, unpack_reply
from agent.identity import Identity, PeerId
from agent.manifest import Manifest
from agent.net import dcep, ice
from agent.tensors import TensorSpec
from agent.wire import codec
from agent.wire.codec import Lane
from tests.sim.engine import START, CheapSeal, cheap_verify, make_record

FRAME_BYTES_MAX = 20_000
CORPUS_MAX = 256
GROWTH_BYTES_MAX = 96 << 20
ALICE, BOB = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)
Target = Callable[[bytes], object]


def seeds_of_codec() -> list[bytes]:
    view = memoryview(b"body")
    frames: list[codec.Frame] = [
        codec.Limits(8192, 4, 6000, 6000, 5000),
        codec.Credit(1, 2, 3, 4),
        codec.Request(7, 1000, "method", b"header", [view]),
        codec.Response(7, b"header", [view, view]),
        codec.Refused(7, "code", "why"),
        codec.Cancel(7),
        codec.Notify("method", b"header"),
        codec.Ping(1),
        codec.OpenRequest(7, 1000, "method", 3, [10, 20]),
        codec.OpenResponse(7, 3, [10]),
        codec.Abort(7),
    ]
    return [codec.encode(frame) for frame in frames]


def seeds_of_dht() -> list[bytes]:
    key, raw = bytes(32), BOB.peer_id.raw
    record = make_record(key, BOB.peer_id, b"value", subkey="sub", expires_at=START + 100)
    items = [messages.Item(0, key, messages.encode([record])), messages.Item(1, b"\xff" * 32)]
    results = [messages.Result(0, messages.Status.OK, messages.encode([record]), True)]
    sent: list[messages.Message] = [
        messages.Request(1, bytes(8), messages.Kind.PUT, 0, 5, 900, ALICE.peer_id.raw, items, [raw]),
        messages.Request(1, bytes(8), messages.Kind.GET, 1, 5, 900, raw, items),
        messages.Ack(1),
        messages.Answer(1, results),
        messages.Store(1, [record]),
        messages.Stored(1, [0]),
        messages.Offer(1, [messages.Digest(key, bytes(8))]),
        messages.Want(1, [key]),
        messages.Ping(1),
        messages.Near(True),
        messages.NearPeers([raw]),
        messages.Seek([key]),
        messages.Attest(1, bytes(8), [messages.Claim(0, key, bytes(16))]),
        messages.Attested(1, messages.Statement(raw, [messages.Entry(0, [])], b"s"), [bytes(8)]),
    ]
    return [
        *map(messages.encode, sent),
        messages.encode([record]),
        messages.encode([raw]),
        messages.encode(messages.Letter("x", b"y")),
    ]


def seeds_of_experts() -> list[bytes]:
    spec = TensorSpec("float32", (2, 3))
    return [
        encode(ForwardRequest("ffn0.3.1", bytes(16), spec, True)),
        encode(BackwardRequest("ffn0.3.1", bytes(16), spec, spec)),
        encode(ExpertReply(spec, 3, 1, 0.5)),
        b"ffn0.3.1",
    ]


def seeds_of_records() -> list[bytes]:
    raw = ALICE.peer_id.raw
    return [records.encode(v) for v in (records.Lease("ffn0.3.1", raw, 5, 7), records.PrefixHint("ffn0.3.1"))] + [
        records.encode(records.HostRecord(5, True))
    ]


def seeds_of_net() -> list[bytes]:
    description = ice.Description(
        format=1, username="abcd", password="p" * 22, fingerprint=bytes(32), candidates=(ice._Candidate(0, b"\x7f\0\0\1", 4000),)
    )
    return [msgspec.msgpack.encode(description), b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00a", b"\x02"]


def seeds_of_site() -> list[bytes]:
    certificate = admission.Certificate(
        format=1, peer=ALICE.peer_id.raw, experiment="x", account="a", name="n", issued_at=1, ends_at=2
    )
    signed = manifest.sign(Manifest(name="x", revision=1, title="X"), ALICE)
    return [admission.issue(certificate, ALICE), signed.payload, msgspec.json.encode(signed)]


class OneCensus:
    """A census that is told what is no answer of those that it asked."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.census = Census(
            ALICE.peer_id,
            CensusConfig(peers_max=50, tries_max=1),
            nonce=bytes(NONCE_BYTES),
            verify=lambda peer, said, signature: True,
        )
        self.waiting = [ask.peer for ask in self.census.handle(Heard([BOB.peer_id]), 0.0)]

    def __call__(self, data: bytes) -> object:
        if not self.waiting:
            self.begin()
        self.waiting += [ask.peer for ask in self.census.handle(Answered(self.waiting.pop(), data), 0.0)]
        assert len(self.waiting) <= 51
        return self.census.report().peers > 0


class OneNode:
    """A node of the DHT among hostile neighbours. Its clock goes on, and it does what is due."""

    def __init__(self) -> None:
        config = DhtConfig(siblings=4, replicas=3, relays_max=16, deliveries_max=4)
        self.node = DhtNode(ALICE.peer_id, config, verify=cheap_verify, seal=CheapSeal(ALICE.peer_id), rng=random.Random(0))
        self.now = START
        self.node.begin(self.now)
        self.peers = [PeerId(bytes([i]) * 32) for i in range(1, 7)]
        for peer in self.peers:
            self.node.handle(events.PeerOpened(peer), self.now)
        self._turn = 0

    def __call__(self, data: bytes) -> object:
        self._turn += 1
        self.now += 0.01
        if self._turn % 64 == 0:
            self.node.tick(self.now)
        effects = self.node.handle(events.Received(self.peers[self._turn % 6], data), self.now)
        assert self.node._router.relaying <= 16
        assert len(self.node.core.store) <= self.node.core.config.limits.records_max
        return [type(effect).__name__ for effect in effects][:3]


def seeds_of_census() -> list[bytes]:
    said = msgspec.msgpack.encode(Survey(3, 1, [PeerId(bytes([i]) * 32).raw for i in range(9, 12)]))
    return [msgspec.msgpack.encode([said, bytes(64)])]


def unpacked(data: bytes) -> object:
    return unpack_reply(data, [memoryview(bytes(24))], shape=(2, 3))[0]


TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "control frames": (lambda d: codec.decode(Lane.CONTROL, memoryview(d)), seeds_of_codec),
    "bulk frames": (lambda d: codec.decode(Lane.BULK, memoryview(d)), seeds_of_codec),
    "dht messages": (messages.decode, seeds_of_dht),
    "dht records": (messages.decode_records, seeds_of_dht),
    "dht peers": (messages.decode_peers, seeds_of_dht),
    "dht letters": (messages.decode_letter, seeds_of_dht),
    "a dht node": (OneNode(), seeds_of_dht),
    "a census": (OneCensus(), seeds_of_census),
    "leases": (lambda d: records.decode(d, records.Lease), seeds_of_records),
    "hints": (lambda d: records.decode(d, records.PrefixHint), seeds_of_records),
    "host records": (lambda d: records.decode(d, records.HostRecord), seeds_of_records),
    "forward requests": (lambda d: decode(d, ForwardRequest), seeds_of_experts),
    "backward requests": (lambda d: decode(d, BackwardRequest), seeds_of_experts),
    "experts' answers": (unpacked, seeds_of_experts),
    "experts' names": (lambda d: parse_uid(d.decode("latin-1")), seeds_of_experts),
    "ice descriptions": (ice.parse, seeds_of_net),
    "channel openings": (dcep.opens_reliable_channel, seeds_of_net),
    "certificates": (lambda d: admission.read(d, ALICE.peer_id), seeds_of_site),
    "manifests": (manifest.decode, seeds_of_site),
    "signed manifests": (manifest.decode_signed, seeds_of_site),
}


def altered(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One hostile frame."""
    data = bytearray(rng.choice(corpus))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(9):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at % len(data)] = rng.choice((0, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xCF, 0xD9, 0xDC, 0xDF, 0xFF))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + rng.randrange(1, 9)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                other = rng.choice(corpus)
                data[at:] = other[rng.randrange(len(other) + 1) :]
            case 6:
                data[at:at] = data[: rng.randrange(1, 64)] * rng.randrange(1, 5)
            case 7:
                data[at:at] = rng.choice((b"\x91", b"\x81\x01", b"[", b'{"a":')) * rng.choice((1, 50, 3000))
            case _:
                data[at : at + 9] = rng.choice(
                    (b"\xcf" + b"\xff" * 8, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xcb\x7f\xf8" + bytes(6))
                )
    return bytes(data[:FRAME_BYTES_MAX])


def outcome(target: Target, data: bytes) -> tuple[str, str]:
    """What became of it. Anything but a value or an error of the tree goes through, and fails the test."""
    try:
        result = target(data)
    except HiveError as e:
        return type(e).__name__, re.sub(r"[0-9]+|`\$.*|'.*", "", str(e))[:60]
    return "value", f"{type(result).__name__} {result if isinstance(result, list | bool) else ''}"


def fuzz(target: Target, seeds: list[bytes], frames: int, seed: int) -> dict[tuple[str, str], int]:
    """How often each outcome came."""
    rng = random.Random(seed)
    corpus = list(seeds)
    seen: dict[tuple[str, str], int] = {outcome(target, data): 1 for data in seeds}
    for _ in range(frames):
        data = altered(rng, seeds if rng.random() < 0.5 else corpus)  # what was complained of is far from what passes
        what = outcome(target, data)
        if what not in seen and len(corpus) < CORPUS_MAX:
            corpus.append(data)
        seen[what] = seen.get(what, 0) + 1
    return seen


def peak_bytes() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run(name: str, frames: int) -> dict[tuple[str, str], int]:
    target, seeds = TARGETS[name]
    before = peak_bytes()
    seen = fuzz(target, seeds(), frames, seed=20261125)
    assert peak_bytes() - before < GROWTH_BYTES_MAX
    return seen


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_end_in_a_value_or_in_an_error_of_ours(name: str) -> None:
    seen = run(name, 2000)
    assert len(seen) > 1  # it got further than one answer for everything


@pytest.mark.slow
def test_a_million_hostile_frames() -> None:
    counts: dict[str, dict[str, int]] = {}
    total = 0
    for name in TARGETS:
        seen = run(name, 50_000)
        total += sum(seen.values())
        counts[name] = {"outcomes": len(seen), "values": sum(n for (kind, _), n in seen.items() if kind == "value")}
    print(json.dumps({"frames": total, "peak_mb": peak_bytes() >> 20, "decoders": counts}))
    assert total >= 1_000_000


def test_a_record_never_decodes_to_one_beyond_its_bounds() -> None:
    rng = random.Random(7)
    seeds = [messages.encode([make_record(bytes(32), BOB.peer_id, b"x" * 2000, expires_at=START)])]
    for _ in range(3000):
        try:
            found = messages.decode_records(altered(rng, seeds))
        except HiveError:
            continue
        assert all(isinstance(r, Record) and len(r.value) <= 8192 and len(r.subkey) <= 64 for r in found)
