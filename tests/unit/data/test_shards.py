from __future__ import annotations

import pytest
import torch

from agent.data.corpus import Corpus
from agent.data.shards import Shard, ShardConfig, training_batch, validation_batches

CORPUS = Corpus(
    train=torch.arange(100_000).remainder(251).to(torch.uint8), validation=torch.arange(9_000).remainder(241).to(torch.uint8)
)


def batch(seed: int = 0, peer: str = "alice", step: int = 0, size: int = 4, sequence: int = 32) -> torch.Tensor:
    return training_batch(CORPUS, seed=seed, peer=peer, step=step, batch_size=size, sequence=sequence)


def test_a_batch_is_windows_of_the_text() -> None:
    tokens = batch()
    assert tokens.shape == (4, 33) and tokens.dtype == torch.int64
    assert ((tokens[:, 1:] - tokens[:, :-1]) % 251 == 1).all()


def test_the_stream_is_the_same_for_ever() -> None:
    """These numbers may not change between releases: agents of different versions must not train on each other's shards."""
    assert batch(size=2)[:, 0].tolist() == [98, 39]


def test_seeds_peers_and_steps_draw_different_streams() -> None:
    seen = {
        tuple(batch(seed, peer, step).flatten().tolist()) for seed in (0, 1) for peer in ("a", "b", "a\n1") for step in range(20)
    }
    assert len(seen) == 2 * 3 * 20


def test_windows_reach_both_ends_of_the_text() -> None:
    short = Corpus(train=torch.arange(10, dtype=torch.uint8), validation=torch.arange(9, dtype=torch.uint8))
    starts = {
        int(s) for step in range(20) for s in training_batch(short, seed=0, peer="a", step=step, batch_size=8, sequence=7)[:, 0]
    }
    assert starts == {0, 1, 2}


def test_a_window_that_is_as_long_as_the_text_and_one_longer() -> None:
    assert batch(sequence=99_999).shape == (4, 100_000)
    with pytest.raises(ValueError, match="does not fit"):
        batch(sequence=100_000)


def test_validation_is_fixed_and_covers_the_text() -> None:
    batches = validation_batches(CORPUS, batches=3, batch_size=5, sequence=32)
    assert len(batches) == 3 and all(b.shape == (5, 33) for b in batches)
    again = validation_batches(CORPUS, batches=3, batch_size=5, sequence=32)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert len({tuple(row.tolist()) for b in batches for row in b}) == 15


def test_a_shard_gives_inputs_and_targets() -> None:
    shard = Shard(CORPUS, ShardConfig(seed=0, batch_size=4, sequence=32), peer="alice")
    inputs, targets = shard.training(7)
    tokens = batch(step=7)
    assert torch.equal(inputs, tokens[:, :-1]) and torch.equal(targets, tokens[:, 1:])
    other = Shard(CORPUS, ShardConfig(seed=0, batch_size=4, sequence=32), peer="bob")
    assert not torch.equal(other.training(7)[0], inputs)
    for (a, _), (b, _) in zip(shard.validation(), other.validation(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("tokens", "sequence", "batches", "size"), [(8192, 64, 2, 64), (100, 64, 1, 64), (8192, 5000, 2, 1), (16384, 512, 4, 8)]
)
def test_validation_has_few_large_batches(tokens: int, sequence: int, batches: int, size: int) -> None:
    found = Shard(CORPUS, ShardConfig(seed=0, batch_size=4, sequence=sequence, validation_tokens=tokens), peer="a").validation()
    assert len(found) == batches and all(inputs.shape == (size, sequence) for inputs, _ in found)


def test_a_text_shorter_than_a_window_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Shard(CORPUS, ShardConfig(seed=0, batch_size=4, sequence=9_000), peer="alice")
    with pytest.raises(ValueError):
        ShardConfig(seed=0, batch_size=0, sequence=4)
