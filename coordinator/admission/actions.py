"""Writes about who may take part, and the certificates that say so."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from agent.admission import Certificate, Rule, issue
from agent.errors import LocalError
from agent.identity import PeerId
from coordinator import state
from coordinator.accounts import secrets
from coordinator.accounts.actions import link_machine
from coordinator.accounts.models import User
from coordinator.admission.models import LOOKUP_LETTERS, PROOF_LETTERS, Invite, IssuedCertificate, Membership, standing
from coordinator.experiments.models import Experiment, Role

INVITES_MAX, REQUESTS_MAX = 200, 10_000
"""Live invitations, and requests that wait, of one experiment."""
ORGANIZERS_MAX = 50

Standing = Membership.Standing


class Refused(LocalError):
    """Not possible, for the reason that it says."""


# Certificates


def certify(user: User, experiment: Experiment, peer: PeerId, label: str, now: datetime) -> bytes:
    """A certificate for `peer` of `user`, who from now on counts as its owner. Raises Refused, saying what to do."""
    if experiment.manifest.admission != "open":
        _require_admitted(user, experiment)
    until = ends(now)
    certificate = Certificate(
        format=1,
        peer=peer.raw,
        experiment=experiment.name,
        account=user.public_id,
        name=user.shown_name,
        issued_at=int(now.timestamp()),
        ends_at=int(until.timestamp()),
    )
    data = issue(certificate, state.signing_identity(settings.STATE_DIR))
    with transaction.atomic():
        link_machine(user, str(peer), label, now)
        IssuedCertificate.objects.update_or_create(
            experiment=experiment, peer=str(peer), defaults={"user": user, "issued_at": now, "expires_at": until}
        )
    return data


def ends(now: datetime) -> datetime:
    """When a certificate of now ends."""
    return now + timedelta(days=settings.CERTIFICATE_DAYS)


def _require_admitted(user: User, experiment: Experiment) -> None:
    why = {
        "": f"{experiment.name} is not open to everybody",
        Standing.REQUESTED: f"the request to take part in {experiment.name} has not been answered yet",
        Standing.REFUSED: f"the organizers of {experiment.name} declined the request of this account",
        Standing.REMOVED: f"the organizers of {experiment.name} removed this account",
    }
    has = standing(experiment, user)
    if has not in ("organizer", Standing.ADMITTED):
        how = "it takes an invitation link" if experiment.manifest.admission == "invite" else "its page takes requests"
        raise Refused(f"{why[has]}" + (f"; {how}." if not has else "."))


def rule_of(experiment: Experiment) -> Rule:
    """By which agents, and our own sockets, judge certificates."""
    revision = experiment.revision
    assert revision is not None, "a published experiment has a revision"
    return Rule(experiment=experiment.name, policy=revision.manifest.admission, key=PeerId.parse(revision.key))


# Invitations


def invite(experiment: Experiment, by: User, *, note: str, uses_max: int | None, life: timedelta | None) -> Invite:
    """A new link. Raises Refused at the limit."""
    if Invite.objects.live().filter(experiment=experiment).count() >= INVITES_MAX:
        raise Refused(f"An experiment has at most {INVITES_MAX} live invitations. Withdraw one that is not needed.")
    return Invite.objects.create(
        experiment=experiment,
        lookup=secrets.word(LOOKUP_LETTERS),
        note=note[:80],
        created_by=by,
        uses_max=uses_max,
        expires_at=timezone.now() + life if life else None,
    )


def find_invite(code: str) -> Invite | None:
    """The invitation of a link, live or not; None if it never was one."""
    lookup, proof = code[:LOOKUP_LETTERS], code[LOOKUP_LETTERS:]
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if len(proof) != PROOF_LETTERS or not any([secrets.proves("invite", lookup, proof, key) for key in keys]):
        return None
    return Invite.objects.select_related("experiment").filter(lookup=lookup).first()


def accept(found: Invite, user: User) -> None:
    """Let `user` in by an invitation; nothing changes for who is in already. Raises Refused."""
    with transaction.atomic():
        member = Membership.objects.select_for_update().filter(experiment=found.experiment, user=user).first()
        if standing(found.experiment, user) in ("organizer", Standing.ADMITTED):
            return
        if member is not None and member.standing == Standing.REMOVED:
            raise Refused("The organizers removed you from this experiment; a link does not undo that.")
        if not Invite.objects.live().filter(pk=found.pk).update(uses=F("uses") + 1):
            raise Refused("This invitation has run out or was withdrawn. Ask the organizers for another.")
        values = {"standing": Standing.ADMITTED, "invite": found, "decided_at": timezone.now(), "decided_by": found.created_by}
        Membership.objects.update_or_create(experiment=found.experiment, user=user, defaults=values)


def withdraw_invite(experiment: Experiment, pk: int) -> bool:
    live = Invite.objects.filter(experiment=experiment, pk=pk, revoked_at=None)
    return live.update(revoked_at=timezone.now()) > 0


# Requests


def ask(experiment: Experiment, user: User, message: str) -> None:
    """File a request to take part. Raises Refused."""
    if experiment.manifest.admission != "approval":
        raise Refused("This experiment takes no requests.")
    if standing(experiment, user):
        raise Refused("You have asked already.")
    if Membership.objects.filter(experiment=experiment, standing=Standing.REQUESTED).count() >= REQUESTS_MAX:
        raise Refused("Too many requests wait here. Try again when the organizers have answered some.")
    Membership.objects.get_or_create(
        experiment=experiment, user=user, defaults={"standing": Standing.REQUESTED, "message": message[:500]}
    )


TRANSITIONS = {
    "admit": ([Standing.REQUESTED, Standing.REFUSED, Standing.REMOVED], Standing.ADMITTED),
    "refuse": ([Standing.REQUESTED], Standing.REFUSED),
    "remove": ([Standing.ADMITTED], Standing.REMOVED),
}


def decide(experiment: Experiment, public_id: str, decision: str, by: User) -> bool:
    """Apply one of TRANSITIONS to a person's standing. False if it does not apply any more."""
    before, after = TRANSITIONS[decision]
    found = Membership.objects.filter(experiment=experiment, user__public_id=public_id, standing__in=before)
    pk = found.values_list("pk", flat=True).first()
    members = Membership.objects.filter(pk=pk, standing__in=before)
    return members.update(standing=after, decided_at=timezone.now(), decided_by=by) > 0


# Organizers


def appoint(experiment: Experiment, email: str) -> Role:
    """Make somebody with an account here a co-organizer. Raises Refused."""
    user = User.objects.filter(email=email.strip().lower(), is_active=True, emailaddress__verified=True).first()
    if user is None:
        raise Refused("Nobody here has an account with this address.")
    if Role.objects.filter(experiment=experiment).count() >= ORGANIZERS_MAX:
        raise Refused(f"An experiment has at most {ORGANIZERS_MAX} organizers.")
    role, new = Role.objects.get_or_create(experiment=experiment, user=user, defaults={"kind": Role.Kind.CO_ORGANIZER})
    if not new:
        raise Refused("They organize this experiment already.")
    return role


def dismiss(experiment: Experiment, public_id: str) -> bool:
    """Take the role from a co-organizer. Owners stay."""
    found = Role.objects.filter(Q(kind=Role.Kind.CO_ORGANIZER), experiment=experiment, user__public_id=public_id)
    return found.delete()[0] > 0
