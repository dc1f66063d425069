"""The coordinator's state directory: its database in the embedded default, its secret and its signing key.

No Django here: it is used before settings exist, so that a full disk or an unwritable directory ends in one sentence.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from agent.errors import StorageError
from agent.identity import Identity, KeyFile, PeerId, read_key

LOCK_FILE = "serve.lock"
KEY_FILE = "coordinator.key"
OBSERVER_FILE = "observer.key"
SECRET_FILE = "secret-key"
SECRET_BYTES = 48
PROBE_BYTES = 64 * 1024
"""Written and removed at start: a disk that cannot take this cannot take a database either."""


def prepare(directory: Path) -> None:
    """Make the directory (mode 0700) and prove that it can be written. Raises StorageError."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * PROBE_BYTES)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as e:
        raise StorageError(
            f"the state directory {directory} cannot be written: {e.strerror}. "
            "Make room there, or name another directory in HIVE_STATE_DIR."
        ) from e


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Be the only coordinator on this directory, for a site that is one process; the lock falls when the process ends.

    Raises StorageError if another one runs.
    """
    try:
        lock = (directory / LOCK_FILE).open("w")
    except OSError as e:
        raise StorageError(f"cannot lock {directory}: {e.strerror}. Name another directory in HIVE_STATE_DIR.") from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                f"another coordinator runs on {directory}. Stop it, or give this one a directory of its own in HIVE_STATE_DIR."
            ) from None
        yield


def secret_key(directory: Path) -> str:
    """Django's SECRET_KEY, made on first use and kept (mode 0600). Raises StorageError."""
    path = directory / SECRET_FILE
    try:
        if text := _read(path):
            return text
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _create(path, secrets.token_urlsafe(SECRET_BYTES))
    except OSError as e:
        raise StorageError(f"cannot keep a secret key in {path}: {e.strerror}. Name another directory in HIVE_STATE_DIR.") from e


def signing_identity(directory: Path) -> Identity:
    """The coordinator's Ed25519 key, made on first use (mode 0600). Raises IdentityError."""
    key_file = KeyFile(directory / KEY_FILE)
    try:
        return key_file.open()
    finally:
        key_file.close()


def observer_identity(directory: Path) -> PeerId:
    """Who the site's observer is (coordinator/monitoring/observer.py); its key is made on first use. Raises IdentityError.

    The key file may be held by a running observer, so it is only read here, unless it has to be made.
    """
    path = directory / OBSERVER_FILE
    if not path.exists():
        key_file = KeyFile(path)
        try:
            key_file.open()
        finally:
            key_file.close()
    return read_key(path).peer_id


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def _create(path: Path, text: str) -> str:
    """Write atomically; if another process was first, its value counts."""
    draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text + "\n")
        os.link(draft, path)
    except FileExistsError:
        return _read(path)
    finally:
        draft.unlink(missing_ok=True)
    return text
