"""`python -m coordinator.serve`: the coordinator in one process, nothing else needed.

Makes the state directory, migrates, seeds gpt-crowd, starts Celery's worker and beat as threads unless REDIS_URL names
real ones, and serves HTTP and WebSockets until SIGTERM or SIGINT. Exit codes are those of agent/errors.py:
2 bad configuration, 3 unusable key file, 4 state directory not writable, 5 port in use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from agent.errors import AddressInUse, ConfigError, HiveError, StorageError
from agent.reports import MESSAGE_BYTES_MAX
from coordinator import state

SHUTDOWN_S = 3
BACKLOG = 512
START_LOCK = 0x48697665
"""Number of PostgreSQL's advisory lock for what only one process may do at a time when it starts."""


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop. Returns the exit code."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _listen(options.host, options.port) as listener, contextlib.ExitStack() as stack:
            _prepare(options, stack)
            _serve(options, listener)
    except HiveError as e:
        print(f"hive: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:  # told to stop; uvicorn has stopped cleanly, and raises the signal again
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hive serve", description="Run the coordinator.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0 takes a free one (default %(default)s)")
    parser.add_argument("--no-seed", action="store_true", help="do not publish the experiment gpt-crowd")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises AddressInUse or ConfigError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"{host!r} is not an address of this machine; give --host 127.0.0.1 or 0.0.0.0") from None
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except PermissionError:
        listener.close()
        raise ConfigError(f"listening on port {port} is not permitted; choose one above 1023 with --port") from None
    except OSError as e:
        listener.close()
        if e.errno == 99:  # EADDRNOTAVAIL
            raise ConfigError(f"{host} is not an address of this machine; give --host 127.0.0.1 or 0.0.0.0") from None
        raise AddressInUse(f"port {port} on {host} is in use. Stop what uses it, or choose another with --port.") from None
    listener.set_inheritable(True)
    return listener


def _prepare(options: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    """State directory, settings, migrations, seed. What is to be held while the site runs goes onto `stack`. Raises HiveError."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coordinator.settings")
    directory = os.environ.get("HIVE_STATE_DIR")
    state.prepare(Path(directory).expanduser().absolute() if directory else Path(__file__).resolve().parent.parent / "var")
    _allow_hosts(options.host)

    import django
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError, OperationalError

    try:
        django.setup()
        if settings.EMBEDDED:
            stack.enter_context(state.alone(settings.STATE_DIR))
        else:
            _look_for_redis()
        from coordinator.experiments.actions import seed
        from coordinator.experiments.presets import GPT_CROWD
        from coordinator.rendezvous.models import WaitingPeer
        from coordinator.telemetry.membership import start_run

        with _alone():
            _migrate()
            if not options.no_seed:
                seed(GPT_CROWD)
            WaitingPeer.objects.filter(channel__contains="inmemory!").delete()
            start_run(time.time())
    except ImproperlyConfigured as e:
        raise ConfigError(str(e)) from e
    except OperationalError as e:
        raise StorageError(f"the database cannot be used: {e}. Check HIVE_STATE_DIR or DATABASE_URL.") from e
    except DatabaseError as e:
        raise StorageError(f"the database is damaged or not ours: {e}. Move it away to start afresh.") from e


def _migrate() -> None:
    """On SQLite all of it or nothing: Django notes a migration after its tables are there, and a start that is interrupted
    between the two would end every later one."""
    from django.core.management import call_command
    from django.db import connection, transaction

    if connection.vendor != "sqlite":
        call_command("migrate", verbosity=0, interactive=False)
        return
    connection.disable_constraint_checking()  # which migrations of SQLite need, and which cannot change within a transaction
    try:
        with transaction.atomic():
            call_command("migrate", verbosity=0, interactive=False)
    finally:
        connection.enable_constraint_checking()


def _look_for_redis() -> None:
    """Say so if Redis does not answer; it may come later, so this is no reason not to start."""
    from django.core.cache import cache
    from redis.exceptions import RedisError

    try:
        cache.get("readiness")
    except RedisError as e:
        print(f"hive: Redis does not answer: {e} Until it does, agents and live pages wait. Check REDIS_URL.", file=sys.stderr)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Of several web processes that start at once, one after the other. PostgreSQL only: SQLite has one web process."""
    from django.db import connection

    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [START_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [START_LOCK])


def _allow_hosts(host: str) -> None:
    """Answer to the names and addresses that we listen on, unless the operator said to which."""
    if "HIVE_ALLOWED_HOSTS" in os.environ or host in {"127.0.0.1", "localhost", "::1"}:
        return
    import psutil

    addresses = {host}
    if host in {"0.0.0.0", "::"}:
        addresses = {a.address.partition("%")[0] for nic in psutil.net_if_addrs().values() for a in nic}
    names = {"localhost", "127.0.0.1", "::1", socket.gethostname().lower(), socket.getfqdn().lower(), *addresses}
    os.environ["HIVE_ALLOWED_HOSTS"] = ",".join(sorted(f"[{n}]" if ":" in n else n for n in names))


def _serve(options: argparse.Namespace, listener: socket.socket) -> None:
    import uvicorn
    from django.conf import settings

    from coordinator.asgi import application
    from coordinator.celery import app
    from coordinator.embedded import EmbeddedCelery

    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        forwarded_allow_ips=settings.PROXIES,
    )
    celery = EmbeddedCelery(app, wake="telemetry.heartbeat") if settings.EMBEDDED else None
    if celery is not None:
        celery.start()
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in {"0.0.0.0", "::", "127.0.0.1"} else host
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):  # it may be told to stop before it listens to that itself
        signal.signal(number, server.handle_exit)
    print(f"The coordinator is at http://{shown}:{port}/ (state in {settings.STATE_DIR}). Ctrl-C stops it.", flush=True)
    try:
        server.run(sockets=[listener])
    finally:
        if celery is not None:
            celery.stop()


if __name__ == "__main__":
    sys.exit(main())
