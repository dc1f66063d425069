"""Celery tasks of the rendezvous."""

from __future__ import annotations

import time

from celery import shared_task

from coordinator.rendezvous import actions


@shared_task(name="rendezvous.forget")
def forget() -> None:
    actions.forget(time.time())
