"""Celery's worker and beat as threads of the server's process, with an in-memory broker: the one-command start."""

from __future__ import annotations

import threading
from typing import Any

from celery import Celery, beat
from celery.worker import WorkController
from celery.worker import state as worker_state

JOIN_S = 5.0
THREADS = 2


class EmbeddedCelery:
    """Starts both, and stops both warmly."""

    def __init__(self, app: Celery, *, wake: str) -> None:
        """`wake` names a harmless task: sent at the stop, it makes the worker look whether it should."""
        self._app, self._wake = app, wake
        self._worker: Any = WorkController(
            app=app,
            pool="threads",
            concurrency=THREADS,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
        )
        self._beat = beat.Service(app, max_interval=1, scheduler_cls="celery.beat:Scheduler")
        self._threads = [
            threading.Thread(target=self._worker.start, name="celery-worker", daemon=True),
            threading.Thread(target=self._beat.start, kwargs={"embedded_process": False}, name="celery-beat", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the running tasks end, then return; at most JOIN_S seconds per thread."""
        worker, beats = self._threads
        worker_state.should_stop = 0
        self._app.send_task(self._wake)
        worker.join(JOIN_S)
        self._beat.stop(wait=False)
        beats.join(JOIN_S)
        worker_state.should_stop = None
