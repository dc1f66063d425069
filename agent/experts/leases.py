"""Who hosts what, agreed through the DHT with no central assignment. Sans-IO: the custodian feeds it and performs its effects.

An expert is hosted by whoever has the lease that counts (records.settle) among the live ones under its name. Each host's keeper
reads the leases every `scan_s` and publishes its own every `renew_s`. Rules:

- **Claim** a vacant expert when it is one's turn (claims.turns): vacant in two reads in a row, and past the expiry of every lease
  that was ever read, so that a failed read does not look like a vacancy. Later turns follow every `patience_s`.
- **Settle**: a lease that is read and counts more than one's own (higher epoch, or lower hash) takes the expert away at once.
- **Fence**: an expert is dropped when for `lease_s` its lease could not be stored, or could not be read. Others may have it then.
- **Grace**: in a young overlay a host claims at most a share, as if `assumed_hosts` were there, until it has been there for
  `grace_s` or meets a host that has. So the first of several that start together does not take everything. The longer they do
  not come, the fewer it leaves room for.
- **Epochs** are at least Unix seconds and above any that was read: a host that slept while its lease lapsed never wins it back.
- A host never gives up an expert in favour of another: what it has learned would be lost (until states can be moved).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.experts.claims import Seat, fair_share, turns
from agent.experts.lease_events import Drop, Effect, Event, Host, Leave, Put, Scan, Scanned, SeenLease, Stored
from agent.experts.records import HostRecord, Lease, affinity, beats, settle
from agent.grid import ExpertId
from agent.identity import PeerId

HOSTS_MAX = 256
"""Host records that are looked at."""
PUTS_MAX = 8
"""Puts under way."""
TURNS_MAX = 4
"""Hosts whose turn is later than this claim together with it."""
VACANT_SCANS = 2


@dataclass(frozen=True, kw_only=True)
class LeaseConfig:
    """Times in seconds. The properties are the parts of a lease's life that things take."""

    lease_s: float = 12.0
    assumed_hosts: int = 3
    scan_uids_max: int = 512
    """Leases read at once (those that are held come on top); a larger grid is read in rounds."""
    claims_max: int = 64
    """Experts claimed after one read."""

    def __post_init__(self) -> None:
        if not (self.lease_s > 0 and self.assumed_hosts >= 1 and self.scan_uids_max >= 1 and self.claims_max >= 1):
            raise ValueError(f"unusable lease settings: {self}")

    @property
    def renew_s(self) -> float:
        return self.lease_s / 3

    @property
    def scan_s(self) -> float:
        return self.lease_s / 10

    @property
    def retry_s(self) -> float:
        return self.lease_s / 12

    @property
    def patience_s(self) -> float:
        return self.lease_s / 4

    @property
    def grace_s(self) -> float:
        """Longer than a busy machine takes to start an agent that was started together with the first."""
        return 2 * self.lease_s

    @property
    def fresh_s(self) -> float:
        """A read that took longer is no reason for a claim: others may have claimed since."""
        return self.lease_s / 2

    @property
    def release_s(self) -> float:
        """What a lease that is given up still lives: long enough to be read once by all."""
        return self.lease_s / 3


@dataclass(slots=True)
class _Held:
    epoch: int
    put_at: float
    """When the last put that was stored was sent; for a new claim, when it was made."""
    read_at: float
    """When the last read that covered it was sent."""
    stored: bool = False


class LeaseKeeper:
    """The machine. `held()` is what this host may serve."""

    def __init__(self, me: PeerId, experts: Sequence[ExpertId], capacity: int, config: LeaseConfig) -> None:
        self.capacity = capacity
        self._me = me
        self._experts = tuple(experts)
        self._config = config
        self._held: dict[ExpertId, _Held] = {}
        self._others: dict[ExpertId, SeenLease] = {}
        self._hosts: dict[PeerId, tuple[HostRecord, float]] = {}
        self._epochs: dict[ExpertId, int] = {}
        self._vacant: dict[ExpertId, tuple[float, int]] = {}
        self._lapsed: set[ExpertId] = set()
        self._scan: tuple[int, float] | None = None
        self._puts: dict[int, tuple[float, dict[ExpertId, int]]] = {}
        self._number = 0
        self._round = 0
        self._scan_at = self._renew_at = float("-inf")
        self._began: float | None = None
        self._settled_at: float | None = None
        self._left = False

    def held(self) -> dict[ExpertId, int]:
        """Expert → epoch."""
        return {uid: held.epoch for uid, held in self._held.items()}

    def lapsed(self) -> frozenset[ExpertId]:
        """Experts that were dropped because their lease lapsed, and that nobody was seen to hold since."""
        return frozenset(self._lapsed)

    def vacant(self) -> int:
        """Experts that nobody hosts, as last read."""
        return len(self._vacant)

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = self._fence(now)
        match event:
            case Scanned():
                effects += self._scanned(event, now)
            case Stored(put, leases):
                effects += self._stored(put, leases, now)
            case Leave():
                effects += self._leave(now)
        return effects + self.tick(now)

    def tick(self, now: float) -> list[Effect]:
        effects = self._fence(now)
        if self._left:
            return effects
        if self._scan is not None and now >= self._scan[1] + self._config.lease_s:
            self._scan = None
        for put in [n for n, (sent, _) in self._puts.items() if now >= sent + self._config.lease_s]:
            del self._puts[put]
        if self.capacity > 0 and now >= self._renew_at:
            effects += self._put({uid: held.epoch for uid, held in self._held.items()}, self._config.lease_s, now)
            self._renew_at = now + self._config.renew_s
        if self._scan is None and now >= self._scan_at:
            self._scan = self._next_number(), now
            self._scan_at = now + self._config.scan_s
            effects.append(Scan(self._scan[0], self._next_uids()))
        return effects

    def next_deadline(self) -> float | None:
        if self._left:
            return None
        due = [self._scan_at if self._scan is None else self._scan[1] + self._config.lease_s]
        if self.capacity > 0:
            due.append(self._renew_at)
        due += [self._until(held) for held in self._held.values()]
        return min(due)

    # What was read

    def _scanned(self, event: Scanned, now: float) -> list[Effect]:
        if self._scan is None or event.scan != self._scan[0] or self._left:
            return []
        sent, self._scan = self._scan[1], None
        if event.hosts is not None:
            chosen = sorted(event.hosts.items(), key=lambda item: item[0])[:HOSTS_MAX]
            self._hosts.update((peer, seen) for peer, seen in chosen if peer != self._me)
        self._hosts = {peer: seen for peer, seen in self._hosts.items() if seen[1] > now}
        effects: list[Effect] = []
        for uid, seen in event.leases.items():
            effects += self._read(uid, seen, sent, now)
        if event.leases and now < sent + self._config.fresh_s and (event.hosts is not None or self._began is not None):
            self._grow_up(now)
            effects += self._claim(event, sent, now)
        return effects

    def _read(self, uid: ExpertId, seen: Sequence[SeenLease], sent: float, now: float) -> list[Effect]:
        me = self._me.raw
        self._epochs[uid] = max([self._epochs.get(uid, 0), *(s.lease.epoch for s in seen)])
        live = {s.lease.host: s for s in seen if s.expires > now and s.lease.host != me}
        before = self._others.pop(uid, None)
        if before is not None and before.expires > now:
            live.setdefault(before.lease.host, before)
        best = settle([s.lease for s in live.values()])
        if best is not None:
            self._others[uid] = live[best.host]
            self._lapsed.discard(uid)
        held = self._held.get(uid)
        if held is None:
            if best is None:
                since, scans = self._vacant.get(uid, (sent, 0))
                self._vacant[uid] = since, scans + 1
            else:
                self._vacant.pop(uid, None)
            return []
        if best is not None and beats(best, Lease(str(uid), me, held.epoch, 0)):
            del self._held[uid]
            return [Drop(uid, "lost")]
        held.read_at = sent
        if held.stored and held.put_at < sent and not any(s.lease.host == me and s.expires > now for s in seen):
            self._renew_at = min(self._renew_at, now + self._config.retry_s)  # stored, yet not to be found
        return []

    def _grow_up(self, now: float) -> None:
        if self._began is None:
            self._began = now
        is_old = now - self._began >= self._config.grace_s
        if self._settled_at is None and (is_old or any(host.settled for host, _ in self._hosts.values())):
            self._settled_at = now
            self._renew_at = now  # so that the others know

    def _claim(self, event: Scanned, sent: float, now: float) -> list[Effect]:
        room = min(self.capacity - len(self._held), self._config.claims_max)
        ready = [uid for uid in event.leases if self._vacant.get(uid, (0.0, 0))[1] >= VACANT_SCANS]
        if room <= 0 or not ready or len(self._puts) >= PUTS_MAX:
            return []
        me = self._me.raw
        capacities = {peer.raw: host.capacity for peer, (host, _) in self._hosts.items()}
        capacities[me] = self.capacity
        if self._settled_at is not None:
            share = fair_share(len(self._experts), capacities.values())
        else:
            share = -(-len(self._experts) // max(len(capacities), self._awaited(now)))
            room = min(room, share - len(self._held))
        loads = dict.fromkeys(capacities, 0)
        loads[me] = len(self._held)
        for seen in self._others.values():
            if seen.lease.host in loads and seen.expires > now:
                loads[seen.lease.host] += 1
        seats = {host: Seat(capacities[host], loads[host]) for host in capacities}
        claims: dict[ExpertId, int] = {}
        order = turns(ready, seats, share)
        for uid in sorted(ready, key=lambda uid: affinity(me, str(uid))):
            if len(claims) >= room:
                break
            if self._is_my_turn(uid, order[uid], now):
                epoch = max(self._epochs.get(uid, 0) + 1, event.epoch_floor)
                claims[uid] = self._epochs[uid] = epoch
                self._held[uid] = _Held(epoch, put_at=now, read_at=sent)
                del self._vacant[uid]
                self._lapsed.discard(uid)
        hosts: list[Effect] = [Host(uid, epoch) for uid, epoch in claims.items()]
        return hosts + self._put(claims, self._config.lease_s, now) if claims else []

    def _awaited(self, now: float) -> int:
        """Hosts that are taken to be there in the grace: `assumed_hosts` at first, one in the end."""
        assert self._began is not None
        left = 1 - (now - self._began) / self._config.grace_s
        return max(1, math.ceil(self._config.assumed_hosts * left))

    def _is_my_turn(self, uid: ExpertId, order: Sequence[bytes], now: float) -> bool:
        if self._me.raw not in order:
            return False
        turn = 0 if uid in self._lapsed else min(order.index(self._me.raw), TURNS_MAX)
        if turn == 0 or self._settled_at is None:
            return turn == 0
        return now - max(self._vacant[uid][0], self._settled_at) >= turn * self._config.patience_s

    # What is published

    def _put(self, leases: Mapping[ExpertId, int], ttl_s: float, now: float) -> list[Effect]:
        if len(self._puts) >= PUTS_MAX:
            return []
        number = self._next_number()
        self._puts[number] = now, dict(leases)
        return [Put(number, tuple(leases.items()), self._settled_at is not None, ttl_s)]

    def _stored(self, put: int, stored: frozenset[ExpertId], now: float) -> list[Effect]:
        if put not in self._puts:
            return []
        sent, leases = self._puts.pop(put)
        effects: list[Effect] = []
        for uid, epoch in leases.items():
            held = self._held.get(uid)
            if held is None or held.epoch != epoch:
                continue
            if uid in stored:
                if not held.stored:
                    held.stored = True
                    self._scan_at = now  # see at once whether somebody else claimed it too
                held.put_at = max(held.put_at, sent)
            elif held.stored:
                self._renew_at = min(self._renew_at, now + self._config.retry_s)
            else:
                del self._held[uid]
                effects.append(Drop(uid, "unstored"))
        return effects

    def _until(self, held: _Held) -> float:
        return min(held.put_at, held.read_at) + self._config.lease_s

    def _fence(self, now: float) -> list[Effect]:
        late = [uid for uid, held in self._held.items() if now >= self._until(held)]
        for uid in late:
            del self._held[uid]
        self._lapsed.update(late)
        return [Drop(uid, "lapsed") for uid in late]

    def _leave(self, now: float) -> list[Effect]:
        if self._left:
            return []
        leases = self.held()
        self._held.clear()
        self._puts.clear()
        drops: list[Effect] = [Drop(uid, "left") for uid in leases]
        released = self._put(leases, self._config.release_s, now) if self.capacity > 0 else []
        self._left = True
        return drops + released

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _next_uids(self) -> tuple[ExpertId, ...]:
        size = self._config.scan_uids_max
        if len(self._experts) <= size:
            return self._experts
        start = self._round * size % len(self._experts)
        part = (self._experts + self._experts)[start : start + size]
        self._round += 1
        return tuple(dict.fromkeys((*part, *self._held)))
