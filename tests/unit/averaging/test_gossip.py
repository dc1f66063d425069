"""With whom to average, and when."""

from __future__ import annotations

import random

import pytest

from agent.averaging.gossip import Exchange, ExchangeEnded, Gossip, GossipConfig, TrainersSeen
from agent.identity import Identity, PeerId

CONFIG = GossipConfig(period_s=8, retry_s=20, timeout_s=30)


def peers(count: int) -> list[PeerId]:
    return [Identity.from_seed(bytes([i]) * 32).peer_id for i in range(1, count + 1)]


def test_nothing_happens_alone() -> None:
    gossip = Gossip(CONFIG, random.Random(0), now=0.0)
    assert gossip.tick(8.0) == []
    assert gossip.next_deadline() == 16.0


def test_every_trainer_is_visited_once_before_any_twice() -> None:
    others = peers(5)
    gossip = Gossip(CONFIG, random.Random(1), now=0.0)
    visited: list[PeerId] = []
    now = 0.0
    effects = gossip.handle(TrainersSeen(frozenset(others)), now)
    while len(visited) < 10:
        for effect in effects:
            visited.append(effect.peer)
            gossip.handle(ExchangeEnded(effect.peer, ok=True), now)
        deadline = gossip.next_deadline()
        assert deadline is not None
        now = deadline
        effects = gossip.tick(now)
    assert set(visited[:5]) == set(others) == set(visited[5:])


def test_one_exchange_at_a_time() -> None:
    gossip = Gossip(CONFIG, random.Random(2), now=0.0)
    (first,) = gossip.tick(8.0) or gossip.handle(TrainersSeen(frozenset(peers(3))), 16.0)
    assert gossip.tick(24.0) == []
    assert gossip.next_deadline() == 46.0
    (second,) = gossip.handle(ExchangeEnded(first.peer, ok=True), 25.0)
    assert second.peer != first.peer


def test_a_failed_partner_is_replaced_at_once_and_left_out_for_a_while() -> None:
    a, b = peers(2)
    gossip = Gossip(CONFIG, random.Random(3), now=0.0)
    (first,) = gossip.handle(TrainersSeen(frozenset({a, b})), 8.0)
    (second,) = gossip.handle(ExchangeEnded(first.peer, ok=False), 9.0)
    assert {first.peer, second.peer} == {a, b}
    gossip.handle(ExchangeEnded(second.peer, ok=True), 10.0)
    assert gossip.tick(17.0) == [Exchange(second.peer)]
    gossip.handle(ExchangeEnded(second.peer, ok=True), 18.0)
    assert gossip.handle(TrainersSeen(frozenset({first.peer})), 28.0) == []
    assert gossip.tick(36.0) == [Exchange(first.peer)]


def test_an_exchange_that_never_ends_is_given_up() -> None:
    a, b = peers(2)
    gossip = Gossip(CONFIG, random.Random(4), now=0.0)
    (first,) = gossip.handle(TrainersSeen(frozenset({a, b})), 8.0)
    assert gossip.tick(37.9) == []
    (second,) = gossip.tick(38.0)
    assert second.peer != first.peer


@pytest.mark.parametrize("field", ["period_s", "retry_s", "timeout_s"])
def test_intervals_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match="positive"):
        GossipConfig(**{field: 0})
