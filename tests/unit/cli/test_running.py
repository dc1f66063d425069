from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli import running
from agent.cli.main import main
from agent.cli.running import PidFile, find, running_pid, send, wait_gone
from agent.config import AgentConfig, load
from agent.errors import ConfigError, LocalError, StorageError
from agent.reports import Report, encode

AGENT = """
import signal, sys
from pathlib import Path
from agent.cli.running import PidFile
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda n, f: sys.exit(print(signal.Signals(n).name, flush=True)))
with PidFile(Path(sys.argv[1])):
    print("ready", flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return load({"state_dir": str(tmp_path), "config": os.devnull}, {}, needs_experiment=False)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the pid file of gpt-crowd, and says which signal ended it."""
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path / "gpt-crowd")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_only_one_agent_in_a_directory(tmp_path: Path) -> None:
    with PidFile(tmp_path / "x"):
        assert running_pid(tmp_path / "x") == os.getpid()
        with pytest.raises(StorageError, match=f"process {os.getpid()}"), PidFile(tmp_path / "x"):
            pass
    assert running_pid(tmp_path / "x") is None
    with PidFile(tmp_path / "x"):
        pass


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot use the state directory"), PidFile(tmp_path / "file" / "x"):
        pass


def test_a_stale_pid_is_not_an_agent(tmp_path: Path, config: AgentConfig) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "pid").write_text("1\n")
    assert running_pid(tmp_path / "x") is None
    with pytest.raises(LocalError, match="no agent runs for x"):
        send(tmp_path / "x", signal.SIGTERM)


def test_find(tmp_path: Path, config: AgentConfig) -> None:
    with pytest.raises(ConfigError, match="no agent has run"):
        find(config)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "pid").write_text("1")
    with pytest.raises(ConfigError, match="a, b"):
        find(config)
    with PidFile(tmp_path / "b"):
        assert find(config) == tmp_path / "b"
    assert find(dataclasses.replace(config, experiment="c")) == tmp_path / "c"


@pytest.mark.parametrize(("verb", "name"), [("finish", "SIGINT"), ("stop", "SIGTERM")])
def test_verbs_signal_the_agent_and_wait(
    verb: str, name: str, agent: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--state-dir", str(tmp_path), "--config", os.devnull]) == 0
    assert agent.stdout is not None and agent.stdout.read() == f"{name}\n"
    assert str(agent.pid) in capsys.readouterr().out


def test_wait_gone_gives_up(tmp_path: Path) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    with PidFile(tmp_path / "x"):
        assert not wait_gone(tmp_path / "x", 3.0, clock=lambda: now[0], sleep=sleep)
    assert 3.0 <= now[0] <= 3.0 + 2 * running.POLL_S


def test_status(tmp_path: Path, agent: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["status", "--state-dir", str(tmp_path), "--config", os.devnull]
    assert main(words) == 0
    assert "reported nothing yet" in capsys.readouterr().out
    report = json.loads(encode(Report(sequence=4, at=0.0, stage="waiting", why="nobody else is here", step=3, tokens=6144)))
    body = {"pid": agent.pid, "session": "0" * 16, "peer": "a" * 52, "report": report}
    (tmp_path / "gpt-crowd" / "status.json").write_text(json.dumps(body))
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "waiting: nobody else is here" in out and "6,144 tokens" in out and "s old" in out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"]["tokens"] == 6144
    agent.kill()
    agent.wait()
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["running"] is False
    (tmp_path / "gpt-crowd" / "status.json").write_text("{")
    assert main(words) == 1
    assert "cannot be read" in capsys.readouterr().err


def test_what_runs_already_has_a_name(tmp_path: Path) -> None:
    first, second = (PidFile(tmp_path, what="demo", stop="Ctrl-C in its terminal") for _ in range(2))
    with first, pytest.raises(StorageError, match="another demo .* already runs .* Stop it with Ctrl-C in its terminal, or"):
        second.__enter__()
