"""A private Redis and a private PostgreSQL on loopback, for tests of production. Nothing of this machine's own is touched.

Both come from Debian: `apt-get install redis-server postgresql`. Where they are missing, tests that need them are skipped
and say so; with HIVE_SERVICES=required (as in .ci/run) they fail instead.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

POSTGRES_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
POSTGRES_USER = "postgres"
"""PostgreSQL refuses to run as root."""
STOP_S = 20.0
READY = "ready to accept connections"
LINES_MAX = 500
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def find(name: str) -> str:
    """The path of a program. Skips the test, or fails it, if there is none."""
    found = shutil.which(name) or next((str(folder / name) for folder in POSTGRES_FOLDERS if (folder / name).exists()), None)
    if found is None:
        why = f"{name} is not installed; apt-get install redis-server postgresql"
        (pytest.fail if os.environ.get("HIVE_SERVICES") == "required" else pytest.skip)(why)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis() -> Iterator[str]:
    """Its address, `redis://…`. Keeps nothing on disk."""
    program, port = find("redis-server"), free_port()
    with tempfile.TemporaryDirectory(prefix="hive-redis-") as directory:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        with _running(command, directory):
            yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of an empty database, `postgres://…`. It does not survive a power cut, so it is fast."""
    initdb, program, port = find("initdb"), find("postgres"), free_port()
    with tempfile.TemporaryDirectory(prefix="hive-postgresql-") as directory:
        user = POSTGRES_USER if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(directory, user)
        data = f"{directory}/data"
        command = [initdb, "-D", data, "-U", "hive", "-A", "trust", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C"]
        subprocess.run(command, cwd=directory, user=user, check=True, capture_output=True)
        quick = [f"-c{setting}=off" for setting in ("fsync", "synchronous_commit", "full_page_writes")]
        listen = ["-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", directory]
        with _running([program, *listen, *quick], directory, user):
            yield f"postgres://hive@127.0.0.1:{port}/postgres"


@contextmanager
def _running(command: Sequence[str], directory: str, user: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        cwd=directory,
        user=user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_end_with_parent,  # noqa: PLW1509  it makes one system call
    )
    assert process.stdout is not None
    try:
        _wait_until_ready(process.stdout, command[0])
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)  # so that it never blocks on its log
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
    drain.wait(STOP_S)


def _end_with_parent() -> None:
    """In the child: even a test run that is killed leaves no server behind. SIGINT is PostgreSQL's fast shutdown."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _wait_until_ready(output: IO[str], name: str) -> None:
    said = []
    for line in output:
        said.append(line)
        if READY in line.lower():
            return
        assert len(said) < LINES_MAX, "it says too much"
    raise AssertionError(f"{name} did not start:\n{''.join(said)}")
