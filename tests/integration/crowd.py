"""A site and agents as real processes, and what they record: for tests of the whole.

Nothing here sleeps: waiting means looking at what a process has written until it says what is waited for, or until the
process ends, which its pidfd tells at once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from agent.reports import Event, Report
from deploy.demo import processes
from deploy.demo.records import RecordTail

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = "gpt-crowd"
LOOK_S = 0.1
PATIENCE_S = 90.0
"""A machine that is busy with other things may take that long for what takes seconds."""


def environment(**more: str) -> dict[str, str]:
    """Ours, without anything that is meant for Hive, and one thread for each process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HIVE_", "DJANGO_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "HIVE_CONFIG": os.devnull, **more}


def agent_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "agent.cli.main", *words]


Ended = subprocess.CompletedProcess[str]


def run_to_end(command: Sequence[str], *, within_s: float = PATIENCE_S, **more: str) -> Ended:
    """Run a command that is expected to end; `more` are environment variables."""
    return subprocess.run(
        command, cwd=ROOT, env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s
    )


class Running:
    """One process, whose output goes to a file."""

    def __init__(self, name: str, command: Sequence[str], directory: Path, variables: Mapping[str, str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.child = processes.start(name, command, directory / f"{name}.log", environment(**variables), ROOT)
        self._ended = os.pidfd_open(self.child.process.pid)

    @property
    def said(self) -> str:
        return self.child.log.read_text(errors="replace")

    def look_until(self, seen: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
        """Until `seen()`; fails when the process ends before, or does not get there in time."""
        deadline = time.monotonic() + within_s
        while not seen():
            assert self.child.running, f"{self.child.name} ended (exit code {self.child.process.returncode}):\n{self.said}"
            assert time.monotonic() < deadline, f"{self.child.name}: not within {within_s:.0f} s: {what}\n{self.said[-3000:]}"
            select.select([self._ended], [], [], LOOK_S)

    def send(self, number: signal.Signals) -> None:
        self.child.process.send_signal(number)

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """Its exit code."""
        return self.child.process.wait(within_s)

    def close(self) -> None:
        if self.child.running:
            processes.kill(self.child)
        os.close(self._ended)


class Site(Running):
    """A coordinator. A killed one may be followed by another on the same state and port."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        command = [sys.executable, "-m", "coordinator.serve", "--port", str(port)]
        super().__init__("site", command, directory, {"HIVE_STATE_DIR": str(directory / "state")})
        try:
            self.look_until(lambda: "http://" in self.said and "\n" in self.said, "the site is up")
        except BaseException:
            self.close()
            raise
        self.port = int(self.said.split("http://localhost:")[1].split("/")[0])
        self.url = f"http://127.0.0.1:{self.port}"


class Agent(Running):
    """An agent of gpt-crowd, and everything that it recorded since it was started."""

    def __init__(self, directory: Path, url: str, *flags: str, **variables: str) -> None:
        self.home = directory / EXPERIMENT
        self._tail = RecordTail(self.home / "records.jsonl")
        self.items: list[Report | Event] = []
        command = agent_command("join", EXPERIMENT, "--coordinator", url, "--state-dir", str(directory), "--threads", "1")
        super().__init__(directory.name, [*command, "--no-panel", *flags], directory, variables)

    def read(self) -> list[Report | Event]:
        self.items += self._tail.read()
        return self.items

    @property
    def latest(self) -> Report | None:
        return next((item for item in reversed(self.read()) if isinstance(item, Report)), None)

    @property
    def reports(self) -> list[Report]:
        return [item for item in self.read() if isinstance(item, Report)]

    def events(self, name: str) -> list[Event]:
        return [item for item in self.read() if isinstance(item, Event) and item.name == name]

    @property
    def address(self) -> str:
        """Its bootstrap address, once it has said it."""
        return self.said.partition("--bootstrap ")[2].partition("\n")[0]

    @property
    def hosts(self) -> set[str]:
        return {expert.uid for expert in self.latest.experts} if self.latest else set()

    def until(self, seen: Callable[[Report], bool], what: str, within_s: float = PATIENCE_S) -> Report:
        """Until its latest report is as wished; returns that report."""
        self.look_until(lambda: self.latest is not None and seen(self.latest), what, within_s)
        assert self.latest is not None
        return self.latest

    def until_trains(self, tokens: int = 1, within_s: float = PATIENCE_S) -> Report:
        """Until it has trained so many tokens more than now."""
        before = self.latest.tokens if self.latest else 0
        return self.until(lambda r: r.tokens >= before + tokens, f"{tokens} more tokens", within_s)


def processes_of(directory: Path) -> list[str]:
    """Command lines of the processes that run now and name `directory`, this one not counted."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(directory) in line and process.info["pid"] != os.getpid():
            found.append(line)
    return found
