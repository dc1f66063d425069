"""Peers that wait for first contact, and addresses of bootstrap peers. All of it is forgotten soon."""

from __future__ import annotations

from django.db import models

from coordinator.experiments.models import Experiment


class WaitingPeer(models.Model):
    """A peer with an open rendezvous WebSocket, and the channel that reaches it (in any process)."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="waiting")
    peer = models.CharField(max_length=52)
    channel = models.CharField(max_length=200)
    seen_at = models.FloatField()
    """Unix time, seconds; renewed while the WebSocket is open."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "peer"], name="waiting_once")]
        indexes = [models.Index(fields=["experiment", "seen_at"])]


class BootstrapAddress(models.Model):
    """Where a bootstrap peer said that it can be reached."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="bootstrap_addresses")
    peer = models.CharField(max_length=52)
    address = models.CharField(max_length=300)
    seen_at = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "peer"], name="address_once")]
        indexes = [models.Index(fields=["experiment", "seen_at"])]
