"""Sign-in with accounts elsewhere, by configuration only.

HIVE_SOCIAL_GITHUB, HIVE_SOCIAL_GITLAB and HIVE_SOCIAL_GOOGLE hold `CLIENT_ID:SECRET` as that site issued them.
HIVE_SOCIAL_OIDC holds `CLIENT_ID:SECRET` for any OpenID Connect server, HIVE_SOCIAL_OIDC_URL its issuer, and
HIVE_SOCIAL_OIDC_NAME what the button says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

ORIGINS = {
    "github": "https://github.com",
    "gitlab": "https://gitlab.com",
    "google": "https://accounts.google.com",
}
"""Where each sends the browser; the policy of our pages must allow it."""


@dataclass(frozen=True, kw_only=True)
class Social:
    """What settings need."""

    apps: list[str] = field(default_factory=list)
    providers: dict[str, Any] = field(default_factory=dict)
    origins: list[str] = field(default_factory=list)


def configured(env: Any) -> Social:
    """Read the variables. Raises ImproperlyConfigured, without repeating a secret."""
    social = Social()
    for provider, origin in ORIGINS.items():
        variable = f"HIVE_SOCIAL_{provider.upper()}"
        if app := _app(env.str(variable, default=""), variable):
            social.apps.append(f"allauth.socialaccount.providers.{provider}")
            social.providers[provider] = {"APPS": [app]}
            social.origins.append(origin)
    if app := _app(env.str("HIVE_SOCIAL_OIDC", default=""), "HIVE_SOCIAL_OIDC"):
        url = env.str("HIVE_SOCIAL_OIDC_URL", default="")
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ImproperlyConfigured("HIVE_SOCIAL_OIDC_URL must be the https:// address of the OpenID Connect issuer")
        name = env.str("HIVE_SOCIAL_OIDC_NAME", default=parts.hostname)
        app |= {"provider_id": "oidc", "name": name, "settings": {"server_url": url}}
        social.apps.append("allauth.socialaccount.providers.openid_connect")
        social.providers["openid_connect"] = {"APPS": [app], "OAUTH_PKCE_ENABLED": True}
        social.origins.append(f"{parts.scheme}://{parts.netloc}")
    return social


def _app(text: str, variable: str) -> dict[str, Any]:
    if not text:
        return {}
    client, _, secret = text.partition(":")
    if not client or not secret:
        raise ImproperlyConfigured(f"{variable} must be CLIENT_ID:SECRET")
    return {"client_id": client, "secret": secret, "key": ""}
