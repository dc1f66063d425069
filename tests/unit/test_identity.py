"""Keys, ids, sealing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import IdentityError, RemoteError
from agent.identity import SEAL_OVERHEAD_BYTES, Identity, KeyFile, PeerId

ALICE, BOB = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))


def test_the_text_form_is_read_back() -> None:
    text = str(ALICE.peer_id)
    assert len(text) == 52 and PeerId.parse(text) == PeerId.parse(f" {text.upper()}\n") == ALICE.peer_id
    assert ALICE.peer_id.short == text[:8] and len(ALICE.peer_id.key) == 32


@pytest.mark.parametrize("text", ["", "a" * 51, "a" * 53, "1" * 52, "ä" * 52, "a" * 51 + "b"])
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a peer id"):
        PeerId.parse(text)


def test_a_signature_holds_for_one_purpose_one_message_one_peer() -> None:
    signature = ALICE.sign("record", b"x")
    assert ALICE.peer_id.verify("record", b"x", signature)
    assert not ALICE.peer_id.verify("offer", b"x", signature)
    assert not ALICE.peer_id.verify("record", b"y", signature)
    assert not BOB.peer_id.verify("record", b"x", signature)
    assert not ALICE.peer_id.verify("record", b"x", signature[:-1])
    assert not PeerId(b"\xff" * 32).verify("record", b"x", signature)


@given(st.binary(max_size=2000), st.binary(min_size=32, max_size=32))
def test_only_the_recipient_reads_a_sealed_message(message: bytes, seed: bytes) -> None:
    recipient = Identity.from_seed(seed)
    sealed = recipient.peer_id.seal(message)
    assert len(sealed) == len(message) + SEAL_OVERHEAD_BYTES and recipient.unseal(sealed) == message
    if recipient.peer_id != BOB.peer_id:
        with pytest.raises(RemoteError, match="not for this peer"):
            BOB.unseal(sealed)


@given(st.binary(max_size=200))
def test_an_altered_seal_is_refused(garbage: bytes) -> None:
    with pytest.raises(RemoteError):
        BOB.unseal(garbage)


def test_a_key_file_is_made_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "identity.key"
    first = KeyFile(path)
    identity = first.open()
    assert path.stat().st_mode & 0o777 == 0o600
    first.close()
    again = KeyFile(path)
    assert again.open().peer_id == identity.peer_id
    again.close()


def test_a_key_file_in_use_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    holder = KeyFile(path)
    holder.open()
    code = f"from pathlib import Path; from agent.identity import KeyFile; KeyFile(Path({str(path)!r})).open()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert "used by another running agent" in result.stderr
    holder.close()


@pytest.mark.parametrize("content", [b"hello", b"hive-ed25519 !!", b"hive-ed25519 AAAA", b"\xff" * 100])
def test_what_is_no_key_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="not a Hive key file"):
        KeyFile(path).open()
    assert path.read_bytes() == content


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    holder = KeyFile(path)
    holder.open()
    holder.close()
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        KeyFile(path).open()


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="--key-file"):
        KeyFile(tmp_path / "file" / "identity.key").open()
    os.mkdir(tmp_path / "directory")
    with pytest.raises(IdentityError, match="cannot open"):
        KeyFile(tmp_path / "directory").open()
