"""Celery tasks of the leaderboard."""

from __future__ import annotations

import time

from celery import shared_task

from coordinator.leaderboard import derive, scores


@shared_task(name="leaderboard.derive")
def derive_contributions() -> None:
    derive.derive(time.time())


@shared_task(name="leaderboard.score")
def score() -> None:
    scores.compute(time.time())


@shared_task(name="leaderboard.retain")
def retain() -> None:
    derive.merge(time.time())
    scores.forget(time.time())
