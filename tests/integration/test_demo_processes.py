"""The demo's children are real processes here; none of them may outlive it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import AddressInUse
from deploy.demo import processes

ROOT = Path(__file__).resolve().parents[2]

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('{ready}', 'w').write('x'); signal.pause()"

CONDUCTOR = """
import sys, signal
from pathlib import Path
from deploy.demo import processes
child = processes.start("child", ["/bin/sleep", "1000"], Path(sys.argv[1]), {}, Path("/"))
print(child.process.pid, flush=True)
signal.pause()
"""


def started(tmp_path: Path, code: str) -> processes.Child:
    return processes.start("child", [sys.executable, "-c", code], tmp_path / "log", dict(os.environ), tmp_path)


def test_end_is_gentle_first(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = started(tmp_path, f"import signal; open('{ready}', 'w').write('x'); signal.pause()")
    ready.read_text()
    processes.end([child])
    assert child.process.returncode == -signal.SIGTERM
    assert not child.running


def test_end_kills_what_does_not_listen(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = started(tmp_path, STUBBORN.format(ready=ready))
    ready.read_text()
    processes.end([child], grace_s=0.2)
    assert child.process.returncode == -signal.SIGKILL


def test_last_words(tmp_path: Path) -> None:
    child = started(tmp_path, "print('first'); import sys; sys.exit('port 8000 is taken')")
    child.process.wait()
    assert child.last_words() == "port 8000 is taken"
    silent = started(tmp_path, "pass")
    silent.process.wait()
    assert silent.last_words() == "it said nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_children_die_with_a_killed_demo(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    conductor = subprocess.Popen(
        [sys.executable, "-c", CONDUCTOR, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert conductor.stdout is not None
    pid = int(conductor.stdout.readline())
    handle = os.pidfd_open(pid)
    conductor.kill()
    conductor.wait()
    conductor.stdout.close()
    try:
        readable, _, _ = select.select([handle], [], [], 10)
        assert readable, "the child outlived the demo"
    finally:
        os.close(handle)


def test_ports() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} cannot be used"):
            processes.choose_port(port, 1)
        other = processes.choose_port(None, port)
        assert other != port and not processes.taken(other)
        assert processes.choose_port(None, None) != port
    assert processes.choose_port(port, 1) == port
