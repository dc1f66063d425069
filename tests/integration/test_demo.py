"""The whole system, once, in processes of its own: `./hive demo` trains, and goes on when the coordinator is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "--agents 2 --for 40 --headless --json --ephemeral --chaos coordinator@25"


@pytest.mark.demo
def test_agents_train_together_and_need_no_coordinator() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HIVE_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.demo", *COMMAND.split()],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["problems"] == [] and facts["agents"] == 2
    assert facts["loss_first"] > 5 > facts["loss_last"]
    assert all(tokens > 0 for tokens in facts["tokens_by_agent"].values())
    assert {"a": "agent-1", "b": "agent-2", "kind": "direct"} in facts["connections"]
    assert 0 < facts["bytes_coordinator"] < 0.02 * facts["bytes_p2p"]
    assert facts["experts_alive"] == facts["experts_total"] > 0
    assert [kill["target"] for kill in facts["kills"]] == ["coordinator"]
