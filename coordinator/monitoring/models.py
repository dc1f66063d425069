"""What the site found when it last looked after an experiment. Times are Unix seconds."""

from __future__ import annotations

from enum import StrEnum

from django.db import models

from coordinator.experiments.models import Experiment


class Outcome(StrEnum):
    """It answered; it did not; we do not connect to such addresses."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class BootstrapCheck(models.Model):
    """The last attempt to reach one address for first contact."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="bootstrap_checks")
    address = models.CharField(max_length=300)
    outcome = models.CharField(max_length=8, choices=[(o.value, o.value) for o in Outcome])
    detail = models.CharField(max_length=200, default="", blank=True)
    """Why not, in words."""
    latency_ms = models.FloatField(null=True)
    """From the first packet to the peer's answer."""
    checked_at = models.FloatField()
    answered_at = models.FloatField(null=True)
    """When it last answered; None if it never did."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "address"], name="bootstrap_check_once")]


class Census(models.Model):
    """What the site's own peer in an experiment's overlay counted (observer.py)."""

    experiment = models.OneToOneField(Experiment, on_delete=models.CASCADE, related_name="census")
    at = models.FloatField()
    error = models.CharField(max_length=300, default="", blank=True)
    """Why nothing is known; the figures are then zero and mean nothing."""
    observer = models.CharField(max_length=52)
    peers = models.PositiveIntegerField(default=0)
    """That answered, the observer not counted."""
    silent = models.PositiveIntegerField(default=0)
    """That others named, and that did not answer."""
    missing = models.PositiveIntegerField(default=0)
    """That report to the site, and that the overlay does not reach."""
    records = models.PositiveIntegerField(default=0)
    replicas = models.FloatField(default=0.0)
    """Copies per record."""
    parts = models.JSONField(default=list)
    """Sizes of the groups of peers that no connection joins, largest first."""
    complete = models.BooleanField(default=False)
    """False: it ended before everybody was asked, and the figures are lower bounds."""
    seconds = models.FloatField(default=0.0)


class Examination(models.Model):
    """The state of an experiment's overlay and experts, from what its peers reported."""

    experiment = models.OneToOneField(Experiment, on_delete=models.CASCADE, related_name="examination")
    at = models.FloatField()
    peers = models.PositiveIntegerField()
    parts = models.JSONField(default=list)
    """Sizes of the groups of peers that have no connection to each other, largest first; one group is as it should be."""
    vacant = models.JSONField(default=list)
    """Experts without a host, at most 100 names."""
    vacant_count = models.PositiveIntegerField(default=0)
    single_count = models.PositiveIntegerField(default=0)
    """Experts that one peer alone has."""
    experts = models.PositiveIntegerField(default=0)
    heaviest_peer = models.CharField(max_length=52, default="", blank=True)
    heaviest_experts = models.PositiveIntegerField(default=0)
    """Experts that the peer with the most of them hosts: what one crash takes down."""
    relayed = models.PositiveIntegerField(default=0)
    direct = models.PositiveIntegerField(default=0)
    stuck = models.JSONField(default=list)
    """At most 20 of {"peer", "stage", "why"}: peers that say why they do nothing."""
