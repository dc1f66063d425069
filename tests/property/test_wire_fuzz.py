"""Hostile frames: whatever arrives, nothing outside the error tree is raised and what is held stays within the limits."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CallTimeout, HandshakeRejected, HiveError, ProtocolViolation
from agent.identity import Identity
from agent.wire import codec
from agent.wire.codec import FRAGMENT_HEAD, FRAGMENT_MARK, Frame, Lane
from agent.wire.config import WireConfig
from agent.wire.connection import Connection, Requested
from agent.wire.handshake import Channel, Handshake, Terms

CONFIG = WireConfig(
    fragment_bytes=1024,
    small_bytes=300,
    window_bytes=4096,
    message_bytes_max=5000,
    request_bytes_max=6000,
    response_bytes_max=5000,
    inbound_calls_max=4,
    outbound_calls_max=6,
    outbound_bytes_max=20_000,
)


class Attack:
    """A hostile peer, made from one seed, against a connection that makes calls and answers.

    It begins again after each violation.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.violations = 0
        self.events = 0
        self.begin()

    def begin(self) -> None:
        self.now = 0.0
        self.victim = Connection(CONFIG, initiator=True)
        self.send(Lane.CONTROL, codec.encode(codec.Limits(8192, 4, 6000, 6000, 5000)))

    def frame(self) -> Frame:
        rng = self.rng
        call = rng.choice([0, 1, 2, 3, 4, 5, 7, 9, 2**62])
        size = rng.choice([0, 1, 100, 300, 1000, 4999, 5000, 5001, 2**40])
        small = [memoryview(bytes(rng.choice([0, 1, 300]))) for _ in range(rng.randrange(3))]
        return rng.choice(
            [
                lambda: codec.Limits(4096, 1, size, size, max(1, size)),
                lambda: codec.Credit(rng.choice([0, 1, size]), rng.choice([0, 0, 1]), 0, 0),
                lambda: codec.Request(call, rng.choice([0, 50, 10_000]), "m", b"h", small),
                lambda: codec.Response(call, b"h", small),
                lambda: codec.Refused(call, rng.choice(["no", "deadline", "cancelled"])),
                lambda: codec.Cancel(call),
                lambda: codec.Notify("n", b"x" * min(size, 5000)),
                lambda: codec.Ping(rng.randrange(2**62)),
                lambda: codec.Pong(rng.randrange(3)),
                lambda: codec.OpenRequest(call, rng.choice([0, 50, 10_000]), "m", rng.randrange(3), [size]),
                lambda: codec.OpenResponse(call, rng.randrange(3), [size, 0]),
                lambda: codec.Abort(call),
            ]
        )()

    def plausible(self) -> tuple[int, bytes]:
        """What a correct peer might well send now (it looks inside the victim), so that sessions live long enough to go deep."""
        rng, callee, caller = self.rng, self.victim._callee._calls, self.victim._caller._calls
        options: list[tuple[int, bytes]] = []
        window = self.victim._ledger.window.left
        for number, body in [(n, c.arriving) for n, c in (*callee.items(), *caller.items())]:
            if body is not None and window:
                size = min(body.left, window, rng.choice([1, 500, 5000]))
                options.append((Lane.BULK, FRAGMENT_HEAD.pack(FRAGMENT_MARK, number) + bytes(size)))
        frames: list[tuple[Lane, Frame]] = [(Lane.CONTROL, codec.Notify("n", b"")), (Lane.CONTROL, codec.Ping(1))]
        number = rng.choice([n for n in (1, 3, 5, 7, 9, 11) if n not in callee])
        timeout_ms, size = rng.choice([0, 50, 10_000]), rng.choice([1, 1000, 3000])
        if self.victim._ledger.calls.left:
            frames.append((Lane.CONTROL, codec.Request(number, timeout_ms, "m", b"", [])))
            if self.victim._ledger.request_bytes.left >= size:
                frames.append((Lane.BULK, codec.OpenRequest(number, timeout_ms, "m", 0, [size])))
        frames += [(Lane.BULK, codec.Cancel(n)) for n in callee]
        for number, call in caller.items():
            if call.arriving is not None:
                frames.append((Lane.BULK, codec.Abort(number)))
            elif call.transfer.sent:
                frames.append((Lane.CONTROL, rng.choice([codec.Response(number, b"", []), codec.Refused(number, "deadline")])))
                if self.victim._ledger.response_bytes.left >= size:
                    frames.append((Lane.BULK, codec.OpenResponse(number, 0, [size])))
        options += [(lane, codec.encode(frame)) for lane, frame in frames]
        return rng.choice(options)

    def message(self) -> tuple[int, bytes]:
        rng = self.rng
        if rng.random() < 0.9:
            return self.plausible()
        if rng.random() < 0.4:
            call = rng.choice([0, 1, 2, 3, 5, 7])
            return Lane.BULK, FRAGMENT_HEAD.pack(FRAGMENT_MARK, call) + bytes(rng.choice([0, 1, 99, 100, 1000, 1000]))
        frame = self.frame()
        data = bytearray(codec.encode(frame))
        lane = Lane.BULK if isinstance(frame, codec.OpenRequest | codec.OpenResponse | codec.Abort) else Lane.CONTROL
        match rng.randrange(20):
            case 0:
                lane = rng.choice(list(Lane))
            case 1:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 2:
                del data[rng.randrange(len(data)) :]
            case 3:
                data = bytearray(rng.randbytes(rng.randrange(40)))
        return lane, bytes(data)

    def send(self, lane: int, data: bytes) -> None:
        try:
            events = self.victim.receive(lane, memoryview(data), self.now)
        except ProtocolViolation as e:
            self.violations += 1
            self.victim.close(e)
            self.begin()
            return
        self.events += len(events)
        for event in events:
            if isinstance(event, Requested) and self.rng.random() < 0.8:
                self.victim.respond(event.call, b"", [bytes(self.rng.choice([0, 300, 4000]))], now=self.now)

    def step(self) -> None:
        """The victim does something of its own, then a message comes."""
        rng, victim = self.rng, self.victim
        try:
            if rng.random() < 0.3:
                victim.request("m", b"", [bytes(rng.choice([0, 1000, 4000]))], now=self.now, timeout_s=5)
        except HiveError:
            pass
        if rng.random() < 0.3:
            victim.transmit(self.now, rng.choice([-1 << 30, 0, 2000, 1 << 20]))
            self.grant()
        if rng.random() < 0.1:
            self.now += rng.choice([0.01, 1.0])
            victim._keep_alive.heard()
            victim.tick(self.now)
        self.send(*self.message())
        self.check()

    def grant(self) -> None:
        """Now and then, all the credit that the victim has spent; calls only when it has none open, as a correct peer would."""
        if self.rng.random() < 0.7:
            allowance = self.victim._outbox.allowance
            calls = 0 if self.victim._caller._calls else 4 - allowance.calls
            reserved = any(self.victim._outbox._active)
            back = 0 if reserved else 6000 - allowance.request_bytes
            answers = 0 if reserved else 6000 - allowance.response_bytes
            self.send(Lane.CONTROL, codec.encode(codec.Credit(8192 - allowance.window, calls, back, answers)))

    def check(self) -> None:
        victim = self.victim
        theirs, ours = victim._callee._calls.values(), victim._caller._calls.values()
        assert len(theirs) <= CONFIG.inbound_calls_max
        assert sum(c.taken_bytes for c in theirs) <= CONFIG.request_bytes_max
        assert sum(c.arriving.total for c in ours if c.arriving is not None) <= CONFIG.response_bytes_max
        assert len(ours) <= CONFIG.outbound_calls_max + 4  # and the abandoned, within the peer's own grant
        outbox = victim._outbox
        # Per call: an answer, a refusal or a Cancel; only transmit hands back the credit for more.
        assert len(outbox._control) <= 1 + CONFIG.inbound_calls_max + 4 and len(outbox._endings) <= CONFIG.inbound_calls_max + 4
        assert len(outbox._latest) <= 2 and max(outbox._unsent_bytes) <= CONFIG.outbound_bytes_max


def run_attack(seed: int, frames: int) -> Attack:
    attack = Attack(seed)
    for _ in range(frames):
        attack.step()
    return attack


def test_hostile_frames() -> None:
    attack = run_attack(20261122, 20_000)
    assert attack.violations > 1000 and attack.events > 1000  # it got somewhere between the violations


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), lane=st.sampled_from(Lane))
def test_junk(data: bytes, lane: Lane) -> None:
    connection = Connection(CONFIG, initiator=False)
    try:
        connection.receive(lane, memoryview(data), 0.0)
    except ProtocolViolation:
        connection.close(CallTimeout())


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 2**31)), max_size=4), flip=st.integers(0, 3000))
def test_junk_in_a_handshake(messages: list[bytes | int], flip: int) -> None:
    """Junk, and a genuine hello with one bit turned (the integers)."""
    alice, bob = Identity.from_seed(bytes(32)), Identity.from_seed(b"\1" * 32)
    terms = Terms(experiment="x")
    prints = (bytes(32), b"\1" * 32)
    of_alice = Channel(local_fingerprint=prints[0], remote_fingerprint=prints[1], initiator=True)
    of_bob = Channel(local_fingerprint=prints[1], remote_fingerprint=prints[0], initiator=False)
    a = Handshake(alice, terms, of_alice, nonce=bytes(32), deadline=1.0)
    b = Handshake(bob, terms, of_bob, nonce=b"\1" * 32, deadline=1.0)
    for message in messages:
        if isinstance(message, int):
            genuine = bytearray(b.start())
            genuine[flip // 8 % len(genuine)] ^= 1 << flip % 8
            message = bytes(genuine)
        try:
            a.receive(message)
        except HandshakeRejected:
            break
    assert a.peer is None
