"""What agents reported. Times are Unix seconds; counters are cumulative within a session, as in agent/reports.py."""

from __future__ import annotations

from enum import IntEnum

from django.db import models
from django.db.models import Q

from coordinator.experiments.models import Experiment

COUNT_MAX = 2**50
"""Larger counters are cut to this, so that a liar cannot overflow a sum."""


class Session(models.Model):
    """One run of one agent in one experiment, and the newest that it said. Never deleted: totals are sums over these."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="sessions")
    peer = models.CharField(max_length=52)
    session = models.CharField(max_length=16)
    version = models.CharField(max_length=40)
    started_at = models.FloatField()
    seen_at = models.FloatField()
    """When its newest item arrived here."""
    joined_at = models.FloatField(null=True)
    """When it said that it is in; None until then."""
    ended_at = models.FloatField(null=True)
    """When it left, or fell silent; None while it lives."""
    last_sequence = models.BigIntegerField(default=0)
    reported_at = models.FloatField(default=0)
    """The agent's own time of its newest report."""
    stage = models.CharField(max_length=12, default="starting")
    why = models.CharField(max_length=200, default="", blank=True)
    step = models.BigIntegerField(default=0)
    tokens = models.BigIntegerField(default=0)
    loss = models.FloatField(null=True)
    loss_validation = models.FloatField(null=True)
    tokens_per_s = models.FloatField(default=0)
    calls = models.BigIntegerField(default=0)
    calls_failed = models.BigIntegerField(default=0)
    backtracks = models.BigIntegerField(default=0)
    rows_served = models.BigIntegerField(default=0)
    bytes_p2p_sent = models.BigIntegerField(default=0)
    bytes_p2p_received = models.BigIntegerField(default=0)
    bytes_coordinator = models.BigIntegerField(default=0)
    experts_total = models.BigIntegerField(default=0)
    experts_alive = models.BigIntegerField(default=0)
    falls = models.PositiveIntegerField(default=0)
    """Reports in which a counter was lower than before: a broken or a lying agent. They add nothing."""
    connections = models.JSONField(default=list)
    """Newest list of {"peer", "kind", "rtt_ms"}."""
    direct = models.PositiveIntegerField(default=0)
    relayed = models.PositiveIntegerField(default=0)
    """How many connections of each kind; the list is long."""
    experts = models.JSONField(default=list)
    """Names of the experts that it hosts, newest report."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "peer", "session"], name="session_once")]
        indexes = [models.Index(fields=["experiment", "seen_at"], condition=Q(ended_at=None), name="session_live")]


class RawReport(models.Model):
    """What one report added. Kept for hours; charts read Points."""

    session = models.ForeignKey(Session, on_delete=models.CASCADE, related_name="reports")
    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="+")
    sequence = models.BigIntegerField()
    second = models.BigIntegerField()
    """The agent's time of it, whole Unix seconds."""
    received_at = models.FloatField()
    tokens = models.BigIntegerField()
    """Since the report before it, as are calls, calls_failed and rows_served."""
    calls = models.BigIntegerField()
    calls_failed = models.BigIntegerField()
    rows_served = models.BigIntegerField()
    loss = models.FloatField(null=True)
    loss_batches = models.BigIntegerField()
    loss_validation = models.FloatField(null=True)
    """Only where it differs from the report before it."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "sequence"], name="report_once")]
        indexes = [models.Index(fields=["experiment", "second"]), models.Index(fields=["received_at"])]


class Resolution(IntEnum):
    """Seconds per point."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3600


class Point(models.Model):
    """A roll-up: one experiment, one bucket of time. Holds sums, so that coarser points are sums of finer ones."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="points")
    resolution = models.PositiveSmallIntegerField(choices=[(r.value, r.name.lower()) for r in Resolution])
    at = models.BigIntegerField()
    """Where the bucket begins, Unix seconds, a multiple of the resolution."""
    tokens = models.BigIntegerField()
    calls = models.BigIntegerField()
    calls_failed = models.BigIntegerField()
    rows_served = models.BigIntegerField()
    loss_sum = models.FloatField()
    """Loss times batches; the mean loss is `loss_sum / loss_batches`."""
    loss_batches = models.BigIntegerField()
    validation_sum = models.FloatField()
    validation_count = models.BigIntegerField()
    peers = models.PositiveIntegerField()
    """The most peers that reported within one second of it."""
    updated_at = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "resolution", "at"], name="point_once")]
        indexes = [models.Index(fields=["resolution", "updated_at"]), models.Index(fields=["experiment", "updated_at"])]


class RollUpCursor(models.Model):
    """How far a roll-up has come: everything that arrived before `position` is in its points."""

    name = models.CharField(max_length=20, unique=True)
    position = models.FloatField(default=0)


class Event(models.Model):
    """Something that happened once: told by an agent, or seen by the coordinator (then `sequence` is None)."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="events")
    session = models.ForeignKey(Session, on_delete=models.CASCADE, null=True, related_name="events")
    sequence = models.BigIntegerField(null=True)
    at = models.FloatField()
    received_at = models.FloatField()
    name = models.CharField(max_length=42)
    detail = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "sequence"], name="event_once")]
        indexes = [models.Index(fields=["experiment", "at"]), models.Index(fields=["experiment", "name", "at"])]


class HostedExpert(models.Model):
    """Who hosts an expert, as the newest report with the highest epoch says."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="experts")
    uid = models.CharField(max_length=40)
    peer = models.CharField(max_length=52)
    epoch = models.BigIntegerField()
    version = models.BigIntegerField()
    rows = models.BigIntegerField()
    rows_per_s = models.FloatField(null=True)
    """Its load lately; None until its host has reported it twice."""
    seen_at = models.FloatField()
    """When a report last named it."""
    hosted = models.BooleanField(default=True)
    """False once its host dropped it, left or fell silent, until another one names it."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "uid"], name="expert_once")]


class CoordinatorRun(models.Model):
    """When a coordinator was up, so that a page can show when none was."""

    started_at = models.FloatField()
    beat_at = models.FloatField(db_index=True)
    """Renewed every few seconds."""
