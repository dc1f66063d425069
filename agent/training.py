"""The trainer role put together: data, trunk, model, experts, averaging, and the threads that train."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from agent.averaging.averager import Averager
from agent.averaging.gossip import GossipConfig
from agent.averaging.trunk import Trunk, TrunkConfig
from agent.data import corpus
from agent.data.digits import DigitBatches, DigitImages, load_digits
from agent.data.shards import Shard, ShardConfig
from agent.experts.directory import Directory
from agent.experts.server import ExpertServer
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.manifest import Digits, GPTModel, Manifest
from agent.moe.build import build_model
from agent.moe.remote import RemoteConfig, RemoteCounters, RemoteExperts
from agent.net.network import Network
from agent.net.overlay import Overlay
from agent.samples import Sample, Sampler
from agent.trainer import Batches, Progress, Trainer, TrainerConfig

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 20.0
"""How long leaving waits for the batches in flight."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the trainer role stands on."""

    network: Network
    overlay: Overlay
    directory: Directory
    server: ExpertServer
    rng: random.Random


class Training:
    """One agent's trainer role. `start`, then `admit` now and then, then `stop`; all on the event loop."""

    def __init__(
        self, manifest: Manifest, data: corpus.Corpus | DigitImages, around: Surroundings, *, first_step: int = 0
    ) -> None:
        """`first_step`: the first batch number to draw, so that a restarted agent goes on where its shard was."""
        self.manifest = manifest
        training = manifest.training
        self._experts = RemoteExperts(
            around.network.call,
            around.directory,
            loop=asyncio.get_running_loop(),
            peer_id=around.network.peer_id,
            own=around.server,
            config=RemoteConfig.of(manifest),
        )
        model = self._make_model()
        self.trunk = Trunk(
            dict(model.named_parameters()),
            TrunkConfig(learning_rate=training.learning_rate, warmup_steps=training.warmup_steps, clip_norm=training.clip_norm),
        )
        gossip = GossipConfig(period_s=manifest.averaging.period_s)
        self._averager = Averager(self.trunk, around.network, around.overlay, gossip, rng=around.rng)
        batches = make_batches(manifest, data, peer=str(around.network.peer_id))
        self.trainer = Trainer(
            self._make_model,
            self.trunk,
            batches,
            TrainerConfig(
                batches_in_flight=training.batches_in_flight,
                balance_weight=training.balance_weight,
                validation_period_s=training.validation_period_s,
                first_step=first_step,
            ),
        )
        self._averaging: asyncio.Task[None] | None = None
        self._failed: BaseException | None = None
        self.trainer.on_failed = self._trainer_failed
        self._network, self._loop = around.network, asyncio.get_running_loop()
        self._known: Collection[PeerId] = ()
        self.on_sample: Callable[[Sample], None] = lambda sample: None
        """Called on the event loop with what the model wrote."""
        if isinstance(manifest.model, GPTModel):  # others write nothing
            prompts_BT = batches.validation()[0][0]
            sampler = Sampler(around.network.peer_id, lambda: self._known, prompts_BT, tell=self._tell_sample)
            self.trainer.after_validation = sampler.maybe

    async def start(self) -> bool:
        """Take over another trainer's trunk if there is one, then stand ready. True if a trunk was taken over."""
        taken_over = await self._averager.fetch()
        self._averaging = asyncio.get_running_loop().create_task(self._averager.run(), name="averaging")
        self.trainer.start()
        return taken_over

    def admit(self, alive: Collection[ExpertId], held: str = "") -> str:
        """Let batches run while nobody holds them (`held` says who does) and every layer has enough live experts.

        Returns what is waited for, or an empty string.
        """
        self._known = tuple(self._network.peers())  # for the sampler's thread
        short = held or short_of(self.manifest, alive)
        if short and self.trainer.running:
            self.trainer.pause()
        elif not short and not self.trainer.running:
            self.trainer.resume()
        return short

    async def stop(self) -> None:
        """Finish the batches in flight, and average no more."""
        self.trainer.stop()
        if not await asyncio.to_thread(self.trainer.join, STOP_TIMEOUT_S):
            log.warning("a batch in flight did not end within %.0f s", STOP_TIMEOUT_S)
        if self._averaging is not None:
            self._averaging.cancel()
            await asyncio.wait([self._averaging])

    def halt(self) -> None:
        """Stop without waiting for anything."""
        self.trainer.stop()
        if self._averaging is not None:
            self._averaging.cancel()

    def check(self) -> None:
        """Raise what ended a trainer thread or the averaging, if anything did."""
        if self._failed is not None:
            raise self._failed
        task = self._averaging
        if task is not None and task.done() and not task.cancelled():
            task.result()

    def counters(self) -> RemoteCounters:
        return self._experts.counters()

    def progress(self) -> Progress:
        return self.trainer.take_progress()

    def on_exchanged(self, callback: Callable[[PeerId], None]) -> None:
        """`callback(peer)` after each averaging that this agent began."""
        self._averager.on_exchanged = callback

    def _trainer_failed(self, error: BaseException) -> None:
        self._failed = error

    def _tell_sample(self, sample: Sample) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self.on_sample(sample))

    def _make_model(self) -> nn.Module:
        return build_model(self.manifest, self._experts)


def short_of(manifest: Manifest, alive: Collection[ExpertId]) -> str:
    """Which layer has too few live experts for the model to run, as a sentence; an empty string if none has."""
    for grid in manifest.model.grids():
        living = sum(uid in grid for uid in alive)
        if living < manifest.model.k_best:
            return f"layer {grid.layer} has {living} live experts and needs {manifest.model.k_best}: waiting for hosts"
    return ""


def load_data(manifest: Manifest, path: Path | None = None) -> corpus.Corpus | DigitImages:
    """What the experiment learns from. Raises ConfigError."""
    return load_digits(manifest.data) if isinstance(manifest.data, Digits) else corpus.load(manifest.data, path)


def make_batches(manifest: Manifest, data: corpus.Corpus | DigitImages, *, peer: str) -> Batches:
    """The stream of one peer. `data` is what `load_data` gave for this manifest. Raises ValueError if the text is too short."""
    seed, batch_size = manifest.seed, manifest.training.batch_size
    if isinstance(data, DigitImages):
        return DigitBatches(data, seed=seed, batch_size=batch_size, peer=peer)
    assert isinstance(manifest.model, GPTModel), "a manifest holds model and data together"
    return Shard(data, ShardConfig(seed=seed, batch_size=batch_size, sequence=manifest.model.sequence), peer=peer)
