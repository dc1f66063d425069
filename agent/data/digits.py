"""Handwritten digits that come with Hive, and batches of them as pure functions of (seed, peer, step).

The file and its licence are in agent/data/files (digits.txt). The bitmaps are those of "Optical Recognition of Handwritten
Digits" (UCI, https://doi.org/10.24432/C50P49), whose test set this is. Shapes: N images, B batch, P pixels.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agent.errors import ConfigError
from agent.manifest import DIGIT_CLASSES, DIGIT_SIDE, Digits

FILE = Path(__file__).parent / "files" / "digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
FILE_BYTES_MAX = 1 << 20
IMAGES = 1797
PIXELS = DIGIT_SIDE * DIGIT_SIDE
BRIGHTEST = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitImages:
    """Two disjoint parts of the images: pixels int64 [N, PIXELS] of 0 to BRIGHTEST, row by row, and labels int64 [N]."""

    train_NP: Tensor
    train_N: Tensor
    validation_NP: Tensor
    validation_N: Tensor


def load_digits(data: Digits, path: Path = FILE) -> DigitImages:
    """Read, check and split. The images with the lowest SHA-256 of their line are held out, the same for everyone.

    Raises ConfigError, with a sentence that says what to do, if the file is missing or not the right one.
    """
    lines = _lines(path)
    held_out = set(sorted(map(_digest, lines))[: max(1, round(data.validation_share * len(lines)))])
    rows_NV = torch.tensor([[int(value) for value in line.split(b",")] for line in lines])
    images_NP, labels_N = rows_NV[:, :-1], rows_NV[:, -1]
    apart_N = torch.tensor([_digest(line) in held_out for line in lines])
    return DigitImages(
        train_NP=images_NP[~apart_N],
        train_N=labels_N[~apart_N],
        validation_NP=images_NP[apart_N],
        validation_N=labels_N[apart_N],
    )


def _lines(path: Path) -> list[bytes]:
    """One for each image, checked."""
    try:
        with path.open("rb") as file:
            packed = file.read(FILE_BYTES_MAX)
        if hashlib.sha256(packed).hexdigest() != SHA256:
            raise ConfigError(f"{path} is not the file of digits that Hive comes with: install the agent anew")
        lines = gzip.decompress(packed).split()
    except OSError as e:
        raise ConfigError(f"cannot read the file of digits {path}: {e.strerror or e}. Install the agent anew.") from e
    except (EOFError, zlib.error) as e:
        raise ConfigError(f"cannot unpack the file of digits {path}: {e}. Install the agent anew.") from e
    _check([[int(value) for value in line.split(b",")] for line in lines])
    return lines


def _check(rows: list[list[int]]) -> None:
    """What the hash already promises: a new file that was put in with its hash but is of another shape ends here."""
    if len(rows) != IMAGES or any(len(row) != PIXELS + 1 for row in rows):
        raise ConfigError(f"the file of digits does not hold {IMAGES} images of {PIXELS} pixels with their label")
    if any(not 0 <= value <= BRIGHTEST for row in rows for value in row[:-1]):
        raise ConfigError(f"a pixel in the file of digits is not from 0 to {BRIGHTEST}")
    if {row[-1] for row in rows} != set(range(DIGIT_CLASSES)):
        raise ConfigError(f"the labels in the file of digits are not 0 to {DIGIT_CLASSES - 1}")


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


class DigitBatches:
    """The batches of one peer; `trainer.Batches` is its interface. Raises ValueError if `batch_size` is below 1."""

    def __init__(self, images: DigitImages, *, seed: int, batch_size: int, peer: str) -> None:
        if batch_size < 1:
            raise ValueError("batch_size is at least 1")
        self.images = images
        self.seed = seed
        self.batch_size = batch_size
        self.peer = peer

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        """Images int64 [B, PIXELS] and labels int64 [B, 1] of this peer's `step`-th batch, drawn with replacement."""
        seed = f"hive/1/digits\n{self.seed}\n{self.peer}\n{step}".encode()
        digest = hashlib.shake_256(seed).digest(8 * self.batch_size)
        count = len(self.images.train_N)
        picks = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") % count for i in range(self.batch_size)]
        return self.images.train_NP[picks], self.images.train_N[picks, None]

    def validation(self) -> list[tuple[Tensor, Tensor]]:
        """All images that are held out, in one batch, the same for every peer."""
        return [(self.images.validation_NP, self.images.validation_N[:, None])]
