"""The small parts: bodies, credits, deadlines."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.wire.body import ALIGNMENT, IncomingBody, OutgoingBody
from agent.wire.codec import Credit
from agent.wire.config import WireConfig
from agent.wire.credits import Ledger
from agent.wire.deadlines import Deadlines


@given(header=st.binary(max_size=50), buffers=st.lists(st.binary(max_size=70), max_size=8), step=st.integers(1, 60))
def test_a_body_cut_anywhere_comes_together_again(header: bytes, buffers: list[bytes], step: int) -> None:
    outgoing = OutgoingBody(header, [memoryview(b) for b in buffers])
    incoming = IncomingBody(outgoing.header_size, outgoing.buffer_sizes)
    assert outgoing.total == incoming.total == len(header) + sum(map(len, buffers))
    done = incoming.total == 0
    while outgoing.left:
        assert not done
        piece = outgoing.take(b"##", step)
        assert piece[:2] == b"##" and 0 < len(piece) - 2 <= step
        done = incoming.write(memoryview(piece)[2:])
    assert done
    got_header, got = incoming.parts()
    assert got_header == header and [bytes(b) for b in got] == buffers
    assert all(begin % ALIGNMENT == 0 for begin, _ in incoming._spans)


def test_a_discarded_body_only_counts() -> None:
    body = IncomingBody(2, [8])
    assert not body.write(memoryview(b"12345"))
    body.discard()
    with pytest.raises(ProtocolViolation, match="6 bytes came where 5"):
        body.write(memoryview(b"123456"))
    assert body.write(memoryview(b"12345"))


def test_calls_are_granted_in_lots_but_never_late() -> None:
    ledger = Ledger(WireConfig(inbound_calls_max=10))
    for _ in range(6):
        ledger.calls.take(1)
    for _ in range(3):
        ledger.calls.give_back(1)
    assert ledger.due() is None  # four are left to the peer, three are owed
    ledger.calls.give_back(1)
    credit = ledger.due()
    assert credit is not None and credit.calls == 4 and ledger.calls.left == 8
    with pytest.raises(ProtocolViolation, match="spent 9 of calls, and had 8"):
        ledger.calls.take(9)


def test_window_is_granted_in_lots_and_bytes_at_once() -> None:
    ledger = Ledger(WireConfig(window_bytes=80_000))
    ledger.window.take(20_000)
    ledger.window.give_back(9_999)
    assert ledger.due() is None
    ledger.window.give_back(1)
    assert ledger.due() == Credit(window=10_000)
    ledger.window.give_back(5)
    ledger.request_bytes.take(7)
    ledger.request_bytes.give_back(7)
    credit = ledger.due()
    assert credit is not None and (credit.window, credit.request_bytes) == (5, 7)


def test_deadlines_come_in_order_and_the_heap_stays_as_small_as_what_lives() -> None:
    deadlines = Deadlines()
    rng = random.Random(1)
    live: dict[int, float] = {}
    for key in range(5000):
        live[key] = rng.random()
        deadlines.set(key, live[key])
        if len(live) > 20:
            gone = rng.choice(sorted(live))
            del live[gone]
            deadlines.drop(gone)
        assert deadlines.next() == min(live.values())
    assert len(deadlines) == len(live) and len(deadlines._heap) <= 2 * len(live) + 64
    assert deadlines.due(0.5) == [k for k, w in sorted(live.items(), key=lambda i: i[1]) if w <= 0.5]
    assert all(w > 0.5 for w in deadlines._when.values())
    deadlines.due(1.0)
    assert deadlines.next() is None and len(deadlines) == 0
