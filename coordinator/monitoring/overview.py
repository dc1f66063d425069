"""What the operator's page and its API show."""

from __future__ import annotations

from typing import Any

from coordinator.experiments.models import Experiment
from coordinator.monitoring import machinery, problems
from coordinator.monitoring.models import BootstrapCheck, Examination

EXPERIMENTS_MAX = 50
PROBLEMS_MAX = 100


def overview(now: float) -> dict[str, Any]:
    """`problems`, worst first; `machinery`; `experiments` with examination and checks. A fixed number of queries."""
    running = Experiment.objects.visible_to().exclude(status=Experiment.Status.FINISHED).order_by("-pk")[:EXPERIMENTS_MAX]
    experiments = list(running)
    examinations = {e.experiment_id: e for e in Examination.objects.filter(experiment__in=[x.pk for x in experiments])}
    checks: dict[int, list[BootstrapCheck]] = {}
    for check in BootstrapCheck.objects.filter(experiment__in=[x.pk for x in experiments]).order_by("address"):
        checks.setdefault(check.experiment_id, []).append(check)
    state = machinery.look(now)
    found = list(problems.of_machinery(state, now))
    for experiment in experiments:
        found += problems.of_experiment(experiment, examinations.get(experiment.pk), checks.get(experiment.pk, []), now)
    found.sort(key=lambda p: p.severity != "bad")
    return {
        "problems": found[:PROBLEMS_MAX],
        "problems_count": len(found),
        "machinery": state,
        "boards_age_s": problems.boards_age_s(now),
        "experiments": [
            {"experiment": e, "examination": examinations.get(e.pk), "checks": checks.get(e.pk, [])} for e in experiments
        ],
    }
