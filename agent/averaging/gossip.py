"""With whom to average, and when. Sans-IO.

Pairwise gossip averaging (Boyd et al. 2006; as in AD-PSGD, Lian et al. 2018): at intervals each trainer exchanges trunks
with one other, and both move to the weighted mean. Any trainer may vanish at any time; nothing waits for a group.

Rules: one exchange of ours at a time; partners are taken from a shuffled round of all known trainers, so that each is
visited once before any is visited twice; who failed is left out until its trainer record is seen anew after `retry_s`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from agent.identity import PeerId

TRAINERS_MAX = 4096


@dataclass(frozen=True, kw_only=True)
class GossipConfig:
    """Intervals in seconds."""

    period_s: float = 8.0
    retry_s: float = 20.0
    timeout_s: float = 30.0
    """An exchange that has not ended after this long counts as failed."""

    def __post_init__(self) -> None:
        if min(self.period_s, self.retry_s, self.timeout_s) <= 0:
            raise ValueError("intervals must be positive")


@dataclass(frozen=True, slots=True)
class TrainersSeen:
    """The live trainers other than ourselves, as the DHT lists them now."""

    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class ExchangeEnded:
    """Our exchange with `peer` is over."""

    peer: PeerId
    ok: bool


@dataclass(frozen=True, slots=True)
class Exchange:
    """Effect: exchange trunks with `peer`, and report ExchangeEnded."""

    peer: PeerId


class Gossip:
    """The machine. Events: TrainersSeen, ExchangeEnded. Effect: Exchange."""

    def __init__(self, config: GossipConfig, rng: random.Random, now: float) -> None:
        self._config = config
        self._rng = rng
        self._peers: frozenset[PeerId] = frozenset()
        self._round: list[PeerId] = []
        self._avoid: dict[PeerId, float] = {}
        self._busy: tuple[PeerId, float] | None = None
        self._due = now + config.period_s * rng.random()

    def handle(self, event: TrainersSeen | ExchangeEnded, now: float) -> list[Exchange]:
        match event:
            case TrainersSeen(peers):
                self._peers = frozenset(_bounded(peers))
                self._avoid = {p: t for p, t in self._avoid.items() if p in self._peers and t > now}
            case ExchangeEnded(peer, ok):
                if self._busy is not None and self._busy[0] == peer:
                    self._busy = None
                    self._due = max(self._due, now) if ok else now
                if not ok:
                    self._avoid[peer] = now + self._config.retry_s
        return self.tick(now)

    def tick(self, now: float) -> list[Exchange]:
        if self._busy is not None:
            if now < self._busy[1]:
                return []
            self._avoid[self._busy[0]] = now + self._config.retry_s
            self._busy = None
        if now < self._due:
            return []
        partner = self._next_partner(now)
        if partner is None:
            self._due = now + self._config.period_s
            return []
        self._due = now + self._config.period_s
        self._busy = (partner, now + self._config.timeout_s)
        return [Exchange(partner)]

    def next_deadline(self) -> float | None:
        return self._busy[1] if self._busy is not None else self._due

    def _next_partner(self, now: float) -> PeerId | None:
        eligible = {p for p in self._peers if self._avoid.get(p, 0.0) <= now}
        self._round = [p for p in self._round if p in eligible]
        if not self._round:
            self._round = sorted(eligible)
            self._rng.shuffle(self._round)
        return self._round.pop() if self._round else None


def _bounded(peers: Iterable[PeerId]) -> list[PeerId]:
    return sorted(peers)[:TRAINERS_MAX]
