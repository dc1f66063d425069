"""What allauth asks this site."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.http import HttpRequest

from coordinator.limits import client_key


class AccountAdapter(DefaultAccountAdapter):
    """The default, with sign-up that an operator can close."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.ACCOUNT_SIGNUP_OPEN)

    def get_client_ip(self, request: HttpRequest) -> str:
        """Whom rate limits count: of an IPv6 address its /64, of which everybody has billions."""
        return client_key(super().get_client_ip(request))

    def clean_email(self, email: str) -> Any:
        return super().clean_email(email).lower()


class TwoFactorAdapter(DefaultMFAAdapter):
    """Keeps the secrets of authenticator apps encrypted: a copy of the database makes no codes."""

    def encrypt(self, text: str) -> str:
        return self._box().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return self._box().decrypt(encrypted_text.encode()).decode()

    @staticmethod
    def _box() -> MultiFernet:
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        derived = [hashlib.sha256(f"hive/two-factor\n{key}".encode()).digest() for key in keys]
        return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])
