"""`python -m deploy.demo`, which `./hive demo` runs in its virtual environment."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from agent.errors import HiveError, StorageError
from deploy.demo.plan import parse
from deploy.demo.run import conduct, say

EXIT_NOT_TRAINED = 1
EXIT_INTERRUPTED = 130


def show(summary: dict[str, object]) -> None:
    """The summary for a person."""
    for key, value in summary.items():
        if key == "connections":
            assert isinstance(value, list)
            value = ", ".join(f"{c['a']} – {c['b']} {c['kind']}" for c in value) or "none"
        elif isinstance(value, float):
            value = f"{value:,.3f}"
        elif isinstance(value, list | dict):
            value = json.dumps(value)
        print(f"{key:<18} {value}")


def main(argv: Sequence[str] | None = None) -> int:
    started_at = float(os.environ.pop("HIVE_DEMO_STARTED", "") or time.time())
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    try:
        plan = parse(sys.argv[1:] if argv is None else argv)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, on_signal)
        try:
            summary = conduct(plan, stop, started_at)
        except OSError as e:
            if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
                raise StorageError(
                    f"{e.filename or 'the state directory'} cannot be written: {e.strerror}. Free some space."
                ) from e
            raise
    except HiveError as e:
        say(str(e))
        return e.exit_code
    except KeyboardInterrupt:
        say("stopped")
        return EXIT_INTERRUPTED
    if plan.json:
        print(json.dumps(summary), flush=True)
    else:
        show(summary)
    problems = summary["problems"]
    assert isinstance(problems, list)
    for problem in problems:
        say(problem)
    return EXIT_NOT_TRAINED if problems else 0


if __name__ == "__main__":
    sys.exit(main())
