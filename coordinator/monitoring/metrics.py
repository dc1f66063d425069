"""Metrics for Prometheus, read from the database when asked. Labels are experiments, kinds and tasks: never peers."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Count, Q
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coordinator.experiments.models import Experiment
from coordinator.leaderboard.models import KINDS, Board
from coordinator.monitoring import machinery
from coordinator.monitoring.models import BootstrapCheck, Census, Examination, Outcome
from coordinator.telemetry import summaries

EXPERIMENTS_MAX = 50

GAUGES = {
    "peers": "Peers whose last report is at most 15 s old",
    "trainers": "Peers that train now",
    "tokens_per_s": "Tokens a second, all peers together",
    "loss": "Mean training loss of the newest seconds that have one, nats per token",
    "loss_validation": "Newest validation loss, nats per token",
    "experts_total": "Places in the grid",
    "experts_hosted": "Experts that a peer hosts",
}
COUNTERS = {
    "tokens": "Tokens trained, ever",
    "bytes_p2p": "Bytes sent between peers, ever",
    "bytes_coordinator": "Bytes exchanged with the coordinator, ever",
}


def text(now: float) -> bytes:
    """Everything, in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Hive(now))
    return generate_latest(registry)


def families(now: float) -> list[Metric]:
    """Every metric, with the samples that it has now."""
    return [*_experiments(now), *_health(now), *_machinery(now)]


class _Hive(Collector):
    def __init__(self, now: float) -> None:
        self._now = now

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        return iter(families(self._now))


def _experiments(now: float) -> Iterator[Metric]:
    gauges = {name: GaugeMetricFamily(f"hive_experiment_{name}", words, labels=["experiment"]) for name, words in GAUGES.items()}
    counters = {
        name: CounterMetricFamily(f"hive_experiment_{name}", words, labels=["experiment"]) for name, words in COUNTERS.items()
    }
    experiments = list(Experiment.objects.visible_to().order_by("-pk")[:EXPERIMENTS_MAX])
    summaries.with_manifests(experiments)
    figures = summaries.summaries(experiments, now)
    for experiment in experiments:
        summary = figures[experiment.pk]
        for name, metric in (gauges | counters).items():
            value = getattr(summary, name)
            if value is not None:  # unknown is no sample
                metric.add_metric([experiment.name], value)
    yield from gauges.values()
    yield from counters.values()
    work = GaugeMetricFamily("hive_contributions", "Contributions that count, of all peers, ever", labels=["experiment", "kind"])
    withheld = GaugeMetricFamily("hive_contributions_withheld", "Claimed beyond what is plausible", labels=["experiment", "kind"])
    for board in Board.objects.filter(window="all", experiment__isnull=False).select_related("experiment")[:EXPERIMENTS_MAX]:
        assert board.experiment is not None
        for kind in KINDS:
            work.add_metric([board.experiment.name, kind], getattr(board, kind))
            withheld.add_metric([board.experiment.name, kind], getattr(board, f"withheld_{kind}"))
    yield from (work, withheld)


def _health(now: float) -> Iterator[Metric]:
    parts = GaugeMetricFamily(
        "hive_overlay_parts", "Groups of peers without a connection to each other; 1 is well", labels=["experiment"]
    )
    vacant = GaugeMetricFamily("hive_experts_vacant", "Experts without a host", labels=["experiment"])
    single = GaugeMetricFamily("hive_experts_single", "Experts that one peer alone has", labels=["experiment"])
    for found in Examination.objects.select_related("experiment").order_by("-experiment")[:EXPERIMENTS_MAX]:
        parts.add_metric([found.experiment.name], len(found.parts))
        vacant.add_metric([found.experiment.name], found.vacant_count)
        single.add_metric([found.experiment.name], found.single_count)
    counted = GaugeMetricFamily("hive_overlay_peers", "Peers that answered the site's observer", labels=["experiment"])
    records = GaugeMetricFamily("hive_overlay_records", "Records that the overlay keeps", labels=["experiment"])
    for census in Census.objects.filter(error="").select_related("experiment").order_by("-experiment")[:EXPERIMENTS_MAX]:
        counted.add_metric([census.experiment.name], census.peers)
        records.add_metric([census.experiment.name], census.records)
    up = GaugeMetricFamily("hive_bootstrap_up", "Bootstrap addresses that answer", labels=["experiment"])
    down = GaugeMetricFamily("hive_bootstrap_down", "Bootstrap addresses that do not", labels=["experiment"])
    rows = BootstrapCheck.objects.values_list("experiment__name").annotate(
        up=Count("pk", filter=Q(outcome=Outcome.OK)), down=Count("pk", filter=Q(outcome=Outcome.FAILED))
    )
    for name, answering, silent in rows[:EXPERIMENTS_MAX]:
        up.add_metric([name], answering)
        down.add_metric([name], silent)
    yield from (parts, vacant, single, counted, records, up, down)


def _machinery(now: float) -> Iterator[Metric]:
    state = machinery.look(now)
    lag = GaugeMetricFamily("hive_task_lag_seconds", "Since the background task last came to an end", labels=["task"])
    for name, lag_s in state.lags_s.items():
        if lag_s is not None:
            lag.add_metric([name], lag_s)
    yield lag
    if state.queue is not None:
        yield GaugeMetricFamily("hive_queue_tasks", "Tasks that wait for a worker", value=state.queue)
    yield GaugeMetricFamily(
        "hive_ingest_buffered_items", "Telemetry items that wait to be stored, in this process", value=state.buffered
    )
    sockets = GaugeMetricFamily("hive_websockets", "Open WebSockets of this process", labels=["of"])
    for who, count in (("telemetry", state.agents), ("rendezvous", state.rendezvous), ("viewers", state.viewers)):
        sockets.add_metric([who], count)
    yield sockets
