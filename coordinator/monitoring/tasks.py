"""Celery tasks of the monitoring."""

from __future__ import annotations

import time

from asgiref.sync import async_to_sync
from celery import shared_task

from coordinator.monitoring import bootstrap, observer, overlay

CENSUS_EXPIRES_S = 55.0


@shared_task(name="monitoring.examine")
def examine() -> None:
    overlay.examine_all(time.time())


@shared_task(name="monitoring.check_bootstrap")
def check_bootstrap() -> None:
    """And then the census, whose observer joins through the addresses that were just found to answer."""
    async_to_sync(bootstrap.check_all)(time.time())
    census.apply_async(expires=CENSUS_EXPIRES_S)


@shared_task(name="monitoring.census")
def census() -> None:
    observer.census_all(time.time())
