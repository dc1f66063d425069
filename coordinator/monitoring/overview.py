"""What the operator's page and its API show."""

from __future__ import annotations

import itertools
from typing import Any

from coordinator.experiments.models import Experiment
from coordinator.monitoring import machinery, problems
from coordinator.monitoring.models import BootstrapCheck, Census, Examination

EXPERIMENTS_MAX = 50
PROBLEMS_MAX = 100


def overview(now: float) -> dict[str, Any]:
    """`problems`, worst first; `machinery`; `experiments` with examination, census and checks. A fixed number of queries."""
    running = Experiment.objects.visible_to().exclude(status=Experiment.Status.FINISHED).order_by("-pk")[:EXPERIMENTS_MAX]
    experiments = list(running)
    examinations = {e.experiment_id: e for e in Examination.objects.filter(experiment__in=[x.pk for x in experiments])}
    checks: dict[int, list[BootstrapCheck]] = {}
    for check in BootstrapCheck.objects.filter(experiment__in=[x.pk for x in experiments]).order_by("address"):
        checks.setdefault(check.experiment_id, []).append(check)
    censuses = {c.experiment_id: c for c in Census.objects.filter(experiment__in=[x.pk for x in experiments])}
    state = machinery.look(now)
    of_it = {
        e.pk: [
            *problems.of_experiment(e, examinations.get(e.pk), checks.get(e.pk, []), now),
            *problems.of_census(e, censuses.get(e.pk), now),
        ]
        for e in experiments
    }
    found = [*problems.of_machinery(state, now), *itertools.chain.from_iterable(of_it.values())]
    found.sort(key=lambda p: p.severity != "bad")
    return {
        "problems": found[:PROBLEMS_MAX],
        "problems_count": len(found),
        "machinery": state,
        "boards_age_s": problems.boards_age_s(now),
        "experiments": [
            {
                "experiment": e,
                "examination": examinations.get(e.pk),
                "census": censuses.get(e.pk),
                "checks": checks.get(e.pk, []),
                "problems": of_it[e.pk],
            }
            for e in experiments
        ],
    }


def of_experiment(experiment: Experiment, now: float) -> dict[str, Any]:
    """One experiment's `examination` and `census` (None before the first), `checks`, and `problems` while it is not finished."""
    examination = Examination.objects.filter(experiment=experiment).first()
    checks = list(BootstrapCheck.objects.filter(experiment=experiment).order_by("address"))
    over = experiment.status == Experiment.Status.FINISHED
    census = Census.objects.filter(experiment=experiment).first()
    found = [*problems.of_experiment(experiment, examination, checks, now), *problems.of_census(experiment, census, now)]
    found = [] if over else sorted(found, key=lambda p: p.severity != "bad")
    return {
        "experiment": experiment,
        "examination": examination,
        "census": census,
        "checks": checks,
        "problems": found[:PROBLEMS_MAX],
    }
