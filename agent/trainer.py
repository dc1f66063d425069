"""The trainer role: draws batches, runs the trunk, calls the experts, and keeps several batches in flight.

Each batch in flight has its own thread, which spends most of its time waiting for experts. It computes on a snapshot of
the trunk, so that others may step the trunk meanwhile (asynchronous SGD with staleness below `batches_in_flight`).
Legend: B sequences, T tokens of context, V vocabulary, P trunk parameters.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from agent.averaging.trunk import Trunk
from agent.scoring import Model, bound, score

log = logging.getLogger(__name__)

PAUSE_AFTER_REJECTED_S = 0.5
"""How long a thread rests after a batch that taught nothing, so that a broken overlay is not hammered."""


class Batches(Protocol):
    """Where batches come from: pure functions of their arguments (agent/data/shards.py)."""

    def training(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64 [B, T] each, of this peer's `step`-th batch.

        For images: pixels [B, P] and labels [B, 1]. Each target counts as one token, and the loss is a mean over targets.
        """
        ...

    def validation(self) -> list[tuple[Tensor, Tensor]]:
        """The fixed held-out batches, shaped alike."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How one trainer works."""

    batches_in_flight: int = 2
    balance_weight: float = 0.01
    validation_period_s: float = 30.0
    first_step: int = 0
    """Number of the first batch to draw."""

    def __post_init__(self) -> None:
        if self.batches_in_flight < 1 or self.validation_period_s <= 0 or self.balance_weight < 0:
            raise ValueError("batches_in_flight, validation_period_s and balance_weight must be positive")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a trainer has done since it started; `losses` only since progress was last taken."""

    next_step: int
    """Number of the next batch to draw."""
    batches: int
    batches_rejected: int
    tokens: int
    losses: tuple[float, ...]
    loss_validation: float | None


class Trainer:
    """Trains until `stop`. `start` and `stop` are called from the event loop; the work is done in threads.

    `make_model()` gives a module whose parameters are the trunk's and whose call is `(inputs_BT) -> (logits_BTV, balance loss)`.
    Every thread has its own, because `functional_call` puts the snapshot into the module while it runs.
    """

    def __init__(self, make_model: Callable[[], nn.Module], trunk: Trunk, batches: Batches, config: TrainerConfig) -> None:
        self._make_model = make_model
        self._trunk = trunk
        self._batches = batches
        self._config = config
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._may_run = threading.Event()
        self._threads: list[threading.Thread] = []
        self._next_step = config.first_step
        self._done = self._rejected = self._tokens = 0
        self._losses: list[float] = []
        self._loss_validation: float | None = None
        self._validate_at = time.monotonic() + config.validation_period_s
        self.on_failed: Callable[[BaseException], None] = lambda error: None
        self.after_validation: Callable[[Model, Callable[[], bool]], None] = lambda model, keep_going: None
        """Called on the thread that validated, with the trunk of then; it ends soon once `keep_going()` is false."""

    def start(self) -> None:
        """Start the threads; batches run while `resume` is in force."""
        for i in range(self._config.batches_in_flight):
            thread = threading.Thread(target=self._work, name=f"trainer-{i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def pause(self) -> None:
        """Finish the batches in flight and start no more."""
        self._may_run.clear()

    def resume(self) -> None:
        self._may_run.set()

    @property
    def running(self) -> bool:
        return self._may_run.is_set()

    def stop(self) -> None:
        """Start no more batches. The threads end when their batch in flight does."""
        self._stopping.set()
        self._may_run.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the batches in flight. False if some did not end in time. Not for the event loop's thread."""
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(t.is_alive() for t in self._threads)

    def take_progress(self) -> Progress:
        """What has been done so far. The losses are handed out once."""
        with self._lock:
            losses, self._losses = tuple(self._losses), []
            return Progress(self._next_step, self._done, self._rejected, self._tokens, losses, self._loss_validation)

    def _work(self) -> None:
        try:
            model = self._make_model()
            while True:
                self._may_run.wait()
                if self._stopping.is_set():
                    return
                if self._claim_validation():
                    self._validate(model)
                elif not self._train_one(model):
                    self._stopping.wait(PAUSE_AFTER_REJECTED_S)
        except Exception as e:  # root of a thread: logged and reported, never silent
            log.exception("a trainer thread failed")
            self.on_failed(e)

    def _train_one(self, model: nn.Module) -> bool:
        with self._lock:
            step, self._next_step = self._next_step, self._next_step + 1
        inputs_BT, targets_BT = self._batches.training(step)
        vector_P = self._trunk.snapshot()
        logits_BTV, balance = functional_call(model, self._trunk.views(vector_P), (inputs_BT,))
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
        (gradient_P,) = torch.autograd.grad(loss + self._config.balance_weight * balance, vector_P)
        value = float(loss.detach())
        learnt = self._trunk.apply(gradient_P)
        with self._lock:
            if learnt:
                self._done += 1
                self._tokens += targets_BT.numel()
                self._losses.append(value)
            else:
                self._rejected += 1
        return learnt

    def _claim_validation(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now < self._validate_at:
                return False
            self._validate_at = now + self._config.validation_period_s
            return True

    def _validate(self, model: nn.Module) -> None:
        call = bound(model, self._trunk.views(self._trunk.snapshot().detach()))
        scored = score(call, self._batches.validation(), lambda: not self._stopping.is_set())
        if scored is None:
            return
        with self._lock:
            self._loss_validation = scored.loss
        self.after_validation(call, lambda: self._may_run.is_set() and not self._stopping.is_set())
