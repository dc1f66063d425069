"""`manage.py`: what an operator can mend is said in one sentence, without a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def said(state: Path, *words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={**os.environ, "HIVE_STATE_DIR": str(state), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("words", "environment", "code", "sentence"),
    [
        (["seed_experiment", "digits"], {}, 4, "Make its tables with: manage.py migrate"),
        (["check"], {"HIVE_STATE_DIR": "/proc/self/nowhere"}, 4, "HIVE_STATE_DIR"),
        (["check"], {"DATABASE_URL": "foo://x"}, 2, "DATABASE_URL must begin with postgres://"),
        (["migrate"], {"DATABASE_URL": "postgres://u:p@127.0.0.1:1/x"}, 4, "Check HIVE_STATE_DIR or DATABASE_URL"),
    ],
)
def test_what_an_operator_can_mend(
    tmp_path: Path, words: list[str], environment: dict[str, str], code: int, sentence: str
) -> None:
    returned, err = said(tmp_path, *words, **environment)
    assert returned == code and sentence in err, err
    assert err.count("\n") == 1 and err.startswith("manage.py: ")


def test_a_command_that_works(tmp_path: Path) -> None:
    assert said(tmp_path, "check") == (0, "")
