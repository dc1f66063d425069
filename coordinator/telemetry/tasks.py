"""Celery tasks of the telemetry: thin, so that everything behind them is tested with a given clock."""

from __future__ import annotations

import time

from asgiref.sync import async_to_sync
from celery import shared_task

from coordinator.telemetry import membership, rollups
from coordinator.telemetry.consumers import tell_viewers
from coordinator.telemetry.models import Resolution


@shared_task(name="telemetry.roll_up_seconds")
def roll_up_seconds() -> None:
    rollups.roll_up_seconds(time.time())


@shared_task(name="telemetry.roll_up_minutes")
def roll_up_minutes() -> None:
    rollups.roll_up(Resolution.SECOND, Resolution.MINUTE, time.time())


@shared_task(name="telemetry.roll_up_hours")
def roll_up_hours() -> None:
    rollups.roll_up(Resolution.MINUTE, Resolution.HOUR, time.time())


@shared_task(name="telemetry.mark_gone")
def mark_gone() -> None:
    if names := membership.mark_gone(time.time()):
        async_to_sync(tell_viewers)(names)


@shared_task(name="telemetry.heartbeat")
def heartbeat() -> None:
    membership.heartbeat(time.time())


@shared_task(name="telemetry.retain")
def retain() -> None:
    rollups.retain(time.time())
