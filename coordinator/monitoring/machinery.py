"""How the coordinator itself does: tasks that are behind, the queue, what waits in this process."""

from __future__ import annotations

from dataclasses import dataclass

from amqp.exceptions import AMQPError
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from coordinator.celery import app
from coordinator.leaderboard.ledger import CURSOR
from coordinator.rendezvous.consumers import RendezvousConsumer
from coordinator.telemetry.consumers import TelemetryConsumer, intake
from coordinator.telemetry.live import LiveConsumer
from coordinator.telemetry.models import CoordinatorRun, RollUpCursor

NAMES = {"seconds": "1-second points", "1-60": "1-minute points", "60-3600": "1-hour points", CURSOR: "contributions"}
PERIODS_S = {"1-second points": 1.0, "1-minute points": 5.0, "1-hour points": 60.0, "contributions": 10.0, "heartbeat": 3.0}
CONNECT_S = 2
BROKER_ERRORS = (OSError, OperationalError, KombuError, CeleryError, AMQPError, RedisError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machinery:
    """A moment's view. Sockets and the buffer are those of the process that answers."""

    lags_s: dict[str, float | None]
    """Task → how long ago it last came to an end; None if it never did."""
    periods_s: dict[str, float]
    queue: int | None
    """Tasks that wait; None if the broker does not answer."""
    buffered: int
    """Telemetry items that wait to be stored."""
    buffered_max: int
    agents: int
    rendezvous: int
    viewers: int


def look(now: float) -> Machinery:
    positions = dict(RollUpCursor.objects.values_list("name", "position"))
    beat = CoordinatorRun.objects.order_by("-beat_at").values_list("beat_at", flat=True).first()
    lags = {words: (max(0.0, now - positions[name]) if positions.get(name) else None) for name, words in NAMES.items()}
    return Machinery(
        lags_s=lags | {"heartbeat": None if beat is None else max(0.0, now - beat)},
        periods_s=PERIODS_S,
        queue=queue_length(),
        buffered=intake.items,
        buffered_max=intake.config.items_max,
        agents=len(TelemetryConsumer.places),
        rendezvous=len(RendezvousConsumer.places),
        viewers=len(LiveConsumer.places),
    )


def queue_length() -> int | None:
    """Tasks in the default queue; None if the broker does not answer within CONNECT_S."""
    try:
        with app.connection_for_read(
            transport_options={**app.conf.broker_transport_options, "socket_timeout": CONNECT_S}
        ) as link:
            link.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_S)
            with link.channel() as channel:
                queue = app.amqp.queues[app.conf.task_default_queue](channel)
                return int(queue.queue_declare().message_count)  # declaring it again changes nothing; Redis has no passive way
    except BROKER_ERRORS:
        return None
