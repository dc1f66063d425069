"""Where an agent's log lines go: `agent.log` in the experiment's directory (bounded), and a console or a panel."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
from pathlib import Path

from agent.errors import StorageError

LOG_BYTES_MAX = 4 << 20
LOG_GENERATIONS = 2
QUIET = ("aioice", "aiortc", "websockets", "asyncio")


class JsonLines(logging.Formatter):
    """One JSON object a line: at (Unix seconds), level, logger, message, and exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["exception"] = self.formatException(record.exc_info)
        return json.dumps(body)


class PlainLines(logging.Formatter):
    """`12:00:01 message`, with the level when it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = f"{clock} {level}{record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def start(directory: Path, log_format: str, console: logging.Handler) -> None:
    """Send log lines to `directory`/agent.log and to `console`. Raises StorageError."""
    formatter = JsonLines() if log_format == "json" else PlainLines()
    try:
        file = logging.handlers.RotatingFileHandler(directory / "agent.log", maxBytes=LOG_BYTES_MAX, backupCount=LOG_GENERATIONS)
    except OSError as e:
        raise StorageError(f"cannot write to {directory}: {e.strerror}. Choose another with --state-dir.") from e
    root = logging.getLogger()
    for handler in (file, console):
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a full disk or a reader that went away must not print a traceback for every line
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
