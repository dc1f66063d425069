"""People: their account, the tokens that speak for it, codes by which a machine signs in, and the machines themselves."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.utils import timezone

from coordinator.accounts import secrets

DISPLAY_NAME_CHARS_MAX = 32
JOIN, READ, MANAGE = "join", "read", "manage"
SCOPES = {
    JOIN: "take part with agents",
    READ: "read what the account may see",
    MANAGE: "manage the account's experiments",
}
"""What a token may do."""
TOKENS_PER_USER_MAX = 20
"""Live ones."""
DEVICE_CODE_LIFE_S = 600
DEVICE_POLL_S = 5
_DISPLAY_NAME = re.compile(r"[^\W_](?:[\w .-]{0,30}[^\W_])?")


def new_public_id() -> str:
    return secrets.word(12)


def clean_display_name(text: str) -> str:
    """Normal form of a display name. Raises ValidationError."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if text and not _DISPLAY_NAME.fullmatch(text):
        raise ValidationError(
            f"Up to {DISPLAY_NAME_CHARS_MAX} letters and digits, with spaces, dots, hyphens or underscores between them."
        )
    return text


def display(user: User) -> str:
    """How mails to the user call them."""
    return user.display_name or user.email


class UserManager(BaseUserManager["User"]):
    """Mail addresses are kept in small letters."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        """Made at the machine itself, so the address counts as confirmed."""
        user = self.create_user(email, password, is_staff=True, is_superuser=True, **fields)
        user.emailaddress_set.create(email=user.email, verified=True, primary=True)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").lower())


class User(AbstractBaseUser, PermissionsMixin):
    """Somebody with an account. Signs in with a mail address; has no user name."""

    public_id = models.CharField(max_length=12, unique=True, default=new_public_id, editable=False)
    """Names the account to others (in certificates and links) without saying whose it is."""
    email = models.EmailField(unique=True)
    display_name = models.CharField(max_length=DISPLAY_NAME_CHARS_MAX, blank=True, validators=[clean_display_name])
    is_listed = models.BooleanField(default=False)
    """They want their display name on leaderboards and beside their machines."""
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    joined_at = models.DateTimeField(default=timezone.now, editable=False)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    objects = UserManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="email_once"),
            models.UniqueConstraint(Lower("display_name"), condition=~Q(display_name=""), name="display_name_once"),
        ]

    def __str__(self) -> str:
        return self.shown_name or self.public_id

    @property
    def shown_name(self) -> str:
        """What others may read; empty for who stays anonymous."""
        return self.display_name if self.is_listed else ""


class ApiToken(models.Model):
    """Speaks for an account. The secret itself is not kept."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=60)
    lookup = models.CharField(max_length=8, unique=True)
    """Part of the token that is no secret: finds the row, and tells the owner which one it is."""
    digest = models.CharField(max_length=secrets.DIGEST_CHARS)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField(auto_now_add=True)
    used_at = models.DateTimeField(null=True)
    """To the minute."""
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"hive_{self.lookup}_…"

    @property
    def is_live(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > timezone.now())


class DeviceCode(models.Model):
    """A machine that asks to be signed in (RFC 8628): it polls with a secret, a person types the short code in a browser."""

    class State(models.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        DENIED = "denied"
        REDEEMED = "redeemed"

    digest = models.CharField(max_length=secrets.DIGEST_CHARS, unique=True)
    user_code = models.CharField(max_length=8, unique=True)
    label = models.CharField(max_length=60)
    """What the machine calls itself. Anybody can claim anything here."""
    address = models.GenericIPAddressField(null=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="device_codes")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    polled_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["pending", "denied"]) | Q(user__isnull=False), name="approved_by_somebody"
            )
        ]

    @property
    def shown_code(self) -> str:
        return f"{self.user_code[:4]}-{self.user_code[4:]}"


class Machine(models.Model):
    """A peer that proved, with an account's token, to be that account's."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="machines")
    peer = models.CharField(max_length=52, unique=True)
    label = models.CharField(max_length=60, blank=True)
    linked_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(default=timezone.now)
    """When it last asked for a certificate."""

    class Meta:
        ordering = ["-seen_at", "-id"]

    def __str__(self) -> str:
        return f"{self.peer[:8]}…"
