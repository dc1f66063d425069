"""The digits that come with Hive: the right file, split the same for everyone, in batches that follow from their arguments."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch

from agent.data import digits
from agent.data.digits import BRIGHTEST, DigitBatches, DigitImages, load_digits
from agent.errors import ConfigError
from agent.manifest import Digits


@pytest.fixture(scope="module")
def images() -> DigitImages:
    return load_digits(Digits())


def test_what_is_read(images: DigitImages) -> None:
    assert len(images.train_N) + len(images.validation_N) == digits.IMAGES
    assert len(images.validation_N) == round(0.2 * digits.IMAGES)
    for pixels_NP, labels_N in ((images.train_NP, images.train_N), (images.validation_NP, images.validation_N)):
        assert pixels_NP.shape == (len(labels_N), 64) and pixels_NP.dtype == labels_N.dtype == torch.int64
        assert (int(pixels_NP.min()), int(pixels_NP.max())) == (0, BRIGHTEST)
        assert labels_N.unique().tolist() == list(range(10))


def test_the_parts_are_disjoint_and_the_same_everywhere(images: DigitImages) -> None:
    seen = {bytes(row) for row in images.train_NP.to(torch.uint8).numpy()}
    assert not seen & {bytes(row) for row in images.validation_NP.to(torch.uint8).numpy()}
    digest = hashlib.sha256(images.validation_NP.numpy().tobytes() + images.validation_N.numpy().tobytes()).hexdigest()
    assert digest[:16] == "556ea42b21efe7c2", "another split would mix held-out images of old and new agents"
    assert len(load_digits(Digits(validation_share=1e-6)).validation_N) == 1


def test_batches_follow_from_seed_peer_and_step(images: DigitImages) -> None:
    def batch(seed: int = 0, peer: str = "a", step: int = 0) -> torch.Tensor:
        pixels_BP, labels_B1 = DigitBatches(images, seed=seed, batch_size=16, peer=peer).training(step)
        assert pixels_BP.shape == (16, 64) and labels_B1.shape == (16, 1)
        return pixels_BP

    first = batch()
    assert first.equal(batch())
    assert not any(first.equal(other) for other in (batch(seed=1), batch(peer="b"), batch(step=1)))


def test_validation_is_everything_that_is_held_out(images: DigitImages) -> None:
    ((pixels_BP, labels_B1),) = DigitBatches(images, seed=0, batch_size=16, peer="a").validation()
    assert pixels_BP.equal(images.validation_NP) and labels_B1.flatten().equal(images.validation_N)
    with pytest.raises(ValueError, match="at least 1"):
        DigitBatches(images, seed=0, batch_size=0, peer="a")


def test_a_file_that_is_not_the_right_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot read the file of digits"):
        load_digits(Digits(), tmp_path / "missing")
    other = tmp_path / "other"
    text = gzip.decompress(digits.FILE.read_bytes())
    other.write_bytes(gzip.compress(text.replace(b"16", b"17", 1)))
    with pytest.raises(ConfigError, match="not the file of digits that Hive comes with"):
        load_digits(Digits(), other)
    for content, says in (
        (gzip.compress(text.replace(b"16", b"17", 1)), "not from 0 to 16"),
        (gzip.compress(text.split(b"\n", 1)[1]), "does not hold 1797 images"),
        (gzip.compress(b"".join(line[:-2] + b",0\n" for line in text.splitlines())), "labels"),
        (b"not packed", "cannot read|cannot unpack"),
        (gzip.compress(text)[:-20], "cannot unpack"),
    ):
        other.write_bytes(content)
        monkeypatch.setattr(digits, "SHA256", hashlib.sha256(content).hexdigest())
        with pytest.raises(ConfigError, match=says):
            load_digits(Digits(), other)
