"""Which agents run on this machine: a pid file in the experiment's state directory, locked for as long as its agent lives.

The lock, not the number, says that an agent runs: it falls with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agent.config import AgentConfig
from agent.errors import ConfigError, LocalError, StorageError

POLL_S = 0.1


class PidFile:
    """`with PidFile(directory):` marks this process as the agent (or `what`) of that directory."""

    def __init__(self, directory: Path, *, what: str = "agent", stop: str = "hive-agent stop") -> None:
        """`stop`: how the one that runs already is stopped."""
        self._path = directory / "pid"
        self._what = what
        self._stop = stop
        self._fd: int | None = None

    def __enter__(self) -> PidFile:
        """Raises StorageError if the directory cannot be written, or another agent runs there."""
        directory = self._path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise StorageError(
                f"cannot use the state directory {directory}: {e.strerror}. Choose another with --state-dir."
            ) from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            os.close(fd)
            raise StorageError(
                f"another {self._what} (process {read_pid(self._path)}) already runs in {directory}. "
                f"Stop it with {self._stop}, or give this one its own --state-dir."
            ) from None
        except OSError as e:
            os.close(fd)
            raise StorageError(
                f"cannot write to {directory}: {e.strerror}. Free some space, or choose another --state-dir."
            ) from e
        self._fd = fd
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd is not None:
            os.close(self._fd)  # the file stays: removing it could take away a successor's
            self._fd = None


def read_pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def running_pid(directory: Path) -> int | None:
    """The process id of the agent that runs in `directory`, or None."""
    try:
        fd = os.open(directory / "pid", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return read_pid(directory / "pid")
    finally:
        os.close(fd)
    return None


def find(config: AgentConfig) -> Path:
    """The directory that `status`, `finish` and `stop` mean: the named experiment's, or that of the only one which runs.

    Raises ConfigError if that is not clear.
    """
    if config.experiment:
        return config.experiment_dir
    known = sorted(p.parent for p in config.state_dir.glob("*/pid"))
    running = [directory for directory in known if running_pid(directory) is not None]
    if len(running) == 1 or (not running and len(known) == 1):
        return (running or known)[0]
    if not known:
        raise ConfigError(f"no agent has run with the state directory {config.state_dir}; name another with --state-dir")
    names = ", ".join(directory.name for directory in running or known)
    raise ConfigError(f"which experiment? There are {names}; name one, for example: hive-agent status {known[0].name}")


def send(directory: Path, number: signal.Signals) -> int:
    """Signal the agent that runs in `directory`; returns its process id. Raises LocalError if none runs, or it is not ours."""
    pid = running_pid(directory)
    if pid is None:
        raise LocalError(f"no agent runs for {directory.name} in {directory.parent}")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise LocalError(f"the agent for {directory.name} has just ended") from None
    except PermissionError:
        raise LocalError(f"the agent for {directory.name} (process {pid}) belongs to another user; use that account") from None
    return pid


def wait_gone(
    directory: Path, timeout_s: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> bool:
    """True once no agent runs in `directory`; False if one still does after `timeout_s`."""
    deadline = clock() + timeout_s
    while running_pid(directory) is not None:
        if clock() >= deadline:
            return False
        sleep(POLL_S)
    return True
