from __future__ import annotations

import pytest

from agent.experts.keeping import CallKey, Kept, KeptLimits
from agent.grid import ExpertId

A, B = ExpertId("ffn0", (0,)), ExpertId("ffn0", (1,))


def key(i: int, caller: bytes = b"alice", uid: ExpertId = A) -> CallKey:
    return CallKey(caller, uid, bytes([i]) * 16)


def kept(bytes_max: int = 1000, entries_max: int = 100, caller_share: float = 1.0) -> Kept[int]:
    return Kept(KeptLimits(bytes_max=bytes_max, entries_max=entries_max, age_s=10.0, caller_share=caller_share))


def test_values_are_found_until_they_are_too_old() -> None:
    k = kept()
    assert k.put(key(1), 11, 100, now=0.0)
    assert k.get(key(1), 9.9) == 11
    assert k.get(key(1), 10.0) is None
    assert (len(k), k.nbytes) == (0, 0)


def test_one_caller_does_not_see_anothers() -> None:
    k = kept()
    k.put(key(1), 11, 1, 0.0)
    assert k.get(key(1, b"bob"), 0.0) is None
    assert k.get(key(1, uid=B), 0.0) is None


def test_popping_and_replacing() -> None:
    k = kept()
    k.put(key(1), 11, 100, 0.0)
    k.put(key(1), 12, 300, 1.0)
    assert (len(k), k.nbytes) == (1, 300)
    assert k.pop(key(1), 1.0) == 12
    assert k.pop(key(1), 1.0) is None
    assert k.nbytes == 0


def test_limit_of_bytes() -> None:
    k = kept(bytes_max=1000)
    k.put(key(1), 1, 600, 0.0)
    k.put(key(2), 2, 400, 0.0)
    assert k.get(key(1), 0.0) == 1  # exactly at the limit
    k.put(key(3), 3, 1, 0.0)
    assert k.get(key(1), 0.0) is None
    assert k.get(key(2), 0.0) == 2
    assert k.put(key(4), 4, 1000, 0.0)
    assert len(k) == 1
    assert not k.put(key(5), 5, 1001, 0.0)
    assert k.get(key(5), 0.0) is None
    assert k.get(key(4), 0.0) == 4


def test_limit_of_entries() -> None:
    k = kept(entries_max=2)
    for i in (1, 2):
        k.put(key(i), i, 1, 0.0)
    assert len(k) == 2
    k.put(key(3), 3, 1, 0.0)
    assert [k.get(key(i), 0.0) for i in (1, 2, 3)] == [None, 2, 3]


def test_a_greedy_caller_pushes_out_its_own() -> None:
    k = kept(bytes_max=1000, entries_max=8, caller_share=0.5)
    k.put(key(1, b"bob"), 1, 300, 0.0)
    for i in range(20):
        assert k.put(key(i), i, 250, 0.0)
    assert k.get(key(1, b"bob"), 0.0) == 1
    assert k.nbytes == 300 + 500
    assert not k.put(key(1), 1, 501, 0.0)
    for i in range(20):
        k.put(key(i), i, 1, 0.0)
    assert len(k) == 1 + 4
    assert k.get(key(1, b"bob"), 0.0) == 1


def test_dropping_an_expert() -> None:
    k = kept()
    k.put(key(1, uid=A), 1, 10, 0.0)
    k.put(key(1, uid=B), 2, 10, 0.0)
    k.drop(lambda key: key.uid == A)
    assert k.get(key(1, uid=A), 0.0) is None
    assert k.get(key(1, uid=B), 0.0) == 2


def test_unusable_limits() -> None:
    for bad in ({"bytes_max": 0}, {"entries_max": 0}, {"age_s": 0.0}, {"caller_share": 0.0}, {"caller_share": 1.1}):
        with pytest.raises(ValueError, match="unusable"):
            KeptLimits(**{"bytes_max": 1, "entries_max": 1, "age_s": 1.0, **bad})  # type: ignore[arg-type]
