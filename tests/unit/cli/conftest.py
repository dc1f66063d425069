from __future__ import annotations

import http.server
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.cli import logs


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Whoever has left ignores them until its process ends; this process goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HIVE_CONFIG", "/dev/null")
    monkeypatch.setenv("HIVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HIVE_COORDINATOR", "http://127.0.0.1:1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, kept in levels.items():
        logging.getLogger(name).setLevel(kept)
    logging.raiseExceptions = raising


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, bytes], None]]:
    """A coordinator that answers everything with one status and body."""
    answer: list[tuple[int, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HIVE_COORDINATOR", f"http://127.0.0.1:{server.server_port}")
        yield lambda status, body: answer.insert(0, (status, body))
        server.shutdown()
        thread.join()
