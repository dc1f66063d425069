"""Conducts a demo: starts coordinator and agents, follows their records, kills what it was told to, and measures."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.cli.running import PidFile
from agent.cli.status import Status
from agent.errors import HiveError, LocalError, StorageError
from agent.reports import Event
from deploy.demo import processes
from deploy.demo.plan import DEFAULT_PORT, EXPERIMENT, Kill, Plan, victim
from deploy.demo.processes import Child
from deploy.demo.records import RecordTail
from deploy.demo.summary import AgentStory, Facts, Killed, mean, summarize

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / "var" / "demo"
TICK_S = 0.25
PROGRESS_PERIOD_S = 5.0
READY_TIMEOUT_S = 60.0
BOOTSTRAP_HEAD_START_S = 15.0
"""How long the others wait at most for agent 1 to be up, so that they find it."""
SPACE_BYTES_MIN = 200 << 20
PASSED_ON = frozenset({"HIVE_CHANNEL"})
"""What agents may be told through the demo, to compare."""
SHOWN_EVENTS = ("error", "left")
WHY_LOST = {
    "lost": "another agent hosts the same, and its lease counts",
    "lapsed": "the lease ran out",
    "unstored": "the lease could not be stored",
}


def say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Member:
    """One agent of the demo."""

    number: int
    directory: Path
    child: Child
    tail: RecordTail
    story: AgentStory
    killed: bool = False
    died: bool = False

    @property
    def present(self) -> bool:
        return not self.killed and not self.died


@dataclass(kw_only=True)
class Demo:
    """One demo. `run` does it all; whatever happens, `close` must follow."""

    plan: Plan
    state: Path
    stop: threading.Event
    """Set when the person wants it to end."""
    started_at: float
    """Unix time at which the command was given."""
    port: int = 0
    coordinator: Child | None = None
    members: list[Member] = field(default_factory=list)
    kills: list[Killed] = field(default_factory=list)
    agents_started_at: float = 0.0
    _said_at: float = 0.0

    def run(self) -> dict[str, object]:
        """Returns the summary. Raises HiveError if it cannot begin."""
        self._check_space()
        # A demo that leaves nothing behind takes a port of its own: when its site is killed, no other demo's may take its place.
        default = None if self.plan.ephemeral else DEFAULT_PORT
        self.port = processes.choose_port(self.plan.port, default)
        if self.plan.port is None and default is not None and self.port != default:
            say(f"port {DEFAULT_PORT} is taken, so the site uses {self.port}")
        self._start_coordinator()
        page = f"http://127.0.0.1:{self.port}/experiments/{EXPERIMENT}/"
        say(f"the site is up: {page}")
        self.agents_started_at = time.time()
        self._start_agent(1, ["--listen", "127.0.0.1:0"])
        self._wait_for_first()
        for number in range(2, self.plan.agents + 1):
            self._start_agent(number, [])
        say(f"{self.plan.agents} agents are starting; their records are in {self.state}")
        if not self.plan.headless and _has_screen():
            webbrowser.open(page)
        self._follow()
        ended_at = time.time()
        facts = Facts(
            experiment=EXPERIMENT,
            seconds=ended_at - self.agents_started_at,
            ended_at=ended_at,
            started_at=self.started_at,
            kills=tuple(self.kills),
            died=tuple(m.number for m in self.members if m.died),
        )
        return summarize([m.story for m in self.members], facts)

    def close(self) -> None:
        """End every process: the agents first, so that the site sees them leave."""
        processes.end(m.child for m in self.members)
        if self.coordinator:
            processes.end([self.coordinator])

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.state).free
        if free < SPACE_BYTES_MIN:
            raise StorageError(
                f"only {free >> 20} MB are free at {self.state}; the demo needs {SPACE_BYTES_MIN >> 20}. Free some space."
            )

    def _start_coordinator(self) -> None:
        directory = self.state / "coordinator"
        directory.mkdir(exist_ok=True)
        self.coordinator = processes.start(
            "coordinator",
            [sys.executable, "-m", "coordinator.serve", "--port", str(self.port)],
            self.state / "coordinator.log",
            {**child_environment(os.environ), "HIVE_STATE_DIR": str(directory)},
            ROOT,
        )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not _answers(f"http://127.0.0.1:{self.port}/readyz"):
            if not self.coordinator.running:
                raise self._failed(self.coordinator)
            if time.monotonic() > deadline:
                raise LocalError(f"the coordinator did not come up in {READY_TIMEOUT_S:.0f} s; see {self.coordinator.log}")
            if self.stop.wait(TICK_S):
                raise KeyboardInterrupt

    def _failed(self, child: Child) -> HiveError:
        """The error of a child that ended at once, with that child's own exit code and last sentence."""
        where = "" if self.plan.ephemeral else f" (all it said is in {child.log})"
        error = LocalError(f"{child.name} ended at once: {child.last_words()}{where}")
        error.exit_code = child.process.returncode if child.process.returncode > 0 else 1
        return error

    def _start_agent(self, number: int, more: list[str]) -> None:
        directory = self.state / f"agent-{number}"
        directory.mkdir(exist_ok=True)
        tail = RecordTail(directory / EXPERIMENT / "records.jsonl")
        (directory / EXPERIMENT / "status.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "agent.cli.main", "join", EXPERIMENT, "--coordinator", f"http://127.0.0.1:{self.port}"]
        command += ["--state-dir", str(directory), "--config", os.devnull, "--threads", "1", "--no-panel", *more]
        child = processes.start(
            f"agent-{number}", command, self.state / f"agent-{number}.log", child_environment(os.environ), ROOT
        )
        story = AgentStory(number=number)
        self.members.append(Member(number=number, directory=directory, child=child, tail=tail, story=story))

    def _wait_for_first(self) -> None:
        """Give the bootstrap peer time to listen before the others look for it."""
        first = self.members[0]
        deadline = time.monotonic() + BOOTSTRAP_HEAD_START_S
        while not self.stop.is_set() and time.monotonic() < deadline:
            if not first.child.running:
                raise self._failed(first.child)
            self._read()
            latest = first.story.latest
            if latest is not None and latest.stage not in ("starting", "joining"):
                return
            self.stop.wait(TICK_S)

    def _follow(self) -> None:
        pending = list(self.plan.kills)
        while not self.stop.is_set():
            elapsed = time.time() - self.agents_started_at
            while pending and pending[0].at_s <= elapsed:
                self._kill(pending.pop(0))
            self._read()
            self._progress(elapsed)
            if self.plan.for_s is not None and elapsed >= self.plan.for_s:
                return
            if not any(m.present for m in self.members):
                say("no agent is left")
                return
            self.stop.wait(TICK_S)

    def _kill(self, order: Kill) -> None:
        if order.target == "coordinator":
            if self.coordinator and self.coordinator.running:
                processes.kill(self.coordinator)
                self.kills.append(Killed(target="coordinator", at=time.time()))
                say("chaos: the coordinator was killed; it stays dead")
            return
        number = victim(order.target, [m.number for m in self.members if m.present])
        if number is None:
            say(f"chaos: {order.target} is not there any more")
            return
        member = next(m for m in self.members if m.number == number)
        member.killed = True
        processes.kill(member.child)
        self.kills.append(Killed(target=f"agent-{number}", at=time.time(), agent=number))
        say(f"chaos: agent-{number} was killed")

    def _read(self) -> None:
        for member in self.members:
            items = member.tail.read()
            for item in items:
                member.story.take(item)
            for line in told([item for item in items if isinstance(item, Event)]) if member.present else ():
                say(f"agent-{member.number}: {line}")
            if not member.story.peer:
                member.story.peer = _peer_of(member.directory / EXPERIMENT / "status.json")
            if member.present and not member.child.running:
                member.died = True
                code = member.child.process.returncode
                say(f"agent-{member.number} ended by itself (exit code {code}): {member.child.last_words()}")

    def _progress(self, elapsed: float) -> None:
        if elapsed - self._said_at < PROGRESS_PERIOD_S:
            return
        self._said_at = elapsed
        present = [m.story for m in self.members if m.present]
        latest = [s.latest for s in present if s.latest]
        loss = mean([s.loss_last for s in present if s.loss_last is not None])
        validation = [s.validations[-1] for s in present if s.validations]
        why = next((f"agent-{s.number}: {s.latest.why}" for s in present if s.latest and s.latest.why), "")
        alive, total = min((r.experts_alive for r in latest), default=0), max((r.experts_total for r in latest), default=0)
        parts = [
            f"{elapsed:4.0f} s  {sum(r.tokens for r in latest):,} tokens, {sum(r.tokens_per_s for r in latest):,.0f} tokens/s",
            f"loss {'not yet' if loss is None else f'{loss:.3f}'}",
            f"validation {f'{max(validation)[1]:.3f}' if validation else 'not yet'}",
            f"experts alive {alive}/{total}",
            f"agents {len(present)}" + (f" ({why})" if why else ""),
        ]
        say(", ".join(parts))


def told(events: Sequence[Event]) -> list[str]:
    """What of an agent's events a person should read, in words; losses for one reason are one line."""
    lines = [str(e.detail.get("why", "an error")) if e.name == "error" else e.name for e in events if e.name in SHOWN_EVENTS]
    lost: dict[str, list[str]] = {}
    for event in events:
        if event.name == "expert-lost" and event.detail.get("reason") != "left":
            lost.setdefault(str(event.detail.get("reason")), []).append(str(event.detail.get("uid")))
    for reason, uids in lost.items():
        which = uids[0] if len(uids) == 1 else f"{len(uids)} experts"
        lines.append(f"lost {which}: {WHY_LOST.get(reason, reason)}")
    return lines


def _peer_of(path: Path) -> str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status).peer
    except (OSError, msgspec.DecodeError):
        return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def child_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Ours without HIVE_*: the demo says itself what its processes need, but for PASSED_ON."""
    kept = {name: value for name, value in own.items() if not name.startswith("HIVE_") or name in PASSED_ON}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def _has_screen() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def conduct(plan: Plan, stop: threading.Event, started_at: float) -> dict[str, object]:
    """Run one demo in its state directory, alone there. Raises HiveError."""
    if plan.ephemeral:
        with tempfile.TemporaryDirectory(prefix="hive-demo-") as directory:
            return _in(Path(directory), plan, stop, started_at)
    return _in(plan.state_dir or STATE, plan, stop, started_at)


def _in(state: Path, plan: Plan, stop: threading.Event, started_at: float) -> dict[str, object]:
    with PidFile(state, what="demo", stop="Ctrl-C in its terminal"):
        demo = Demo(plan=plan, state=state, stop=stop, started_at=started_at)
        try:
            return demo.run()
        finally:
            demo.close()
