"""The telemetry schema."""

from __future__ import annotations

import msgspec
import pytest

from agent.identity import Identity
from agent.reports import BATCH_ITEMS_MAX, Batch, Connection, Event, Hello, Report, encode

ALICE = Identity.from_seed(b"\1" * 32)


def decode(body: bytes) -> Batch:
    return msgspec.json.decode(body, type=Batch)


def test_a_batch_is_read_back() -> None:
    batch = Batch(
        items=(
            Report(
                sequence=1, at=1.5, stage="training", loss=5.5, connections=(Connection(peer=str(ALICE.peer_id), kind="direct"),)
            ),
            Event(sequence=2, at=2.0, name="expert-claimed", detail={"uid": "ffn0.0.1"}),
        )
    )
    assert decode(encode(batch)) == batch


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": 0},
        {"stage": "sleeping"},
        {"tokens": -1},
        {"why": "x" * 201},
        {"loss": "low"},
        {"extra": 1},
        {"connections": [{"peer": "x", "kind": "direct"}]},
    ],
)
def test_a_bad_report_is_refused(change: dict[str, object]) -> None:
    body = {**msgspec.to_builtins(Report(sequence=1, at=1.0, stage="training")), **change}
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.json.encode({"type": "batch", "items": [body]}))


def test_a_batch_is_bounded() -> None:
    items = tuple(Event(sequence=i + 1, at=0.0, name="tick") for i in range(BATCH_ITEMS_MAX))
    assert len(decode(encode(Batch(items=items))).items) == BATCH_ITEMS_MAX
    with pytest.raises(msgspec.ValidationError, match="length"):
        decode(encode(Batch(items=(*items, items[0]))))


def test_the_hello_signature_covers_every_field() -> None:
    hello = Hello(peer=str(ALICE.peer_id), experiment="gpt-crowd", session="0" * 16, at=1, version="0.1.0")
    bodies = {hello.signed_bytes()}
    for change in ({"peer": "a" * 52}, {"experiment": "x"}, {"session": "1" * 16}, {"at": 2}, {"version": "9"}):
        bodies.add(msgspec.structs.replace(hello, **change).signed_bytes())
    assert len(bodies) == 6
