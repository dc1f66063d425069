"""Writes to experiments. A change of content is always a new signed revision."""

from __future__ import annotations

import msgspec
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from agent.errors import LocalError
from agent.identity import Identity
from agent.manifest import MANIFEST_BYTES_MAX, Manifest, sign
from coordinator import state
from coordinator.accounts.models import User
from coordinator.experiments.models import Experiment, ManifestRevision, Role

OWNED_MAX = 50
"""Experiments that one account may own, those in the archive not counted."""
REVISIONS_MAX = 1000
TRANSITIONS = {"open": ("draft", "paused"), "paused": ("open",), "finished": ("open", "paused")}
"""Status → from which it may be reached. What is finished stays so: its experts are gone; a clone begins anew."""


class Refused(LocalError):
    """Not possible, for the reason that it says."""


class Stale(Refused):
    """Somebody else published in the meantime."""


# Revisions


def publish(manifest: Manifest, *, identity: Identity | None = None) -> ManifestRevision:
    """Sign `manifest` as the next revision of the experiment that it names, and open it to agents.

    The revision in `manifest` is replaced by the next free one. Content that equals the newest revision's gives that
    revision back. Raises ManifestRejected if it does not validate, IdentityError if the key file is unusable.
    """
    identity = identity or state.signing_identity(settings.STATE_DIR)
    with transaction.atomic():
        experiment, _ = Experiment.objects.get_or_create(name=manifest.name, defaults={"title": manifest.title})
        return _append(experiment, manifest, identity, author=None)


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


def revise(experiment: Experiment, manifest: Manifest, by: User, *, base: int) -> ManifestRevision:
    """Publish new content of a published experiment whose newest revision is `base`; its name and status stay.

    Raises Refused, or Stale if `base` is not the newest any more; ManifestRejected.
    """
    with transaction.atomic():
        experiment = Experiment.objects.select_for_update().get(pk=experiment.pk)
        newest = experiment.revision
        if newest is None:
            raise Refused("This experiment is a draft: save it, and open it when it is ready.")
        if experiment.status == Experiment.Status.FINISHED:
            raise Refused("This experiment is finished. Clone it to go on with other settings.")
        if newest.revision != base:
            raise Stale(f"Revision {newest.revision} was published while you were at work. Look at it, then publish yours again.")
        manifest = msgspec.structs.replace(manifest, name=experiment.name, status=newest.manifest.status)
        return _append(experiment, manifest, state.signing_identity(settings.STATE_DIR), author=by)


def set_status(experiment: Experiment, status: str, by: User) -> ManifestRevision:
    """Open, pause or finish: a new revision. Raises Refused."""
    with transaction.atomic():
        experiment = Experiment.objects.select_for_update().get(pk=experiment.pk)
        if experiment.status not in TRANSITIONS.get(status, ()):
            raise Refused(f"The experiment is {experiment.status} now, and cannot become {status}.")
        planned = experiment.planned
        if planned is None:
            raise Refused("There is nothing to publish yet: fill in the form, and save it.")
        identity = state.signing_identity(settings.STATE_DIR)
        return _append(experiment, msgspec.structs.replace(planned, name=experiment.name, status=status), identity, author=by)


def _append(experiment: Experiment, manifest: Manifest, identity: Identity, *, author: User | None) -> ManifestRevision:
    experiment = Experiment.objects.select_for_update().get(pk=experiment.pk)
    newest = experiment.revisions.order_by("-revision").first()  # not the property, which would remember it
    manifest = msgspec.structs.replace(manifest, revision=newest.revision + 1 if newest else 1)
    if newest and same_content(newest.manifest, manifest) and newest.key == str(identity.peer_id):
        return newest
    if manifest.revision > REVISIONS_MAX:
        raise Refused(f"An experiment has at most {REVISIONS_MAX} revisions. Clone it to go on.")
    signed = sign(manifest, identity)
    revision = ManifestRevision.objects.create(
        experiment=experiment,
        revision=manifest.revision,
        payload=signed.payload,
        signature=signed.signature,
        key=signed.key,
        author=author,
    )
    experiment.title, experiment.status, experiment.draft = manifest.title, manifest.status, None
    experiment.save(update_fields=["title", "status", "draft"])
    return revision


def same_content(a: Manifest, b: Manifest) -> bool:
    return msgspec.structs.replace(a, revision=1) == msgspec.structs.replace(b, revision=1)


# Drafts, and what becomes of experiments


def create(manifest: Manifest, by: User) -> Experiment:
    """A new draft, owned by `by`. Raises Refused: too many, or the name is taken."""
    with transaction.atomic():
        User.objects.select_for_update().get(pk=by.pk)
        owned = Role.objects.filter(user=by, kind=Role.Kind.OWNER, experiment__archived_at=None)
        if owned.count() >= OWNED_MAX:
            raise Refused(f"You own {OWNED_MAX} experiments, which is the most. Archive finished ones, or delete drafts.")
        experiment = _named(Experiment(), manifest)
        Role.objects.create(experiment=experiment, user=by, kind=Role.Kind.OWNER)
    return experiment


def save_draft(experiment: Experiment, manifest: Manifest) -> Experiment:
    """Replace a draft's content, and its name if that changed. Raises Refused."""
    with transaction.atomic():
        experiment = Experiment.objects.select_for_update().get(pk=experiment.pk)
        if experiment.status != Experiment.Status.DRAFT:
            raise Refused("It has been opened meanwhile: what changes now is published as a revision.")
        return _named(experiment, manifest)


def _named(experiment: Experiment, manifest: Manifest) -> Experiment:
    experiment.name, experiment.title = manifest.name, manifest.title
    experiment.draft = msgspec.json.encode(manifest)
    if len(experiment.draft) > MANIFEST_BYTES_MAX:
        raise Refused(f"All of it together has {len(experiment.draft)} bytes; a manifest has at most {MANIFEST_BYTES_MAX}.")
    try:
        with transaction.atomic():
            experiment.save()
    except IntegrityError:
        raise Refused(f"There is an experiment called {manifest.name} already. Choose another short name.") from None
    return experiment


def archive(experiment: Experiment, *, away: bool) -> None:
    """Take a finished experiment out of the lists, or put it back. Raises Refused."""
    found = Experiment.objects.filter(pk=experiment.pk, status=Experiment.Status.FINISHED)
    if not found.update(archived_at=timezone.now() if away else None):
        raise Refused("Only what is finished goes into the archive. Finish it first, or delete the draft.")


def delete_draft(experiment: Experiment) -> None:
    """Delete what was never published. Raises Refused."""
    with transaction.atomic():
        draft = Experiment.objects.filter(pk=experiment.pk, status=Experiment.Status.DRAFT, revisions=None).first()
        if draft is None:
            raise Refused("What was published is not deleted: peers know it, and work is recorded in it. Finish and archive it.")
        draft.delete()
