"""What `hive-agent doctor` finds of a coordinator that is none, or does not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cli.doctor import clock
from agent.config import AgentConfig


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def config(port: int, tmp_path: Path) -> AgentConfig:
    address, key = f"http://127.0.0.1:{port}", tmp_path / "identity.key"
    return AgentConfig(experiment="gpt-crowd", coordinator=address, state_dir=tmp_path, key_file=key)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x00\xff" * 1000, "does not speak HTTP (BadStatusLine)"),
        (b"", "does not speak HTTP (RemoteDisconnected)"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "does not tell its time"),
    ],
)
def test_what_answers_is_no_coordinator(listener: socket.socket, tmp_path: Path, answer: bytes, said: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    finding = clock(config(listener.getsockname()[1], tmp_path))
    server.join(10)
    assert finding.verdict == "warn" and said in finding.said


def test_nobody_answers(tmp_path: Path) -> None:
    finding = clock(config(1, tmp_path))
    assert "does not answer (Connection refused), so the clock could not be compared" in finding.said and finding.fix
