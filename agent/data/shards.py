"""Batches as pure functions: the same (seed, peer, step) gives the same batch on every machine and version.

Positions come from SHAKE-256 (FIPS 202) rather than a library's generator, whose stream may change between releases.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from agent.data.corpus import Corpus

VALIDATION_BATCH_TOKENS = 4096
"""Validation needs no gradients, so its batches are large and its calls few."""


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """Which batches a trainer draws."""

    seed: int
    """The experiment's."""
    batch_size: int
    """Sequences per batch."""
    sequence: int
    """Tokens per sequence."""
    validation_tokens: int = 8192
    """About how many held-out tokens the validation loss is taken over, in batches of VALIDATION_BATCH_TOKENS."""

    def __post_init__(self) -> None:
        if min(self.batch_size, self.sequence, self.validation_tokens) < 1:
            raise ValueError("batch_size, sequence and validation_tokens are at least 1")


class Shard:
    """The batches of one peer; `trainer.Batches` is its interface. Raises ValueError if the text is shorter than a window."""

    def __init__(self, corpus: Corpus, config: ShardConfig, *, peer: str) -> None:
        self.corpus = corpus
        self.config = config
        self.peer = peer
        _starts(len(corpus.train), config.sequence + 1)
        size = max(1, VALIDATION_BATCH_TOKENS // config.sequence)
        batches = max(1, round(config.validation_tokens / (size * config.sequence)))
        self._validation = validation_batches(corpus, batches=batches, batch_size=size, sequence=config.sequence)

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of this peer's `step`-th batch, int64 [batch_size, sequence] each."""
        c = self.config
        window = training_batch(self.corpus, seed=c.seed, peer=self.peer, step=step, batch_size=c.batch_size, sequence=c.sequence)
        return window[:, :-1], window[:, 1:]

    def validation(self) -> list[tuple[Tensor, Tensor]]:
        """The held-out batches, the same for every peer."""
        return [(window[:, :-1], window[:, 1:]) for window in self._validation]


def training_batch(corpus: Corpus, *, seed: int, peer: str, step: int, batch_size: int, sequence: int) -> Tensor:
    """Random windows of the training text, int64 [batch_size, sequence + 1]: inputs `[:, :-1]`, targets `[:, 1:]`.

    Two peers never draw the same stream, nor does one peer draw a batch twice (up to collisions of a hash).
    Raises ValueError if a window is longer than the text.
    """
    starts = _starts(len(corpus.train), sequence + 1)
    digest = hashlib.shake_256(f"hive/1/batch\n{seed}\n{peer}\n{step}".encode()).digest(8 * batch_size)
    offsets = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") % starts for i in range(batch_size)]
    return _windows(corpus.train, offsets, sequence + 1)


def validation_batches(corpus: Corpus, *, batches: int, batch_size: int, sequence: int) -> list[Tensor]:
    """The same windows for everyone, spread evenly over the held-out text; each int64 [batch_size, sequence + 1]."""
    starts = _starts(len(corpus.validation), sequence + 1)
    total = batches * batch_size
    # Neighbouring windows go to different batches, so that a few batches already cover the whole text.
    offsets = [starts * i // total for i in range(total)]
    return [_windows(corpus.validation, offsets[b::batches], sequence + 1) for b in range(batches)]


def _starts(length: int, window: int) -> int:
    if window > length:
        raise ValueError(f"a window of {window} tokens does not fit into {length} bytes of text")
    return length - window + 1


def _windows(text: Tensor, offsets: list[int], window: int) -> Tensor:
    index = torch.tensor(offsets)[:, None] + torch.arange(window)
    return text[index].to(torch.int64)
