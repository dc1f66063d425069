"""Writes to experiments. A change of content is always a new signed revision."""

from __future__ import annotations

import msgspec
from django.conf import settings
from django.db import transaction

from agent.identity import Identity
from agent.manifest import Manifest, sign
from coordinator import state
from coordinator.experiments.models import Experiment, ManifestRevision


def publish(manifest: Manifest, *, identity: Identity | None = None) -> ManifestRevision:
    """Sign `manifest` as the next revision of the experiment that it names, and open it to agents.

    The revision in `manifest` is replaced by the next free one. Content that equals the newest revision's gives that
    revision back. Raises ManifestRejected if it does not validate, IdentityError if the key file is unusable.
    """
    identity = identity or state.signing_identity(settings.STATE_DIR)
    with transaction.atomic():
        experiment, _ = Experiment.objects.get_or_create(name=manifest.name, defaults={"title": manifest.title})
        experiment = Experiment.objects.select_for_update().get(pk=experiment.pk)
        newest = experiment.revisions.order_by("-revision").first()
        manifest = msgspec.structs.replace(manifest, revision=newest.revision + 1 if newest else 1)
        if newest and _same_content(newest.manifest, manifest) and newest.key == str(identity.peer_id):
            return newest
        signed = sign(manifest, identity)
        revision = ManifestRevision.objects.create(
            experiment=experiment,
            revision=manifest.revision,
            payload=signed.payload,
            signature=signed.signature,
            key=signed.key,
        )
        Experiment.objects.filter(pk=experiment.pk).update(title=manifest.title, status=manifest.status)
    return revision


def seed(manifest: Manifest, *, update: bool = False) -> tuple[ManifestRevision, bool]:
    """Publish `manifest` if its experiment does not exist yet, or if `update`. Returns the revision, and whether it is new.

    An experiment signed with a key that is no longer ours (a lost state directory) is signed again.
    """
    identity = state.signing_identity(settings.STATE_DIR)
    experiment = Experiment.objects.filter(name=manifest.name).first()
    newest = experiment.revision if experiment else None
    if newest is not None and not update:
        if newest.key == str(identity.peer_id):
            return newest, False
        manifest = newest.manifest
    revision = publish(manifest, identity=identity)
    return revision, newest is None or revision.pk != newest.pk


def _same_content(a: Manifest, b: Manifest) -> bool:
    return msgspec.structs.replace(a, revision=1) == msgspec.structs.replace(b, revision=1)
