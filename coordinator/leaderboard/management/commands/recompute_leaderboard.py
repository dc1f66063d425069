"""`manage.py recompute_leaderboard`: contributions from the raw reports, sums and ranks from the contributions."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand

from coordinator.leaderboard import derive, ledger, scores


class Command(BaseCommand):
    help = (
        "Make the leaderboard again from the records: the last day's contributions from raw reports, all sums and ranks from "
        "contributions. On a healthy site nothing changes."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        now = time.time()
        differed = derive.again(now)
        sums = ledger.rebuild_tallies(now)
        boards = scores.compute(now, force=True)
        self.stdout.write(f"{differed} contributions differed; {sums} sums and {boards} boards made again")
