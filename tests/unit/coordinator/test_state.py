"""The state directory: private, made once, and clear words when it cannot be."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import pytest

from agent.errors import IdentityError, StorageError
from coordinator import state


def test_it_is_made_and_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    state.prepare(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = state.secret_key(tmp_path)
    assert len(secret) >= 50 and state.secret_key(tmp_path) == secret
    assert stat.S_IMODE((tmp_path / state.SECRET_FILE).stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [state.SECRET_FILE]


def test_of_two_processes_the_first_secret_counts(tmp_path: Path) -> None:
    (tmp_path / state.SECRET_FILE).write_text("first\n")
    assert state._create(tmp_path / state.SECRET_FILE, "second") == "first"


def test_the_signing_key_is_kept(tmp_path: Path) -> None:
    first, second = state.signing_identity(tmp_path), state.signing_identity(tmp_path)
    assert first.peer_id == second.peer_id
    assert stat.S_IMODE((tmp_path / state.KEY_FILE).stat().st_mode) == 0o600


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    state.signing_identity(tmp_path)
    os.chmod(tmp_path / state.KEY_FILE, 0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        state.signing_identity(tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="HIVE_STATE_DIR"):
        state.prepare(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match="HIVE_STATE_DIR"):
        state.secret_key(tmp_path / "file" / "state")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f".probe-{os.getpid()}").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left"):
        state.prepare(tmp_path)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with contextlib.ExitStack() as first:
        first.enter_context(state.alone(tmp_path))
        with pytest.raises(StorageError, match="another coordinator runs on .* HIVE_STATE_DIR"):
            first.enter_context(state.alone(tmp_path))
    with state.alone(tmp_path):
        pass
    with pytest.raises(StorageError, match="HIVE_STATE_DIR"), state.alone(tmp_path / "nowhere"):
        pass
