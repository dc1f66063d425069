"""All configuration of the coordinator, read from the environment in this one place.

Needs no variable locally: SQLite, in-process channel layer and in-process Celery, everything in one state directory.
Production names DATABASE_URL and REDIS_URL; deploy/ has an example. A variable that cannot be understood ends the start.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from coordinator import state

env = environ.Env()
BASE_DIR = Path(__file__).resolve().parent.parent


def flag(name: str, default: bool) -> bool:
    """A strict boolean: django-environ takes any misspelling for false."""
    text = env.str(name, default="true" if default else "false").strip().lower()
    if text not in {"1", "true", "yes", "on", "0", "false", "no", "off"}:
        raise ImproperlyConfigured(f"{name} must be true or false, not {text!r}")
    return text in {"1", "true", "yes", "on"}


STATE_DIR = Path(env.str("HIVE_STATE_DIR", default=str(BASE_DIR / "var"))).expanduser().absolute()
DEBUG = flag("HIVE_DEBUG", False)
SECRET_KEY = env.str("HIVE_SECRET_KEY", default="") or state.secret_key(STATE_DIR)
REDIS_URL = env.str("REDIS_URL", default="")
EMBEDDED = not REDIS_URL
"""One process does everything: web, WebSockets, Celery worker and beat."""

ALLOWED_HOSTS = env.list("HIVE_ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", socket.gethostname().lower()])
CSRF_TRUSTED_ORIGINS = env.list("HIVE_TRUSTED_ORIGINS", default=[])
SITE_URL = env.str("HIVE_SITE_URL", default="").rstrip("/")
"""Public origin, for join commands; empty takes what the visitor's browser asked for."""
BEHIND_TLS = flag("HIVE_BEHIND_TLS", False)
"""A reverse proxy in front terminates TLS and sets X-Forwarded-Proto."""

INSTALLED_APPS = [
    "daphne",  # before staticfiles: gives `runserver` WebSockets
    "django.contrib.contenttypes",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "ninja",
    "coordinator.experiments",
    "coordinator.rendezvous",
    "coordinator.telemetry",
    "coordinator.dashboard",
    "coordinator.api",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "coordinator.urls"
ASGI_APPLICATION = "coordinator.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]

SQLITE_OPTIONS: dict[str, Any] = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",  # without it, concurrent writers fail with "database is locked"
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
DATABASES = {"default": env.db_url("DATABASE_URL", default=f"sqlite:///{STATE_DIR / 'hive.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = SQLITE_OPTIONS
    DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"hive-test-{os.getpid()}.sqlite3")}
else:
    DATABASES["default"].setdefault("CONN_MAX_AGE", 60)
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True

if REDIS_URL:
    CHANNEL_LAYERS: dict[str, Any] = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            # redis-py's own default of 5 s would end idle WebSockets
            "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": None}]},
        }
    }
    CACHES: dict[str, Any] = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "coordinator.channel_layer.HomeLoopChannelLayer", "CONFIG": {"capacity": 256}}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

CELERY_BROKER_URL = env.str("CELERY_BROKER_URL", default=REDIS_URL or "memory://")
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {"polling_interval": 0.02} if EMBEDDED else {}
CELERY_WORKER_PREFETCH_MULTIPLIER = 0 if EMBEDDED else 4
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 300
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "seconds": {"task": "telemetry.roll_up_seconds", "schedule": 1.0, "options": {"expires": 5}},
    "minutes": {"task": "telemetry.roll_up_minutes", "schedule": 5.0, "options": {"expires": 15}},
    "hours": {"task": "telemetry.roll_up_hours", "schedule": 60.0, "options": {"expires": 120}},
    "gone": {"task": "telemetry.mark_gone", "schedule": 2.0, "options": {"expires": 5}},
    "heartbeat": {"task": "telemetry.heartbeat", "schedule": 3.0, "options": {"expires": 5}},
    "retention": {"task": "telemetry.retain", "schedule": 600.0, "options": {"expires": 600}},
    "rendezvous": {"task": "rendezvous.forget", "schedule": 30.0, "options": {"expires": 60}},
}

STATIC_URL = "/static/"
STATIC_ROOT = STATE_DIR / "static"
STATICFILES_DIRS = [("site", BASE_DIR / "frontend" / "dist")]
FRONTEND_MANIFEST = BASE_DIR / "frontend" / "dist" / "manifest.json"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = DEBUG
SERVESTATIC_IMMUTABLE_FILE_TEST = r"^/static/site/assets/.+-[A-Za-z0-9_-]{8}\.[a-z0-9]+$"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
if BEHIND_TLS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
USE_I18N = False
DATA_UPLOAD_MAX_MEMORY_SIZE = 262_144

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "django.request": {"level": "ERROR"},  # a 404 is the visitor's business
        "kombu.connection": {"level": "ERROR"},  # warns that memory:// has no host name
    },
    "root": {"handlers": ["console"], "level": env.str("HIVE_LOG_LEVEL", default="WARNING").upper()},
}
