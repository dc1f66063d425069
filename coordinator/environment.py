"""Strict readers of environment variables: what cannot be understood ends the start with a sentence that says what fits.

Nothing here repeats a value that may hold a password.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

PREFIX = "HIVE_"
NAMES = frozenset(
    f"HIVE_{name}"
    for name in (
        "STATE_DIR", "DEBUG", "SECRET_KEY", "SECRET_KEY_FALLBACKS", "ALLOWED_HOSTS", "TRUSTED_ORIGINS", "SITE_URL", "BEHIND_TLS",
        "PROXIES", "METRICS_TOKEN", "SIGNUP", "CERTIFICATE_DAYS", "MAIL_FROM", "LOG_LEVEL", "SOCIAL_GITHUB", "SOCIAL_GITLAB",
        "SOCIAL_GOOGLE", "SOCIAL_OIDC", "SOCIAL_OIDC_URL", "SOCIAL_OIDC_NAME", "INSTALL_COMMAND",
    )
)  # fmt: skip
"""What the coordinator reads. Agents on the same machine have HIVE_ variables of their own."""
LIKENESS = 0.85
SECRET_CHARS_MIN = 50
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DATABASES = ("postgres", "postgresql", "sqlite")
BROKERS = ("redis", "rediss", "unix")
MAIL = ("smtp", "smtp+tls", "smtps", "smtp+ssl", "consolemail", "filemail", "memorymail", "dummymail")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class Environment:
    """Reads `variables`. Every method raises ImproperlyConfigured."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def refuse_misspelt(self, others: Iterable[str] = ()) -> None:
        """A name that is almost one of ours is a setting that somebody believes to be in force."""
        for name in self._variables:
            if name.startswith(PREFIX) and name not in NAMES and name not in others:
                close = difflib.get_close_matches(name, NAMES, n=1, cutoff=LIKENESS)
                if close:
                    raise ImproperlyConfigured(f"{name} is not a setting of Hive. Did you mean {close[0]}?")

    def text(self, name: str, default: str = "") -> str:
        return self._variables.get(name, "").strip() or default

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if text not in ("", *TRUE, *FALSE):
            raise ImproperlyConfigured(f"{name} must be true or false, not {text!r}")
        return text in TRUE if text else default

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        text = self.text(name, str(default))
        number = int(text) if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 12 else None
        if number is None or not least <= number <= most:
            raise ImproperlyConfigured(f"{name} must be a whole number from {least} to {most}, not {text[:40]!r}")
        return number

    def level(self, name: str, default: str) -> str:
        text = self.text(name, default).upper()
        if text not in LEVELS:
            raise ImproperlyConfigured(f"{name} must be one of {', '.join(LEVELS)}, not {text[:40]!r}")
        return text

    def words(self, name: str) -> list[str]:
        """Separated by commas; none if it is not set."""
        return [word for part in self.text(name).split(",") if (word := part.strip())]

    def secret(self, name: str) -> str:
        """At least SECRET_CHARS_MIN characters; empty if it is not set."""
        text = self.text(name)
        if text and (len(text) < SECRET_CHARS_MIN or len(set(text)) < 5):
            raise ImproperlyConfigured(
                f"{name} must have at least {SECRET_CHARS_MIN} unpredictable characters: "
                "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
            )
        return text

    def hosts(self, name: str, default: list[str]) -> list[str]:
        """Names and addresses without scheme or port."""
        found = self.words(name) or default
        for host in found:
            if "/" in host or host == "*" or (":" in host and not host.startswith("[")):
                raise ImproperlyConfigured(
                    f"{name}: {host[:80]!r} is not a host name. Give names alone, separated by commas: hive.example,hive.test"
                )
        return found

    def origins(self, name: str) -> list[str]:
        """Each like https://hive.example."""
        return [self._origin(name, word) for word in self.words(name)]

    def origin(self, name: str) -> str:
        """Like https://hive.example; empty if it is not set."""
        text = self.text(name).rstrip("/")
        return self._origin(name, text) if text else ""

    def networks(self, name: str, default: list[str]) -> list[str]:
        """IP addresses and networks such as 10.0.0.0/8."""
        found = self.words(name) or default
        for word in found:
            try:
                ipaddress.ip_network(word, strict=False)
            except ValueError:
                raise ImproperlyConfigured(
                    f"{name}: {word[:80]!r} is neither an IP address nor a network such as 10.0.0.0/8"
                ) from None
        return found

    def url(self, name: str, schemes: tuple[str, ...]) -> str:
        """An address with one of `schemes`; empty if it is not set. It may hold a password, so it is not repeated."""
        text = self.text(name)
        try:
            scheme = urlsplit(text).scheme
        except ValueError:
            scheme = ""
        if text and scheme not in schemes:
            raise ImproperlyConfigured(f"{name} must begin with {', '.join(f'{s}://' for s in schemes)}")
        return text

    def _origin(self, name: str, text: str) -> str:
        try:
            parts = urlsplit(text)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or parts.path or parts.query or parts.fragment or parts.username:
            raise ImproperlyConfigured(
                f"{name} must be like https://hive.example, with nothing after the name, not {text[:80]!r}"
            )
        return text
