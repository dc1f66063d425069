from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.data import corpus
from agent.errors import ConfigError
from agent.manifest import PythonStdlib, TextFile


def text(seed: int, size: int = 9000) -> bytes:
    return hashlib.shake_256(str(seed).encode()).digest(size)


def library(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


FILES = {f"package/module{i}.py": text(i) for i in range(40)}


def test_every_source_is_in_exactly_one_part_and_ends_with_a_separator(tmp_path: Path) -> None:
    found = corpus.load_stdlib(library(tmp_path, FILES), 0.3)
    train, validation = bytes(found.train.numpy()), bytes(found.validation.numpy())
    for content in FILES.values():
        assert (content + b"\0" in train) != (content + b"\0" in validation)
    assert len(train) + len(validation) == sum(len(c) + 1 for c in FILES.values())
    assert 0.1 < len(validation) / (len(train) + len(validation)) < 0.5


def test_order_and_split_do_not_depend_on_where_the_library_lies(tmp_path: Path) -> None:
    a = corpus.load_stdlib(library(tmp_path / "a", FILES), 0.3)
    b = corpus.load_stdlib(library(tmp_path / "elsewhere", dict(reversed(FILES.items()))), 0.3)
    assert a.train.equal(b.train) and a.validation.equal(b.validation)


def test_tests_packages_and_other_files_are_left_out(tmp_path: Path) -> None:
    more = {
        "test/test_os.py": b"X1" * 50,
        "json/tests/a.py": b"X2" * 50,
        "site-packages/b.py": b"X3" * 50,
        "__pycache__/c.py": b"X4" * 50,
        "data.txt": b"X5" * 50,
    }
    assert corpus.load_stdlib(library(tmp_path / "a", FILES | more), 0.3).train.equal(
        corpus.load_stdlib(library(tmp_path / "b", FILES), 0.3).train
    )


def test_this_interpreters_library_is_a_real_text() -> None:
    found = corpus.load(PythonStdlib())
    assert len(found.train) > 5_000_000
    assert 0.01 < len(found.validation) / len(found.train) < 0.2
    assert b"import " in bytes(found.validation.numpy())


def test_a_text_file_is_split_by_blocks(tmp_path: Path) -> None:
    content = b"".join(text(i, corpus.BLOCK_BYTES) for i in range(20)) + b"a rest"
    (tmp_path / "book.txt").write_bytes(content)
    data = TextFile(sha256=hashlib.sha256(content).hexdigest(), validation_share=0.2)
    found = corpus.load(data, tmp_path / "book.txt")
    assert len(found.train) + len(found.validation) == len(content)
    assert abs(len(found.validation) - 4 * corpus.BLOCK_BYTES) <= corpus.BLOCK_BYTES
    again = corpus.load(data, tmp_path / "book.txt")
    assert again.validation.equal(found.validation)


def test_a_block_that_occurs_twice_is_not_in_both_parts(tmp_path: Path) -> None:
    blocks = [text(i % 3, corpus.BLOCK_BYTES) for i in range(12)]
    (tmp_path / "t").write_bytes(b"".join(blocks))
    found = corpus.load_text(tmp_path / "t", "", 0.3)
    assert not any(
        bytes(found.validation[: corpus.BLOCK_BYTES].numpy()) == bytes(found.train[i : i + corpus.BLOCK_BYTES].numpy())
        for i in range(0, len(found.train), corpus.BLOCK_BYTES)
    )


@pytest.mark.parametrize("size", [2 * corpus.BLOCK_BYTES, corpus.BLOCK_BYTES + corpus.SPLIT_BYTES_MIN])
def test_the_smallest_text_that_will_do(tmp_path: Path, size: int) -> None:
    (tmp_path / "t").write_bytes(text(5, size))
    assert min(
        map(len, (corpus.load_text(tmp_path / "t", "", 0.05).train, corpus.load_text(tmp_path / "t", "", 0.05).validation))
    )


@pytest.mark.parametrize("size", [0, 1, corpus.BLOCK_BYTES, corpus.BLOCK_BYTES + corpus.SPLIT_BYTES_MIN - 1])
def test_a_smaller_one_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "t").write_bytes(text(5, size))
    with pytest.raises(ConfigError, match="too small"):
        corpus.load_text(tmp_path / "t", "", 0.05)


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--data"):
        corpus.load(TextFile())
    with pytest.raises(ConfigError, match="No such file"):
        corpus.load(TextFile(), tmp_path / "missing")
    with pytest.raises(ConfigError, match="cannot read"):
        corpus.load(TextFile(), tmp_path)
    (tmp_path / "t").write_bytes(text(1, 50_000))
    with pytest.raises(ConfigError, match="SHA-256"):
        corpus.load(TextFile(sha256="0" * 64), tmp_path / "t")
    monkeypatch.setattr(corpus, "TEXT_BYTES_MAX", 49_999)
    with pytest.raises(ConfigError, match="at most"):
        corpus.load_text(tmp_path / "t", "", 0.05)
    with pytest.raises(ConfigError, match="standard library"):
        corpus.load_stdlib(tmp_path / "missing", 0.05)
    with pytest.raises(ConfigError, match="too small"):
        corpus.load_stdlib(library(tmp_path / "tiny", {"a.py": b"pass\n"}), 0.05)


def test_limits_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = library(tmp_path, FILES)
    total = sum(len(c) + 1 for c in FILES.values())
    monkeypatch.setattr(corpus, "STDLIB_BYTES_MAX", total)
    monkeypatch.setattr(corpus, "STDLIB_FILES_MAX", len(FILES))
    corpus.load_stdlib(root, 0.3)
    monkeypatch.setattr(corpus, "STDLIB_BYTES_MAX", total - 1)
    with pytest.raises(ConfigError, match="MiB"):
        corpus.load_stdlib(root, 0.3)
    monkeypatch.setattr(corpus, "STDLIB_FILES_MAX", len(FILES) - 1)
    with pytest.raises(ConfigError, match="more than"):
        corpus.load_stdlib(root, 0.3)
