"""64 MB through two connections back to back. What it costs is printed (`pytest -s`), not asserted: machines differ."""

from __future__ import annotations

import time

import pytest

from agent.wire.config import MIB, WireConfig
from agent.wire.connection import Event, Lane, Requested
from tests.unit.wire.pair import Pair

TOTAL = 64 * MIB


@pytest.mark.parametrize("message_bytes", [64 * 1024, 1 * MIB, TOTAL])
def test_bulk(message_bytes: int) -> None:
    pair = Pair(WireConfig())
    body = bytes(range(256)) * (message_bytes // 256)
    cost = {"send": 0.0, "receive": 0.0}
    arrived = copies = 0
    for _ in range(TOTAL // message_bytes):
        call = pair.ask(0, body)
        events: list[Event] = []
        while not events:
            begin = time.process_time()
            out = pair.sides[0].transmit(pair.now, 1 << 20)
            cost["send"] += time.process_time() - begin
            copies += sum(len(m.data) for m in out if m.lane == Lane.BULK)
            begin = time.process_time()
            for lane, data in out:
                events += pair.sides[1].receive(lane, memoryview(data), pair.now)
            cost["receive"] += time.process_time() - begin
            for lane, data in pair.sides[1].transmit(pair.now, 1 << 20):
                pair.sides[0].receive(lane, memoryview(data), pair.now)
        [event] = events
        assert isinstance(event, Requested)
        arrived += sum(map(len, event.buffers))
        assert event.buffers[0][-256:] == body[-256:]
        pair.answer(1, call)
        pair.settle()
    assert arrived == TOTAL and copies < TOTAL * 1.01
    per_mb = {side: round(seconds * 1e3 / (TOTAL / 1e6), 3) for side, seconds in cost.items()}
    print(f"\nmessages of {message_bytes} bytes: CPU ms per MB {per_mb}")
