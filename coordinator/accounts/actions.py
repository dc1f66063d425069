"""Writes to accounts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from agent.errors import LocalError
from coordinator.accounts import secrets
from coordinator.accounts.models import (
    DEVICE_CODE_LIFE_S,
    DEVICE_POLL_S,
    JOIN,
    SCOPES,
    TOKENS_PER_USER_MAX,
    ApiToken,
    DeviceCode,
    Machine,
    User,
)

TOKEN_PREFIX = "hive"
LOOKUP_LETTERS, SECRET_LETTERS = 8, 32
USED_PRECISION_S = 60
USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""RFC 8628 6.1: no vowels, so that no words come about; 20^8 codes."""
USER_CODE_LETTERS = 8
PENDING_MAX = 10_000
"""Device codes that wait at one time; the oldest gives way."""
SEEN_PRECISION_S = 60

now = timezone.now


class TooMany(LocalError):
    """The account has as many of these as it may have."""


# Tokens


def make_token(user: User, name: str, scopes: Sequence[str], *, life: timedelta | None = None) -> tuple[ApiToken, str]:
    """A new token and its text, which is never to be had again. Raises TooMany."""
    lookup, secret = secrets.word(LOOKUP_LETTERS), secrets.word(SECRET_LETTERS)
    with transaction.atomic():
        User.objects.select_for_update().get(pk=user.pk)
        if live_tokens(user).count() >= TOKENS_PER_USER_MAX:
            raise TooMany(f"An account has at most {TOKENS_PER_USER_MAX} tokens. Revoke one that is not needed.")
        token = ApiToken.objects.create(
            user=user,
            name=name[:60],
            lookup=lookup,
            digest=secrets.digest("api-token", secret),
            scopes=sorted(set(scopes) & set(SCOPES)),
            expires_at=now() + life if life else None,
        )
    return token, f"{TOKEN_PREFIX}_{lookup}_{secret}"


def live_tokens(user: User) -> QuerySet[ApiToken]:
    return ApiToken.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now()), user=user, revoked_at=None)


def find_token(text: str, scope: str) -> ApiToken | None:
    """The live token with this text and scope, its use noted; None if there is none, whatever the reason."""
    prefix, _, rest = text.strip().partition("_")
    lookup, _, secret = rest.partition("_")
    if prefix != TOKEN_PREFIX or len(lookup) != LOOKUP_LETTERS or len(secret) != SECRET_LETTERS or not text.isascii():
        return None
    token = ApiToken.objects.select_related("user").filter(lookup=lookup).first()
    if token is None or not secrets.matches("api-token", secret, token.digest):
        return None
    if not token.is_live or not token.user.is_active or scope not in token.scopes:
        return None
    due = Q(used_at=None) | Q(used_at__lt=now() - timedelta(seconds=USED_PRECISION_S))
    ApiToken.objects.filter(due, pk=token.pk).update(used_at=now())
    return token


def revoke_token(user: User, pk: int) -> bool:
    """False if there is no such live token of theirs."""
    return ApiToken.objects.filter(user=user, pk=pk, revoked_at=None).update(revoked_at=now()) > 0


# Machines that sign in with a code (RFC 8628)


def start_device(label: str, address: str | None) -> tuple[DeviceCode, str]:
    """A new code and the device's own secret."""
    waiting = DeviceCode.objects.filter(state=DeviceCode.State.PENDING)
    if waiting.count() >= PENDING_MAX:
        oldest = waiting.order_by("created_at").values_list("pk", flat=True)[: PENDING_MAX // 10]
        DeviceCode.objects.filter(pk__in=list(oldest)).delete()
    secret = secrets.word(SECRET_LETTERS)
    code = DeviceCode.objects.create(
        digest=secrets.digest("device-code", secret),
        user_code=secrets.word(USER_CODE_LETTERS, USER_CODE_ALPHABET),
        label=" ".join(label.split())[:60],
        address=address,
        expires_at=now() + timedelta(seconds=DEVICE_CODE_LIFE_S),
    )
    return code, secret


def find_code(text: str) -> DeviceCode | None:
    """The pending code that a person typed, in whatever case and spacing."""
    letters = "".join(c for c in text.upper() if c.isalnum())
    waiting = DeviceCode.objects.filter(state=DeviceCode.State.PENDING, expires_at__gt=now())
    return waiting.filter(user_code=letters).first() if len(letters) == USER_CODE_LETTERS else None


def decide_device(code: DeviceCode, user: User, *, approve: bool) -> bool:
    """Approve or deny a pending code. False if it is not pending any more."""
    state = DeviceCode.State.APPROVED if approve else DeviceCode.State.DENIED
    waiting = DeviceCode.objects.filter(pk=code.pk, state=DeviceCode.State.PENDING, expires_at__gt=now())
    return waiting.update(state=state, user=user) > 0


def poll_device(secret: str) -> tuple[str, str, User | None]:
    """What became of a device's code: (RFC 8628 3.5 error, "", None) or ("", token, whose). A token is given once.

    Raises TooMany.
    """
    code = DeviceCode.objects.select_related("user").filter(digest=secrets.digest("device-code", secret)).first()
    at = now()
    if code is None or code.expires_at <= at or code.state == DeviceCode.State.REDEEMED:
        return "expired_token", "", None
    if code.state == DeviceCode.State.DENIED:
        return "access_denied", "", None
    if code.state == DeviceCode.State.PENDING:
        soon = code.polled_at is not None and at - code.polled_at < timedelta(seconds=DEVICE_POLL_S - 1)
        DeviceCode.objects.filter(pk=code.pk).update(polled_at=at)
        return ("slow_down" if soon else "authorization_pending"), "", None
    assert code.user is not None, "an approved code has a user"
    with transaction.atomic():
        approved = DeviceCode.objects.filter(pk=code.pk, state=DeviceCode.State.APPROVED)
        if not code.user.is_active or not approved.update(state=DeviceCode.State.REDEEMED):
            return "expired_token", "", None
        _, text = make_token(code.user, code.label or "hive-agent login", [JOIN])
    return "", text, code.user


def forget_device_codes() -> None:
    """Delete those that are over."""
    DeviceCode.objects.filter(expires_at__lt=now()).delete()


# Machines


def link_machine(user: User, peer: str, label: str, at: datetime) -> Machine:
    """Note that `peer` is `user`'s. A peer whose key another account proves is that account's from then on."""
    machine, _ = Machine.objects.update_or_create(
        peer=peer,
        defaults={"user": user, "seen_at": at},
        create_defaults={"user": user, "seen_at": at, "label": label[:60]},
    )
    return machine


def unlink_machine(user: User, pk: int) -> bool:
    deleted, _ = Machine.objects.filter(user=user, pk=pk).delete()
    return deleted > 0


# The account


def delete_account(user: User) -> None:
    """Delete it and what says whose it was. Experiments and anonymous records of work stay; drafts that only they had go."""
    from coordinator.experiments.models import Experiment

    with transaction.atomic():
        drafts = Experiment.objects.filter(status=Experiment.Status.DRAFT, roles__user=user)
        for draft in drafts:
            if not draft.roles.exclude(user=user).exists():
                draft.delete()
        User.objects.get(pk=user.pk).delete()
