"""A past for an experiment: what the roll-up of reports leaves behind, one point a second, then the site's own coarser ones."""

from __future__ import annotations

import math
import random

SAMPLES, BATCH = 40, 5000


def write_history(name: str, points: int, now: float) -> int:
    """Write `points` seconds of training that end a minute before `now`. Returns how many points have a loss."""
    from coordinator.experiments.models import Experiment
    from coordinator.telemetry.models import Event, Point, Resolution
    from coordinator.telemetry.rollups import roll_up

    experiment = Experiment.objects.get(name=name)
    rng = random.Random(7)
    began = int(now) - 60 - points
    for start in range(0, points, BATCH):
        rows = [_point(experiment.pk, began + s, s / points, rng) for s in range(start, min(points, start + BATCH))]
        Point.objects.bulk_create(rows)
    for source, target in ((Resolution.SECOND, Resolution.MINUTE), (Resolution.MINUTE, Resolution.HOUR)):
        roll_up(source, target, now)
    Event.objects.bulk_create(
        Event(
            experiment=experiment,
            at=(at := began + points * i / SAMPLES),
            received_at=at,
            name="sample",
            detail={"step": i * 500, "prompt": "def main(argv):\n", "text": "    return " + "x" * rng.randrange(40, 120)},
        )
        for i in range(SAMPLES)
    )
    return Point.objects.filter(experiment=experiment, resolution=Resolution.SECOND, loss_batches__gt=0).count()


def _point(experiment: int, at: int, done: float, rng: random.Random):  # type: ignore[no-untyped-def]
    from coordinator.telemetry.models import Point, Resolution

    batches = rng.randrange(200, 600)
    loss = 2 + 3.5 * math.exp(-6 * done) + rng.gauss(0, 0.08)
    validated = at % 60 == 0
    return Point(
        experiment_id=experiment,
        resolution=Resolution.SECOND,
        at=at,
        tokens=batches * 512,
        calls=batches * 8,
        calls_failed=rng.randrange(3),
        rows_served=batches * 900,
        loss_sum=loss * batches,
        loss_batches=batches,
        validation_sum=loss + 0.05 if validated else 0.0,
        validation_count=int(validated),
        peers=rng.randrange(900, 1000),
        updated_at=float(at) + 2,
    )
