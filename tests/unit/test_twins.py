"""Who of two agents with one key ends."""

from __future__ import annotations

import pytest

from agent.errors import IdentityError
from agent.identity import Identity
from agent.twins import TIMES_OLD, TIMES_YOUNG, YOUNG_S, Twins

PEER = Identity.from_seed(b"\1" * 32).peer_id


def test_alone_there_is_nothing_to_say() -> None:
    twins = Twins(PEER, began=100.0)
    assert all(twins.judge(0, 100.0 + s) == "" for s in range(0, 10_000, 500))


def test_the_copy_ends_at_its_limit_and_says_what_to_do() -> None:
    twins = Twins(PEER, began=100.0)
    assert f"peer {PEER.short}" in twins.judge(1, 100.0 + YOUNG_S - 0.1)
    assert twins.judge(TIMES_YOUNG - 1, 1e6) == ""
    with pytest.raises(IdentityError, match="another --state-dir"):
        twins.judge(TIMES_YOUNG, 1e6)


def test_whoever_was_there_before_warns_once_and_waits_for_the_copy_to_end() -> None:
    twins = Twins(PEER, began=100.0)
    said = [twins.judge(times, 100.0 + YOUNG_S + times) for times in range(1, TIMES_OLD)]
    assert "stop it" in said[0] and said[1:] == [""] * (TIMES_OLD - 2)
    with pytest.raises(IdentityError, match="another agent runs"):
        twins.judge(TIMES_OLD, 1e6)
