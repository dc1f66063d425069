"""Celery inside the process: the scheduled tasks run with no broker, and stop. In a process of its own, as Celery is global."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from coordinator.celery import app

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import threading
import django
django.setup()
from celery import Celery
from coordinator.embedded import EmbeddedCelery

ran = threading.Event()
app = Celery("test", broker="memory://")
app.conf.update(broker_transport_options={"polling_interval": 0.02}, task_ignore_result=True)
app.conf.beat_schedule = {"tick": {"task": "test.tick", "schedule": 0.1}}

@app.task(name="test.tick")
def tick():
    ran.set()

celery = EmbeddedCelery(app, wake="test.tick")
celery.start()
assert ran.wait(20), "the scheduled task did not run"
celery.stop()
assert not any(t.is_alive() for t in celery._threads), "a thread did not end"
"""


def test_a_scheduled_task_runs_and_both_threads_end(tmp_path: Path) -> None:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "coordinator.settings", "HIVE_STATE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_scheduled_task_exists() -> None:
    app.loader.import_default_modules()
    assert {entry["task"] for entry in app.conf.beat_schedule.values()} <= set(app.tasks)
