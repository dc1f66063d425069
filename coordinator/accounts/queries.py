"""Reads of accounts: what their own pages show, and whose a peer is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.db.models import QuerySet

from coordinator.accounts.models import ApiToken, Machine, User
from coordinator.admission.models import Membership
from coordinator.telemetry.models import Session

LISTED_MAX = 200


def tokens(user: User) -> QuerySet[ApiToken]:
    """The live ones first, then those that are over, newest first."""
    return ApiToken.objects.filter(user=user).order_by("-revoked_at", "-created_at")[:LISTED_MAX]


def machines(user: User) -> list[dict[str, Any]]:
    """Each machine with the newest session of its peer, or None."""
    found = list(Machine.objects.filter(user=user)[:LISTED_MAX])
    newest: dict[str, Session] = {}
    sessions = Session.objects.filter(peer__in=[m.peer for m in found]).select_related("experiment").order_by("seen_at")
    for session in sessions:
        newest[session.peer] = session
    return [{"machine": m, "session": newest.get(m.peer)} for m in found]


def shown_names(peers: Iterable[str]) -> dict[str, str]:
    """Peer → display name, for machines of accounts that want to be named."""
    named = Machine.objects.filter(peer__in=list(peers), user__is_listed=True).exclude(user__display_name="")
    return dict(named.values_list("peer", "user__display_name"))


def counts(user: User) -> dict[str, int]:
    """How much there is of what."""
    return {
        "tokens": user.tokens.count(),
        "machines": user.machines.count(),
        "roles": user.roles.count(),
        "memberships": user.memberships.count(),
    }


def export(user: User) -> dict[str, Any]:
    """Everything kept about the account. Secrets are digests that say nothing, and stay out."""
    peers = list(user.machines.values_list("peer", flat=True))
    sessions = Session.objects.filter(peer__in=peers).order_by("started_at")
    members = Membership.objects.filter(user=user)
    return {
        "account": {
            "id": user.public_id,
            "email": user.email,
            "display_name": user.display_name,
            "shown_to_others": user.is_listed,
            "joined_at": user.joined_at,
            "last_sign_in": user.last_login,
        },
        "mail_addresses": list(EmailAddress.objects.filter(user=user).values("email", "verified", "primary")),
        "sign_in_elsewhere": list(SocialAccount.objects.filter(user=user).values("provider", "uid", "date_joined")),
        "second_factors": list(Authenticator.objects.filter(user=user).values("type", "created_at", "last_used_at")),
        "tokens": list(user.tokens.values("name", "lookup", "scopes", "created_at", "used_at", "expires_at", "revoked_at")),
        "machines": list(user.machines.values("peer", "label", "linked_at", "seen_at")),
        "organizes": list(user.roles.values("experiment__name", "kind", "since")),
        "takes_part_in": list(members.values("experiment__name", "standing", "message", "asked_at", "decided_at")),
        "certificates": list(user.certificates.values("experiment__name", "peer", "issued_at", "expires_at")),
        "work": list(
            sessions.values("experiment__name", "peer", "started_at", "ended_at", "tokens", "rows_served", "bytes_p2p_sent")
        ),
    }
