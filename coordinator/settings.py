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

from coordinator import environment, social, state
from coordinator.environment import Environment

env = environ.Env()
ours = Environment(os.environ)
ours.refuse_misspelt()
BASE_DIR = Path(__file__).resolve().parent.parent
STATE_DIR = Path(ours.text("HIVE_STATE_DIR", str(BASE_DIR / "var"))).expanduser().absolute()
DEBUG = ours.flag("HIVE_DEBUG", False)
SECRET_KEY = ours.secret("HIVE_SECRET_KEY") or state.secret_key(STATE_DIR)
SECRET_KEY_FALLBACKS = ours.words("HIVE_SECRET_KEY_FALLBACKS")
"""Former secret keys, separated by commas: what was signed with them still holds. Take them out after some weeks."""
REDIS_URL = ours.url("REDIS_URL", environment.BROKERS)
EMBEDDED = not REDIS_URL
"""One process does everything: web, WebSockets, Celery worker and beat."""

ALLOWED_HOSTS = ours.hosts("HIVE_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", socket.gethostname().lower()])
CSRF_TRUSTED_ORIGINS = ours.origins("HIVE_TRUSTED_ORIGINS")
INSTALL_COMMAND = ours.text("HIVE_INSTALL_COMMAND")
SITE_URL = ours.origin("HIVE_SITE_URL")
"""Public origin, for join commands; empty takes what the visitor's browser asked for."""
BEHIND_TLS = ours.flag("HIVE_BEHIND_TLS", False)
"""A reverse proxy in front terminates TLS and sets X-Forwarded-Proto."""
PROXIES = ours.networks("HIVE_PROXIES", ["127.0.0.1", "::1"])
"""Addresses of reverse proxies. Whoever else sends X-Forwarded-For or X-Forwarded-Proto is not believed."""
if DEBUG and (BEHIND_TLS or not EMBEDDED):
    raise ImproperlyConfigured("HIVE_DEBUG shows code and settings to visitors: it is not for a site in production")

METRICS_TOKEN = ours.text("HIVE_METRICS_TOKEN")
"""Whoever asks for /metrics has to send it as a bearer token; empty: anybody may ask."""

SOCIAL = social.configured(env)
"""Sign-in with accounts elsewhere, one per pair of HIVE_SOCIAL_… variables; none by default."""

INSTALLED_APPS = [
    "daphne",  # before staticfiles: gives `runserver` WebSockets
    "coordinator.accounts",  # before allauth: its templates come first
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.mfa",
    *SOCIAL.apps,
    "channels",
    "csp",
    "ninja",
    "coordinator.experiments",
    "coordinator.admission",
    "coordinator.rendezvous",
    "coordinator.telemetry",
    "coordinator.leaderboard",
    "coordinator.monitoring",
    "coordinator.dashboard",
    "coordinator.api",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",  # below GZip, whose output differs each time
    "coordinator.api.refusals.refusals",  # below GZip, above whatever refuses
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]

ROOT_URLCONF = "coordinator.urls"
ASGI_APPLICATION = "coordinator.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

SQLITE_OPTIONS: dict[str, Any] = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",  # without it, concurrent writers fail with "database is locked"
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
ours.url("DATABASE_URL", environment.DATABASES)
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
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULE_FILENAME = str(STATE_DIR / "beat-schedule")
CELERY_BEAT_SCHEDULE = {
    "seconds": {"task": "telemetry.roll_up_seconds", "schedule": 1.0, "options": {"expires": 5}},
    "minutes": {"task": "telemetry.roll_up_minutes", "schedule": 5.0, "options": {"expires": 15}},
    "hours": {"task": "telemetry.roll_up_hours", "schedule": 60.0, "options": {"expires": 120}},
    "gone": {"task": "telemetry.mark_gone", "schedule": 2.0, "options": {"expires": 5}},
    "heartbeat": {"task": "telemetry.heartbeat", "schedule": 3.0, "options": {"expires": 5}},
    "retention": {"task": "telemetry.retain", "schedule": 600.0, "options": {"expires": 600}},
    "contributions": {"task": "leaderboard.derive", "schedule": 10.0, "options": {"expires": 15}},
    "boards": {"task": "leaderboard.score", "schedule": 30.0, "options": {"expires": 60}},
    "merge": {"task": "leaderboard.retain", "schedule": 600.0, "options": {"expires": 600}},
    "examine": {"task": "monitoring.examine", "schedule": 15.0, "options": {"expires": 30}},
    "bootstrap": {"task": "monitoring.check_bootstrap", "schedule": 60.0, "options": {"expires": 60}},
    "rendezvous": {"task": "rendezvous.forget", "schedule": 30.0, "options": {"expires": 60}},
    "accounts": {"task": "accounts.forget", "schedule": 600.0, "options": {"expires": 600}},
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
        "form-action": [SELF, *SOCIAL.origins],  # browsers apply it to where a form's answer redirects to
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
if BEHIND_TLS:  # uvicorn takes the scheme from X-Forwarded-Proto, and only from PROXIES
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]  # asked from inside, past the proxy
    SECURE_HSTS_SECONDS = 31_536_000
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = True

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["allauth.account.auth_backends.AuthenticationBackend"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "OPTIONS": {"user_attributes": ["email", "display_name"]},
    },
]
LOGIN_URL, LOGIN_REDIRECT_URL = "account_login", "account"
SESSION_COOKIE_NAME = "hive_session"

ACCOUNT_ADAPTER = "coordinator.accounts.adapter.AccountAdapter"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "mandatory"
ACCOUNT_LOGIN_ON_EMAIL_CONFIRMATION = True  # only in the browser that signed up
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Hive] "
ACCOUNT_REAUTHENTICATION_REQUIRED = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_REDIRECT_URL = "/"
ACCOUNT_USER_DISPLAY = "coordinator.accounts.models.display"
ACCOUNT_SIGNUP_OPEN = ours.flag("HIVE_SIGNUP", True)
"""False closes sign-up; who has an account keeps it."""
ACCOUNT_SIGNUP_FORM_HONEYPOT_FIELD = "website"
ACCOUNT_FORMS = {"signup": "coordinator.accounts.forms.SignupForm"}
MFA_ADAPTER = "coordinator.accounts.adapter.TwoFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "recovery_codes"]
MFA_TOTP_ISSUER = "Hive"
MFA_TOTP_TOLERANCE = 1
SOCIALACCOUNT_PROVIDERS = SOCIAL.providers
SOCIALACCOUNT_LOGIN_ON_GET = False
SOCIALACCOUNT_EMAIL_AUTHENTICATION = False

CERTIFICATE_DAYS = ours.whole("HIVE_CERTIFICATE_DAYS", 14, 1, 365)
"""How long a certificate of admission holds, and so how long agents do without the coordinator. They renew at half of it."""

ours.url("EMAIL_URL", environment.MAIL)
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
if vars().get("EMAIL_FILE_PATH"):
    EMAIL_FILE_PATH = "/" + vars()["EMAIL_FILE_PATH"].lstrip("/")  # the parser drops the first slash of filemail:///path
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = SERVER_EMAIL = ours.text("HIVE_MAIL_FROM", "Hive <hive@localhost>")
MAIL_DELIVERY_BACKEND = vars()["EMAIL_BACKEND"]
"""What really sends. Unless it is the console, a Celery task uses it, so that no page waits for a mail server."""
if not MAIL_DELIVERY_BACKEND.endswith("console.EmailBackend"):
    EMAIL_BACKEND = "coordinator.accounts.mail.QueuedBackend"

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
        "django.security.DisallowedHost": {"level": "CRITICAL"},  # nor is a request to another name, with a traceback each
        "kombu.connection": {"level": "ERROR"},  # warns that memory:// has no host name
    },
    "root": {"handlers": ["console"], "level": ours.level("HIVE_LOG_LEVEL", "WARNING")},
}
