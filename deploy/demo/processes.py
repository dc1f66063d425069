"""Starts processes that cannot outlive the demo, and ends them.

Each child is in a session of its own (a Ctrl-C in the terminal reaches the demo only, which then ends them in order), and on
Linux asks the kernel to be killed when the demo dies, so that even `kill -9` of the demo leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import AddressInUse

PR_SET_PDEATHSIG = 1
TERM_GRACE_S = 8.0
LAST_WORDS_BYTES = 4096

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, kw_only=True)
class Child:
    """One running process of the demo, and the file that holds what it said."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        """The last line that it wrote, for a sentence about its end."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - LAST_WORDS_BYTES))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:300] if lines else "it said nothing"


def start(name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> Child:
    """Start `command`; what it prints goes to `log`. Raises OSError."""
    parent = os.getpid()

    def die_with_parent() -> None:
        if _LIBC is not None:
            _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the demo died before this line
                os._exit(1)

    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 (the demo has one thread)
        )
    return Child(name=name, process=process, log=log)


def kill(child: Child) -> None:
    """SIGKILL, at once and for good."""
    child.process.kill()
    child.process.wait()


def end(children: Iterable[Child], grace_s: float = TERM_GRACE_S) -> None:
    """SIGTERM to all, and SIGKILL to those that are still there after `grace_s`. Returns when all have ended."""
    left = [child for child in children if child.running]
    for child in left:
        child.process.terminate()
    deadline = time.monotonic() + grace_s
    for child in left:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill(child)


def taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def choose_port(asked: int | None, default: int | None) -> int:
    """The port that was asked for, or `default`, or any free one. Raises AddressInUse if the one that was asked for is taken."""
    if asked is not None:
        if taken(asked):
            raise AddressInUse(f"port {asked} cannot be used: another program has it. Choose another, or leave --port out.")
        return asked
    if default is not None and not taken(default):
        return default
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
