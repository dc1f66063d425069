"""`python -m coordinator.serve` as a process: starts fast, says where it is, stops cleanly, fails in one sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def start(state: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coordinator.serve", *arguments],
        cwd=ROOT,
        env={**os.environ, "HIVE_STATE_DIR": str(state), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def failure(state: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and what was said, of a start that must fail."""
    process = start(state, *arguments, **environment)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_it_serves_seeds_and_stops_on_sigterm(tmp_path: Path) -> None:
    process = start(tmp_path / "state", "--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split(" at ")[1].split(" ")[0]
        with urllib.request.urlopen(f"{url}api/v1/experiments", timeout=30) as response:
            assert [e["name"] for e in json.load(response)] == ["gpt-crowd"]
        code, said = failure(tmp_path / "state", "--port", "0")
        assert code == 4 and said.count("\n") == 1 and "another coordinator runs on" in said
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert (tmp_path / "state" / "hive.sqlite3").exists()


def test_a_port_in_use(tmp_path: Path, taken: int) -> None:
    code, said = failure(tmp_path, "--port", str(taken))
    assert code == 5 and said.count("\n") == 1 and f"port {taken}" in said and "--port" in said


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = failure(tmp_path / "file", "--port", "0")
    assert code == 4 and said.count("\n") == 1 and "HIVE_STATE_DIR" in said


def test_a_database_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "hive.sqlite3").write_text("not a database " * 1000)
    code, said = failure(tmp_path, "--port", "0")
    assert code == 4 and said.count("\n") == 1 and "database" in said


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--port", "99999"], {}),
        (["--port", "http"], {}),
        (["--host", "no such host"], {}),
        (["--host", "192.0.2.1"], {}),
        ([], {"HIVE_DEBUG": "perhaps"}),
    ],
)
def test_absurd_values(tmp_path: Path, arguments: list[str], environment: dict[str, str]) -> None:
    given = arguments if "--port" in arguments else [*arguments, "--port", "0"]
    code, said = failure(tmp_path, *given, **environment)
    assert code == 2 and "Traceback" not in said


def test_a_redis_that_does_not_answer_is_said(tmp_path: Path) -> None:
    process = start(tmp_path, "--port", "0", REDIS_URL="redis://127.0.0.1:1/0")
    assert process.stdout is not None and "http://" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert "Redis does not answer" in process.communicate(timeout=30)[1].splitlines()[0]


INTERRUPTED = """
import sys
from django.db.migrations.recorder import MigrationRecorder
from coordinator import serve
note = MigrationRecorder.record_applied
def interrupted(self, app, name):
    if app == "rendezvous":
        raise KeyboardInterrupt
    note(self, app, name)
MigrationRecorder.record_applied = interrupted
sys.exit(serve.main(["--port", "0"]))
"""


def test_a_start_that_is_interrupted_while_tables_are_made_does_not_spoil_the_next(tmp_path: Path) -> None:
    environment = {**os.environ, "HIVE_STATE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    process = start(tmp_path, "--port", "0")
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split(" at ")[1].split(" ")[0]
        with urllib.request.urlopen(f"{url}api/v1/experiments", timeout=30) as response:
            assert len(json.load(response)) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)
    assert said == ("", "")


def test_being_stopped_as_soon_as_it_says_where_it_is(tmp_path: Path) -> None:
    process = start(tmp_path, "--port", "0")
    assert process.stdout is not None and "http://" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "") and process.returncode == 0
