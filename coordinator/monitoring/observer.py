"""Sends an observer into each overlay, a peer of the site's own that counts peers and records, and keeps what it found.

The observer is a process (agent/observer.py): it joins through bootstrap addresses that answered when they were last tried
(monitoring/bootstrap.py, which also decides to which addresses the site may connect), over WebRTC as everybody does. Where no
address answers, nothing is known, and the page says so.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from django.conf import settings

from agent.admission import Certificate, issue
from agent.observation import CONTACTS_MAX, EXPECTED_MAX, Assignment, Finding
from coordinator import state
from coordinator.experiments.models import Experiment
from coordinator.monitoring.models import BootstrapCheck, Census, Outcome
from coordinator.telemetry import queries

log = logging.getLogger(__name__)

EXPERIMENTS_MAX = 20
PARTS_MAX = 20
CENSUS_S, PROCESS_S = 20.0, 60.0
"""For the crawl, and for the process from its start to its end."""
ROUND_S = 200.0
"""For all experiments of one round; those that have waited longest come first."""
CERTIFICATE_S = 3600

Observe = Callable[[Assignment], Finding]


def census_all(now: float, observe: Observe | None = None, *, clock: Callable[[], float] = time.monotonic) -> int:
    """Take a census of every experiment that runs and has peers. Returns how many were tried."""
    observe = observe or dispatch
    running = Experiment.objects.visible_to().exclude(status=Experiment.Status.FINISHED).order_by("census__at", "-pk")
    began, count = clock(), 0
    for experiment in running[:EXPERIMENTS_MAX]:
        if clock() - began > ROUND_S:
            break
        present = list(queries.present(experiment, now).values_list("peer", flat=True)[:EXPECTED_MAX])
        if present:
            count += 1
            take(experiment, present, now, observe)
    return count


def take(experiment: Experiment, present: list[str], now: float, observe: Observe) -> Census:
    """One experiment's; `present` are the peers that report to the site."""
    assignment = assign(experiment, present, now)
    if assignment is None:
        finding = Finding(error="no bootstrap address answers, so the site's observer cannot join")
    else:
        finding = observe(assignment)
    found, _ = Census.objects.update_or_create(
        experiment=experiment,
        defaults={
            "at": now,
            "error": finding.error,
            "observer": str(state.observer_identity(settings.STATE_DIR)),
            "peers": finding.peers,
            "silent": finding.silent,
            "missing": finding.missing,
            "records": finding.records,
            "replicas": finding.replicas,
            "parts": list(finding.parts[:PARTS_MAX]),
            "complete": finding.complete,
            "seconds": finding.seconds,
        },
    )
    return found


def assign(experiment: Experiment, present: list[str], now: float) -> Assignment | None:
    """What the observer is told; None without an address to join by."""
    answering = BootstrapCheck.objects.filter(experiment=experiment, outcome=Outcome.OK).order_by("-answered_at")
    contacts = tuple(answering.values_list("address", flat=True)[:CONTACTS_MAX])
    if not contacts:
        return None
    observer, signer = state.observer_identity(settings.STATE_DIR), state.signing_identity(settings.STATE_DIR)
    certificate = Certificate(
        format=1,
        peer=observer.raw,
        experiment=experiment.name,
        account="observer",
        name="",
        issued_at=int(now),
        ends_at=int(now) + CERTIFICATE_S,
    )
    return Assignment(
        experiment=experiment.name,
        policy=experiment.manifest.admission,
        coordinator_key=str(signer.peer_id),
        certificate=issue(certificate, signer),
        key_file=str(settings.STATE_DIR / state.OBSERVER_FILE),
        ice_servers=experiment.manifest.ice_servers,
        contacts=contacts,
        expected=tuple(peer for peer in present if peer != str(observer)),
        budget_s=CENSUS_S,
    )


def dispatch(assignment: Assignment) -> Finding:
    """Start the observer, and read what it says."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "agent.observer"],
            input=msgspec.json.encode(assignment),
            capture_output=True,
            timeout=PROCESS_S,
            cwd=Path(__file__).resolve().parents[2],
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(error=f"the observer did not come back within {PROCESS_S:.0f} s")
    except OSError as e:
        return Finding(error=f"the observer cannot be started: {e.strerror}")
    try:
        return msgspec.json.decode(done.stdout, type=Finding)
    except (msgspec.DecodeError, RecursionError):
        log.error("the observer ended with %d: %s", done.returncode, done.stderr[-2000:].decode(errors="replace"))
        return Finding(error="the observer failed; the coordinator's log says how")
