"""Sign-in with accounts elsewhere: only by configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import environ
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from coordinator import social

ROOT = Path(__file__).resolve().parents[3]
_TRY = """
import django; django.setup()
from django.test import Client
from django.core.management import call_command
call_command("migrate", verbosity=0)
page = Client().get("/accounts/login/")
print(page.headers["Content-Security-Policy"])
print(page.content.decode())
for path in ("github", "oidc/oidc"):
    answer = Client().post(f"/accounts/{path}/login/")
    print("POST", path, answer.status_code, answer.headers.get("Location", ""))
    print("GET", path, Client().get(f"/accounts/{path}/login/").status_code)
"""


def configured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> social.Social:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return social.configured(environ.Env())


def test_none_by_default(db: None) -> None:
    found = social.configured(environ.Env())
    assert not found.apps and not found.providers and not found.origins
    page = Client().get("/accounts/login/").content.decode()
    assert "GitHub" not in page and "3rdparty" not in page


def test_each_brings_its_application_and_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    found = configured(
        monkeypatch,
        HIVE_SOCIAL_GITHUB="id:secret:with:colons",
        HIVE_SOCIAL_OIDC="id:secret",
        HIVE_SOCIAL_OIDC_URL="https://login.example.org/realm",
    )
    assert found.apps == ["allauth.socialaccount.providers.github", "allauth.socialaccount.providers.openid_connect"]
    assert found.providers["github"]["APPS"][0]["secret"] == "secret:with:colons"
    assert found.origins == ["https://github.com", "https://login.example.org"]


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HIVE_SOCIAL_GITHUB": "hunter2"}, "HIVE_SOCIAL_GITHUB must be CLIENT_ID:SECRET"),
        ({"HIVE_SOCIAL_GOOGLE": ":hunter2"}, "HIVE_SOCIAL_GOOGLE must be"),
        ({"HIVE_SOCIAL_OIDC": "id:hunter2"}, "HIVE_SOCIAL_OIDC_URL must be"),
        ({"HIVE_SOCIAL_OIDC": "id:hunter2", "HIVE_SOCIAL_OIDC_URL": "http://plain.example"}, "https://"),
    ],
)
def test_mistakes_end_the_start_without_repeating_a_secret(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    with pytest.raises(ImproperlyConfigured, match=says) as told:
        configured(monkeypatch, **variables)
    assert "hunter2" not in str(told.value)


def test_the_sign_in_page_with_github(tmp_path: Path) -> None:
    """Settings are read once, so this takes a process of its own. Nothing is asked of GitHub."""
    variables: dict[str, Any] = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "coordinator.settings",
        "HIVE_STATE_DIR": str(tmp_path),
        "HIVE_ALLOWED_HOSTS": "testserver",
        "HIVE_SOCIAL_GITHUB": "the-id:hunter2",
    }
    ended = subprocess.run(
        [sys.executable, "-c", _TRY], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60, check=True
    )
    said = ended.stdout
    assert "form-action 'self' https://github.com" in said
    assert "GitHub" in said and "hunter2" not in said
    assert "POST github 302 https://github.com/login/oauth/authorize?" in said and "the-id" in said
    assert "GET github 200" in said, "a link alone sends nobody there: it asks first"
    assert "POST oidc/oidc 404" in said
