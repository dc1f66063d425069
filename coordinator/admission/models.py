"""Who may take part in an experiment that is not open to everybody: invitations, requests, and who was let in."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from coordinator.accounts import secrets
from coordinator.experiments.models import Experiment, Role

LOOKUP_LETTERS, PROOF_LETTERS = 8, 24


class InviteQuerySet(models.QuerySet["Invite"]):
    def live(self) -> InviteQuerySet:
        """Those that still let somebody in."""
        in_time = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        return self.filter(in_time, revoked_at=None).filter(Q(uses_max=None) | Q(uses__lt=F("uses_max")))


class Invite(models.Model):
    """A link that lets in whoever opens it. Its code is computed, not stored: the table alone lets nobody in."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="invites")
    lookup = models.CharField(max_length=LOOKUP_LETTERS, unique=True)
    note = models.CharField(max_length=80, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    uses_max = models.PositiveIntegerField(null=True)
    """None: any number."""
    uses = models.PositiveIntegerField(default=0)
    revoked_at = models.DateTimeField(null=True)

    objects = InviteQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]

    @property
    def code(self) -> str:
        """What stands in the link."""
        return f"{self.lookup}{secrets.digest('invite', self.lookup)[:PROOF_LETTERS]}"

    @property
    def is_live(self) -> bool:
        in_time = self.expires_at is None or self.expires_at > timezone.now()
        return self.revoked_at is None and in_time and (self.uses_max is None or self.uses < self.uses_max)


class MembershipQuerySet(models.QuerySet["Membership"]):
    def managed_by(self, user: object) -> MembershipQuerySet:
        return self.filter(experiment__in=Experiment.objects.managed_by(user))


class Membership(models.Model):
    """One person's standing in one experiment."""

    class Standing(models.TextChoices):
        REQUESTED = "requested"
        ADMITTED = "admitted"
        REFUSED = "refused"
        REMOVED = "removed"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    standing = models.CharField(max_length=10, choices=Standing.choices)
    message = models.CharField(max_length=500, blank=True)
    """What they wrote with their request."""
    invite = models.ForeignKey(Invite, on_delete=models.SET_NULL, null=True, related_name="+")
    asked_at = models.DateTimeField(default=timezone.now)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    objects = MembershipQuerySet.as_manager()

    class Meta:
        ordering = ["-asked_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["experiment", "user"], name="membership_once"),
            models.CheckConstraint(
                condition=Q(standing__in=["requested", "admitted", "refused", "removed"]), name="membership_standing"
            ),
        ]


class IssuedCertificate(models.Model):
    """That a certificate was given, so that organizers see which peers may show one until when."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="certificates")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="certificates")
    peer = models.CharField(max_length=52)
    issued_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "peer"], name="certificate_newest")]


def standing(experiment: Experiment, user: object) -> str:
    """`organizer`, a Membership.Standing, or an empty string for none."""
    if not getattr(user, "is_authenticated", False):
        return ""
    if Role.objects.filter(experiment=experiment, user=user).exists():
        return "organizer"
    found = Membership.objects.filter(experiment=experiment, user=user).values_list("standing", flat=True).first()
    return found or ""
