"""The one door to contributions: posts entries, and moves the running sums by exactly what changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import F, Sum

from coordinator.leaderboard.models import EVER, SUMS, Contribution, Kind, Source, Tally
from coordinator.telemetry.models import RollUpCursor

HOUR_S = 3600
HOURS_KEPT_S = 9 * 86_400
"""Sums of hours that are older are deleted: the longest window, a day earlier, does not reach them."""
PEERS_PER_STATEMENT = 400
CURSOR = "contributions"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A contribution to be posted. Posting one with the same key again replaces its amounts."""

    peer: str
    kind: Kind
    amount: int
    claimed: int
    started_at: int
    ended_at: int
    session: str = ""
    served: str = ""
    source: Source = Source.REPORT
    verified: bool = False

    @property
    def key(self) -> tuple[int, str, str, str, str, str]:
        return (self.started_at, self.peer, self.session, self.kind, self.served, self.source)


def post(experiment_id: int, entries: Sequence[Entry], now: float) -> int:
    """Record `entries`, each once by its key. Returns how many were new or different. Raises DatabaseError, and then none is."""
    with transaction.atomic():
        lock()
        known = _known(experiment_id, entries)
        changed = [e for e in entries if known.get(e.key) != (e.amount, e.claimed)]
        Contribution.objects.bulk_create(
            [_row(experiment_id, e) for e in changed],
            update_conflicts=True,
            unique_fields=["experiment", "started_at", "peer", "session", "kind", "served", "source"],
            update_fields=["amount", "claimed", "ended_at", "verified"],
            batch_size=1000,
        )
        moves: dict[tuple[str, int], dict[str, int]] = {}
        for e in changed:
            amount, claimed = known.get(e.key, (0, 0))
            for hour in (e.started_at // HOUR_S * HOUR_S, EVER):
                sums = moves.setdefault((e.peer, hour), dict.fromkeys(SUMS, 0))
                for name, change in columns(e.kind, e.verified, e.amount - amount, e.claimed - claimed):
                    sums[name] += change
        _move(experiment_id, moves, now)
    return len(changed)


def columns(kind: str, verified: bool, amount: int, claimed: int) -> Iterator[tuple[str, int]]:
    """Which sums a contribution belongs to. Verified work is counted beside reported work, not on top of it."""
    if verified:
        yield f"verified_{kind}", amount
    else:
        yield kind, amount
        yield f"withheld_{kind}", claimed - amount


def lock() -> None:
    """Whoever changes contributions or sums holds this until the transaction ends."""
    RollUpCursor.objects.get_or_create(name=CURSOR)
    RollUpCursor.objects.select_for_update().get(name=CURSOR)


def rebuild_tallies(now: float) -> int:
    """Make every sum again from the contributions. Returns how many sums there are."""
    with transaction.atomic():
        lock()
        Tally.objects.all().delete()
        moves: dict[int, dict[tuple[str, int], dict[str, int]]] = {}
        rows = Contribution.objects.annotate(hour=F("started_at") - F("started_at") % HOUR_S)
        recent = rows.filter(hour__gte=now - HOURS_KEPT_S, ended_at__lte=F("started_at") + HOUR_S)
        keys = ("experiment_id", "peer", "kind", "verified")
        for part, hours in ((rows.values(*keys), False), (recent.values(*keys, "hour"), True)):
            for row in part.annotate(amount=Sum("amount"), claimed=Sum("claimed")).order_by().iterator(5000):
                key = (row["peer"], row["hour"] if hours else EVER)
                sums = moves.setdefault(row["experiment_id"], {}).setdefault(key, dict.fromkeys(SUMS, 0))
                for name, change in columns(row["kind"], row["verified"], row["amount"], row["claimed"]):
                    sums[name] += change
        for experiment_id, of_it in moves.items():
            _move(experiment_id, of_it, now)
    return sum(map(len, moves.values()))


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    held = list(items)
    for i in range(0, len(held), size):
        yield held[i : i + size]


def _known(experiment_id: int, entries: Sequence[Entry]) -> dict[tuple[Any, ...], tuple[int, int]]:
    known: dict[tuple[Any, ...], tuple[int, int]] = {}
    starts = {e.started_at for e in entries}
    fields = ("started_at", "peer", "session", "kind", "served", "source", "amount", "claimed")
    for peers in chunks(sorted({e.peer for e in entries}), PEERS_PER_STATEMENT):
        rows = Contribution.objects.filter(experiment_id=experiment_id, started_at__in=starts, peer__in=peers)
        known |= {row[:-2]: row[-2:] for row in rows.values_list(*fields)}
    return known


def _row(experiment_id: int, entry: Entry) -> Contribution:
    return Contribution(
        experiment_id=experiment_id,
        peer=entry.peer,
        served=entry.served,
        session=entry.session,
        kind=entry.kind,
        source=entry.source,
        verified=entry.verified,
        amount=entry.amount,
        claimed=entry.claimed,
        started_at=entry.started_at,
        ended_at=entry.ended_at,
    )


def _move(experiment_id: int, moves: dict[tuple[str, int], dict[str, int]], now: float) -> None:
    """Add to the sums. Called under the lock, so that reading and writing them is one step."""
    hours = {hour for _, hour in moves}
    for peers in chunks(sorted({peer for peer, _ in moves}), PEERS_PER_STATEMENT):
        rows = Tally.objects.filter(experiment_id=experiment_id, hour__in=hours, peer__in=peers)
        tallies = {(t.peer, t.hour): t for t in rows}
        wanted = set(peers)
        for (peer, hour), sums in moves.items():
            if peer not in wanted:
                continue
            tally = tallies.setdefault((peer, hour), Tally(experiment_id=experiment_id, peer=peer, hour=hour))
            tally.updated_at = now
            for name, change in sums.items():
                setattr(tally, name, getattr(tally, name) + change)
        Tally.objects.bulk_create(
            [t for key, t in tallies.items() if key in moves],
            update_conflicts=True,
            unique_fields=["experiment", "hour", "peer"],
            update_fields=[*SUMS, "updated_at"],
            batch_size=500,
        )
