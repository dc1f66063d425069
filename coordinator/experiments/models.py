"""An experiment and the signed revisions of its manifest."""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec
from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q

from agent.manifest import MANIFEST_BYTES_MAX, Manifest, SignedManifest, decode


class ExperimentQuerySet(models.QuerySet["Experiment"]):
    """Who may see what is decided here and nowhere else."""

    def visible_to(self, user: object = None) -> ExperimentQuerySet:
        """What `user` (None: a stranger) may know of: everything but drafts; drafts too for staff and for who organizes them.

        A draft has no published revision. Whoever may *join* is another question: coordinator/admission.
        """
        published = ~Q(status=Experiment.Status.DRAFT)
        if not getattr(user, "is_authenticated", False):
            return self.filter(published)
        if getattr(user, "is_staff", False):
            return self.all()
        return self.filter(published | Q(Exists(Role.objects.filter(experiment=OuterRef("pk"), user=user))))

    def listed(self) -> ExperimentQuerySet:
        """What lists show to everybody: published, and not put into the archive."""
        return self.visible_to().filter(archived_at=None)

    def managed_by(self, user: object) -> ExperimentQuerySet:
        """What `user` may change: what they own or co-organize; everything for staff."""
        return self._with_role(user, Role.Kind.values)

    def owned_by(self, user: object) -> ExperimentQuerySet:
        """What `user` may give away: appoint and dismiss organizers, archive, delete."""
        return self._with_role(user, [Role.Kind.OWNER])

    def _with_role(self, user: object, kinds: list[str]) -> ExperimentQuerySet:
        if not getattr(user, "is_authenticated", False) or not getattr(user, "is_active", False):
            return self.none()
        if getattr(user, "is_staff", False):
            return self.all()
        return self.filter(Exists(Role.objects.filter(experiment=OuterRef("pk"), user=user, kind__in=kinds)))


class Experiment(models.Model):
    """One experiment. Its content is in its newest ManifestRevision."""

    class Status(models.TextChoices):
        DRAFT = "draft"
        OPEN = "open"
        PAUSED = "paused"
        FINISHED = "finished"

    name = models.SlugField(max_length=63, unique=True)
    title = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DRAFT)
    created_at = models.DateTimeField(auto_now_add=True)
    archived_at = models.DateTimeField(null=True, blank=True)
    """Left out of lists since then. Its pages and records stay where they are."""
    draft = models.BinaryField(max_length=MANIFEST_BYTES_MAX, null=True)
    """The manifest's JSON while nothing is published yet: validated, and signed by nobody."""

    objects = ExperimentQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=["draft", "open", "paused", "finished"]), name="experiment_status"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def revision(self) -> ManifestRevision | None:
        """The newest published revision."""
        return self.revisions.order_by("-revision").first()

    @property
    def manifest(self) -> Manifest:
        """The newest manifest. Only for experiments that are not drafts."""
        assert self.revision is not None, "a published experiment has a revision"
        return self.revision.manifest

    @property
    def planned(self) -> Manifest | None:
        """What its organizers see: the newest manifest, or the draft of the first; None for a draft without content."""
        if self.revision is not None:
            return self.revision.manifest
        return decode(bytes(self.draft)) if self.draft else None


class Role(models.Model):
    """Somebody who organizes an experiment."""

    class Kind(models.TextChoices):
        OWNER = "owner"
        CO_ORGANIZER = "co-organizer"

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="roles")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="roles")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["experiment", "user"], name="role_once"),
            models.CheckConstraint(condition=Q(kind__in=["owner", "co-organizer"]), name="role_kind"),
        ]


class ManifestRevision(models.Model):
    """One signed manifest, never changed afterwards."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="revisions")
    revision = models.PositiveIntegerField()
    payload = models.BinaryField(max_length=MANIFEST_BYTES_MAX)
    """The manifest's JSON, exactly as signed."""
    signature = models.BinaryField(max_length=64)
    key = models.CharField(max_length=52)
    created_at = models.DateTimeField(auto_now_add=True)
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    """None: published at the machine itself, or by somebody whose account is deleted."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "revision"], name="revision_once")]

    def __str__(self) -> str:
        return f"{self.experiment_id} r{self.revision}"

    @cached_property
    def manifest(self) -> Manifest:
        return decode(bytes(self.payload))

    @cached_property
    def signed_json(self) -> bytes:
        """What agents fetch: the JSON of a SignedManifest."""
        return msgspec.json.encode(SignedManifest(payload=bytes(self.payload), signature=bytes(self.signature), key=self.key))

    @property
    def etag(self) -> str:
        return '"' + hashlib.sha256(self.signed_json).hexdigest()[:32] + '"'
