"""The text of an experiment, as bytes in memory, with a part held out for validation.

Which part is held out depends only on names or content, so every volunteer with the same text holds out the same part.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agent.errors import ConfigError
from agent.manifest import PythonStdlib, TextFile

SEPARATOR = b"\0"
"""Stands after every file of the standard library."""
SPLIT_BYTES_MIN = 4096
"""Either part has at least this many bytes."""
TEXT_BYTES_MAX = 2 << 30
STDLIB_FILES_MAX = 20_000
STDLIB_BYTES_MAX = 256 << 20
BLOCK_BYTES = 16 * 1024
"""A text file is held out in blocks of this size."""
_SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Corpus:
    """`train` and `validation` are uint8 tensors, one dimension, at least SPLIT_BYTES_MIN long."""

    train: Tensor
    validation: Tensor


def load(data: PythonStdlib | TextFile, path: Path | None = None) -> Corpus:
    """Read the text that a manifest names; `path` is the volunteer's own file for `text`.

    Raises ConfigError, with a sentence that says what to do, if it is missing, too small, too large or not the right one.
    """
    if isinstance(data, PythonStdlib):
        return load_stdlib(Path(sysconfig.get_paths()["stdlib"]), data.validation_share)
    if path is None:
        raise ConfigError("this experiment trains on a text file of your own: name it with --data FILE")
    return load_text(path, data.sha256, data.validation_share)


def load_stdlib(root: Path, validation_share: float) -> Corpus:
    """All `*.py` files below `root` but tests and installed packages, in order of their names relative to it.

    A file is held out if the SHA-256 of its relative name, as a fraction, is below `validation_share`.
    """
    if not root.is_dir():
        raise ConfigError(f"this Python's standard library is not at {root}: use a Python installation that has its sources")
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    total = 0
    for name in _source_names(root):
        try:
            source = (root / name).read_bytes()
        except OSError as e:
            raise ConfigError(f"cannot read {root / name}: {e.strerror}") from e
        total += len(source) + len(SEPARATOR)
        if total > STDLIB_BYTES_MAX:
            raise ConfigError(f"the sources below {root} exceed {STDLIB_BYTES_MAX >> 20} MiB: this is not a standard library")
        parts[_fraction(name.encode()) < validation_share].append(source + SEPARATOR)
    return _corpus(b"".join(parts[0]), b"".join(parts[1]), f"the standard library at {root}")


def load_text(path: Path, sha256: str, validation_share: float) -> Corpus:
    """One file, cut into blocks of BLOCK_BYTES; the blocks with the lowest SHA-256, at least one, are held out."""
    text = _read(path)
    if sha256 and hashlib.sha256(text).hexdigest() != sha256:
        raise ConfigError(f"{path} is not the file that this experiment trains on: its SHA-256 should be {sha256}")
    blocks = [text[i : i + BLOCK_BYTES] for i in range(0, len(text), BLOCK_BYTES)]
    hashes = [hashlib.sha256(block).digest() for block in blocks]
    held_out = set(sorted(hashes)[: max(1, round(validation_share * len(blocks)))])
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for block, digest in zip(blocks, hashes, strict=True):
        parts[digest in held_out].append(block)
    return _corpus(b"".join(parts[0]), b"".join(parts[1]), str(path))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > TEXT_BYTES_MAX:
            raise ConfigError(f"{path} has {size} bytes; at most {TEXT_BYTES_MAX} can be trained on")
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"cannot read the text file {path}: {e.strerror}. Name another with --data.") from e


def _source_names(root: Path) -> list[str]:
    names: list[str] = []
    for directory, below, files in os.walk(root):
        below[:] = sorted(b for b in below if b not in _SKIPPED)
        relative = Path(directory).relative_to(root)
        names += [(relative / f).as_posix() for f in files if f.endswith(".py")]
        if len(names) > STDLIB_FILES_MAX:
            raise ConfigError(f"there are more than {STDLIB_FILES_MAX} sources below {root}: this is not a standard library")
    return sorted(names)


def _fraction(name: bytes) -> float:
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") / 2**64


def _corpus(train: bytes, validation: bytes, where: str) -> Corpus:
    if min(len(train), len(validation)) < SPLIT_BYTES_MIN:
        raise ConfigError(
            f"{where} is too small to train on: {len(train)} bytes to train and {len(validation)} held out, "
            f"at least {SPLIT_BYTES_MIN} of each are needed"
        )
    return Corpus(train=_tensor(train), validation=_tensor(validation))


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
