"""What a verb says when it ends badly."""

from __future__ import annotations

import pytest


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error."""
    err = capsys.readouterr().err
    assert err.startswith("hive-agent: ") and err.count("\n") == 1, err
    return err
