from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.cli import join
from agent.cli.main import main
from agent.cli.running import PidFile
from agent.config import AgentConfig, load
from agent.identity import Identity, KeyFile
from agent.manifest import Manifest, SignedManifest, sign
from agent.reports import Report
from tests.unit.cli.answers import last_line

SIGNER = Identity.from_seed(b"\1" * 32)
SIGNED = sign(Manifest(name="gpt-crowd", revision=1, title="GPT crowd", status="finished"), SIGNER)


pytestmark = pytest.mark.usefixtures("surroundings")


def test_nobody_there_is_exit_10(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["join", "gpt-crowd"]) == 10
    assert "does not answer" in last_line(capsys)


def test_unknown_experiment_is_exit_11(site: Callable[[int, bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    site(404, b'{"detail": "There is no experiment gpt-crowd."}')
    assert main(["--experiment", "gpt-crowd"]) == 11
    assert "no experiment 'gpt-crowd'" in last_line(capsys)


def test_a_tampered_manifest_is_exit_12(site: Callable[[int, bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    site(200, msgspec.json.encode(SignedManifest(payload=SIGNED.payload + b" ", signature=SIGNED.signature, key=SIGNED.key)))
    assert main(["join", "gpt-crowd"]) == 12
    assert "altered" in last_line(capsys)
    site(200, b"<html>")
    assert main(["join", "gpt-crowd"]) == 12


def test_another_key_than_the_trusted_one_is_exit_12(
    site: Callable[[int, bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    site(200, msgspec.json.encode(SIGNED))
    other = str(Identity.from_seed(b"\2" * 32).peer_id)
    assert main(["join", "gpt-crowd", "--coordinator-key", other]) == 12
    assert "another coordinator key" in last_line(capsys)


def test_a_finished_experiment_is_said(site: Callable[[int, bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    site(200, msgspec.json.encode(SIGNED))
    assert main(["join", "gpt-crowd"]) == 1
    assert "has finished" in last_line(capsys)


def test_an_unusable_key_file_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "identity.key").write_text("nonsense")
    (tmp_path / "identity.key").chmod(0o600)
    assert main(["join", "gpt-crowd"]) == 3
    assert "not a Hive key file" in last_line(capsys)


def test_a_key_that_another_agent_uses_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key_file = KeyFile(tmp_path / "identity.key")
    key_file.open()
    try:
        assert main(["join", "gpt-crowd"]) == 3
        assert "used by another running agent" in last_line(capsys)
    finally:
        key_file.close()


def test_a_state_directory_that_cannot_be_used_is_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["join", "gpt-crowd", "--state-dir", str(tmp_path / "file")]) == 4
    assert "cannot use the state directory" in last_line(capsys)


def test_the_same_experiment_twice_is_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PidFile(tmp_path / "gpt-crowd"):
        assert main(["join", "gpt-crowd", "--key-file", str(tmp_path / "other.key")]) == 4
        assert "already runs" in last_line(capsys)


class Member:
    """Takes part until the time given by --for is over."""

    latest = Report(sequence=1, at=1.0, stage="training", step=3)
    units = "tokens"

    def __init__(self) -> None:
        self.leaving = asyncio.Event()

    async def run(self) -> None:
        await self.leaving.wait()

    def drain(self) -> None:
        self.leaving.set()

    def stop(self) -> None:
        self.leaving.set()


def test_takes_part_and_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[AgentConfig] = []

    async def compose(config: AgentConfig, identity: Identity) -> Member:
        seen.append(config)
        return Member()

    monkeypatch.setattr(join, "compose", compose)
    assert main(["join", "gpt-crowd", "--for", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for said in ("coordinator http://127.0.0.1:1 (HIVE_COORDINATOR)", "peer id ", "training, step 3", "1 s are over"):
        assert said in out
    assert said in (tmp_path / "gpt-crowd" / "agent.log").read_text()
    assert seen[0].for_s == 1.0


def test_a_restart_goes_on_where_its_data_was(tmp_path: Path) -> None:
    config = load({"experiment": "gpt-crowd", "state_dir": str(tmp_path), "config": "/dev/null"}, {})
    assert join.last_step(config) == 0
    config.experiment_dir.mkdir()
    body = {"pid": 1, "session": "0" * 16, "peer": "a" * 52, "report": Report(sequence=1, at=1.0, stage="stopped", step=41)}
    (config.experiment_dir / "status.json").write_bytes(msgspec.json.encode(body))
    assert join.last_step(config) == 41
    (config.experiment_dir / "status.json").write_bytes(b"{")
    assert join.last_step(config) == 0
