"""The trainer's threads, on a small real model."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from agent.averaging.trunk import Trunk, TrunkConfig
from agent.trainer import Trainer, TrainerConfig

WAIT_S = 30.0


class Bigram(nn.Module):
    """The next byte from this one. With a barrier, a batch passes only while another is under way too."""

    def __init__(self, together: threading.Barrier | None = None) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 8)
        self.together = together

    def forward(self, inputs_BT: Tensor) -> tuple[Tensor, Tensor]:
        if self.together is not None:
            self.together.wait()
        return self.table(inputs_BT), torch.zeros(())


class Cycle:
    """Text that counts 0..7 for ever. Says when `enough` batches were drawn."""

    def __init__(self, enough: int) -> None:
        self.steps: list[int] = []
        self.validated = 0
        self.enough = enough
        self.reached = threading.Event()

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        self.steps.append(step)
        if len(self.steps) >= self.enough:
            self.reached.set()
        x = (torch.arange(16).view(2, 8) + step) % 8
        return x, (x + 1) % 8

    def validation(self) -> list[tuple[Tensor, Tensor]]:
        self.validated += 1
        x = torch.arange(8).view(1, 8)
        return [(x, (x + 1) % 8)]


def make(make_model: Callable[[], nn.Module], batches: Cycle, **config: float) -> tuple[Trainer, Trunk]:
    torch.manual_seed(0)
    model = make_model()
    trunk = Trunk(dict(model.named_parameters()), TrunkConfig(learning_rate=0.05, warmup_steps=0))
    return Trainer(make_model, trunk, batches, TrainerConfig(**config)), trunk  # type: ignore[arg-type]


def finish(trainer: Trainer) -> None:
    trainer.stop()
    assert trainer.join(WAIT_S)


def test_it_learns_and_counts_every_batch_once() -> None:
    batches = Cycle(enough=200)
    trainer, trunk = make(Bigram, batches)
    trainer.start()
    trainer.resume()
    assert batches.reached.wait(WAIT_S)
    finish(trainer)
    progress = trainer.take_progress()
    assert sorted(batches.steps) == list(range(len(batches.steps)))
    assert progress.batches == trunk.step == len(batches.steps) == len(progress.losses)
    assert progress.tokens == 16 * progress.batches and progress.batches_rejected == 0
    assert progress.losses[0] > 2.0 > 0.5 > progress.losses[-1]
    assert trainer.take_progress().losses == ()


def test_several_batches_are_in_flight() -> None:
    together = threading.Barrier(2, timeout=WAIT_S)
    batches = Cycle(enough=10)
    trainer, _ = make(lambda: Bigram(together), batches, batches_in_flight=2)
    failures: list[BaseException] = []
    trainer.on_failed = failures.append
    trainer.start()
    trainer.resume()
    assert batches.reached.wait(WAIT_S)
    together.abort()
    finish(trainer)
    assert all(isinstance(f, threading.BrokenBarrierError) for f in failures)
    assert trainer.take_progress().batches >= 8


def test_nothing_runs_before_resume_or_after_stop() -> None:
    batches = Cycle(enough=1)
    trainer, trunk = make(Bigram, batches)
    trainer.start()
    assert not trainer.running
    finish(trainer)
    assert batches.steps == [] and trunk.step == 0


def test_validation_is_measured_on_the_held_out_batches() -> None:
    batches = Cycle(enough=50)
    trainer, _ = make(Bigram, batches, validation_period_s=1e-9, batches_in_flight=1)
    batches_validated = threading.Event()
    original = batches.validation

    def validation() -> list[tuple[Tensor, Tensor]]:
        batches_validated.set()
        return original()

    batches.validation = validation  # type: ignore[method-assign]
    trainer.start()
    trainer.resume()
    assert batches_validated.wait(WAIT_S)
    trainer.pause()
    finish(trainer)
    progress = trainer.take_progress()
    assert progress.loss_validation is None or progress.loss_validation == pytest.approx(2.3, abs=1.5)
    assert progress.batches == 0  # validation was always due, so nothing else ran


def test_a_batch_that_is_not_finite_is_rejected_and_not_counted() -> None:
    batches = Cycle(enough=1)
    trainer, trunk = make(Bigram, batches, batches_in_flight=1)
    trunk.load(torch.full((trunk.size,), float("nan")), 0)
    trainer.start()
    trainer.resume()
    assert batches.reached.wait(WAIT_S)
    finish(trainer)
    progress = trainer.take_progress()
    assert progress.batches == progress.tokens == trunk.step == 0 and progress.batches_rejected >= 1


def test_limits() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TrainerConfig(batches_in_flight=0)


def test_after_validating_something_may_be_written_with_the_trunk_of_then() -> None:
    batches = Cycle(enough=50)
    trainer, _ = make(Bigram, batches, validation_period_s=0.001)
    shapes: list[tuple[int, ...]] = []
    wrote = threading.Event()

    def write(model: Callable[[Tensor], tuple[Tensor, Tensor]], keep_going: Callable[[], bool]) -> None:
        shapes.append(tuple(model(torch.zeros(1, 3, dtype=torch.int64))[0].shape))
        if keep_going():
            wrote.set()

    trainer.after_validation = write
    trainer.start()
    trainer.resume()
    assert wrote.wait(WAIT_S)
    finish(trainer)
    assert set(shapes) == {(1, 3, 8)} and len(shapes) <= batches.validated
