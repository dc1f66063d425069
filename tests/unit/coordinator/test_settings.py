"""Settings: none needed, misspelled ones refused, production by two addresses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[3]
SHOW = (
    "import json; from coordinator import settings as s; "
    "database, layer = s.DATABASES['default']['ENGINE'], s.CHANNEL_LAYERS['default']['BACKEND']; "
    "print(json.dumps([s.EMBEDDED, database, layer, s.CELERY_BROKER_URL]))"
)


def load(state: Path, code: str = SHOW, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HIVE_", "DATABASE_", "REDIS_", "CELERY_", "EMAIL_"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**env, "HIVE_STATE_DIR": str(state), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nothing_is_needed(tmp_path: Path) -> None:
    shown = json.loads(load(tmp_path).stdout)
    assert shown == [True, "django.db.backends.sqlite3", "coordinator.channel_layer.HomeLoopChannelLayer", "memory://"]


def test_two_addresses_make_it_production(tmp_path: Path) -> None:
    shown = json.loads(load(tmp_path, DATABASE_URL="postgres://u:p@db/hive", REDIS_URL="redis://r:6379/0").stdout)
    assert shown == [
        False,
        "django.db.backends.postgresql",
        "channels_redis.pubsub.RedisPubSubChannelLayer",
        "redis://r:6379/0",
    ]


def test_a_misspelled_flag_is_refused(tmp_path: Path) -> None:
    done = load(tmp_path, HIVE_DEBUG="ture")
    assert done.returncode and "HIVE_DEBUG must be true or false" in done.stderr


CHECK = (
    "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'coordinator.settings'; import django; django.setup(); "
    "from django.core.management import call_command; call_command('check', deploy=True, fail_level='DEBUG')"
)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {
            "DATABASE_URL": "postgres://hive:secret@db/hive",
            "REDIS_URL": "redis://:secret@redis:6379/0",
            "EMAIL_URL": "smtp+tls://hive:secret@mail.example:587",
            "HIVE_SECRET_KEY": "k9" + "abcdefgh" * 6,
            "HIVE_SITE_URL": "https://hive.example",
            "HIVE_TRUSTED_ORIGINS": "https://hive.example",
            "HIVE_PROXIES": "10.0.0.0/8",
            "HIVE_METRICS_TOKEN": "m" * 40,
        },
    ],
    ids=["one process", "all of production"],
)
def test_the_deployment_check_is_clean_behind_tls(tmp_path: Path, more: dict[str, str]) -> None:
    done = load(tmp_path, CHECK, HIVE_BEHIND_TLS="true", HIVE_ALLOWED_HOSTS="hive.example", **more)
    assert done.returncode == 0 and "no issues (0 silenced)" in done.stdout, done.stderr


def test_the_deployment_check_would_complain(tmp_path: Path) -> None:
    done = load(tmp_path, CHECK)
    assert done.returncode and "security.W004" in done.stderr


def test_no_migration_is_missing(db: None) -> None:
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
