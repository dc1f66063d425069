"""Contributions from what agents report: cumulative counters → one row per session, kind and minute.

Telemetry has turned each report's counters into what that report added (a counter that falls adds nothing). A round
takes every minute in which something arrived since the last one, and makes its rows again from all of its reports, so
repeating a round, or taking late arrivals, gives the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F, Min, QuerySet, Sum

from coordinator.leaderboard import ledger, plausible
from coordinator.leaderboard.models import Contribution, Kind, Source
from coordinator.leaderboard.plausible import MINUTE_S, SLOT_S, Claim
from coordinator.telemetry.models import RawReport, RollUpCursor
from coordinator.telemetry.store import RAW_KEPT_S

OVERLAP_S = 5.0
"""Looked at again in every round: a transaction may commit a little after the time that it carries."""
MINUTES_PER_STEP = 10
MERGE_AFTER_S = {3600: 26 * 3600, 86_400: 31 * 86_400}
"""Width of the merged window → how old its end must be: no raw report can change it any more, and no board looks inside."""
MERGED_PER_ROUND_MAX = 2000
"""Windows that one round of merging makes."""


def derive(now: float) -> int:
    """Post the minutes that got something since the last round. Returns how many contributions changed."""
    position = RollUpCursor.objects.get_or_create(name=ledger.CURSOR)[0].position
    changed = post_minutes(RawReport.objects.filter(received_at__gte=position - OVERLAP_S), now)
    RollUpCursor.objects.filter(name=ledger.CURSOR, position__lt=now).update(position=now)
    return changed


def post_minutes(reports: QuerySet[RawReport], now: float) -> int:
    """Post every minute that has one of `reports`, from all reports of that minute."""
    minutes: dict[int, list[int]] = {}
    found = reports.annotate(minute=F("second") - F("second") % MINUTE_S).values_list("experiment_id", "minute")
    for experiment_id, minute in found.distinct().order_by("experiment_id", "minute"):
        minutes.setdefault(experiment_id, []).append(minute)
    changed = 0
    for experiment_id, starts in minutes.items():
        for some in ledger.chunks(starts, MINUTES_PER_STEP):
            with transaction.atomic():
                ledger.lock()
                changed += ledger.post(experiment_id, _entries(experiment_id, some), now)
    return changed


def again(now: float) -> int:
    """Make the minutes whose reports are all still kept again. Returns how many contributions differ from before."""
    kept_from = int(now - RAW_KEPT_S) // MINUTE_S * MINUTE_S + MINUTE_S
    return post_minutes(RawReport.objects.filter(second__gte=kept_from), now)


def merge(now: float) -> int:
    """Merge minutes into hours and hours into days where they are old. Sums stay as they are. Returns how many were made."""
    made = 0
    for width, age_s in MERGE_AFTER_S.items():
        old = Contribution.objects.filter(source=Source.REPORT, ended_at__lt=now - age_s)
        narrow = old.filter(ended_at__lt=F("started_at") + width)
        groups = narrow.annotate(window=F("started_at") - F("started_at") % width).filter(window__lt=now - age_s - width)
        keys = ("experiment_id", "window", "peer", "session", "kind")
        rows = groups.values(*keys).annotate(total=Sum("amount"), said=Sum("claimed"), first=Min("pk")).order_by("window")
        for row in list(rows[:MERGED_PER_ROUND_MAX]):
            made += _merge_one(row, width)
    return made


def _merge_one(row: dict[str, int | str], width: int) -> int:
    start = int(row["window"])
    same = Contribution.objects.filter(
        source=Source.REPORT,
        experiment_id=row["experiment_id"],
        peer=row["peer"],
        session=row["session"],
        kind=row["kind"],
        started_at__gte=start,
        started_at__lt=start + width,
    )
    with transaction.atomic():
        ledger.lock()
        sums = same.aggregate(amount=Sum("amount"), claimed=Sum("claimed"))
        same.exclude(pk=row["first"]).delete()
        same.filter(pk=row["first"]).update(started_at=start, ended_at=start + width, **sums)
    return 1


def _entries(experiment_id: int, minutes: Sequence[int]) -> list[ledger.Entry]:
    rows = RawReport.objects.filter(
        experiment_id=experiment_id, second__gte=min(minutes), second__lt=max(minutes) + MINUTE_S
    ).annotate(slot=F("second") / SLOT_S)
    sums = rows.values_list("session__peer", "session__session", "slot").annotate(Sum("tokens"), Sum("rows_served"))
    wanted = set(minutes)
    claims: dict[tuple[str, int], list[Claim]] = {}
    for peer, session, slot, tokens, served in sums:
        minute = slot * SLOT_S // MINUTE_S * MINUTE_S
        if minute in wanted:
            claims.setdefault((peer, minute), []).append(Claim(session=session, slot=slot, tokens=tokens, rows=served))
    return [
        ledger.Entry(
            peer=peer,
            session=session,
            kind=Kind(kind),
            amount=amount,
            claimed=claimed,
            started_at=minute,
            ended_at=minute + MINUTE_S,
        )
        for (peer, minute), of_peer in claims.items()
        for (session, kind), (amount, claimed) in plausible.judge(of_peer).items()
    ]
