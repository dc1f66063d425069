"""How fast a model learns per token, byte on the wire and CPU second: several trainers simulated in one process.

Real experts, trunk, optimizers, text and averaging; no network and no clock. Batches of all trainers overlap as they do
in a running crowd: each trainer has `--in-flight` of them, computed on the trunk and the experts as they were when it
began (stale gradients), and what would travel is rounded to bfloat16.

    python -m tests.bench.learning --set model.d_model=64 --set training.learning_rate=0.01 --tokens 120000
    python -m tests.bench.learning --preset digits --tokens 24000 --every 2400      (here a token is an image)
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from dataclasses import asdict, dataclass

import msgspec
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from agent.averaging.trunk import Trunk, TrunkConfig
from agent.experts.backend import expert_factory
from agent.manifest import Manifest, decode
from agent.models.classifier import Classifier
from agent.models.gpt import GPT
from agent.models.presets import PRESETS
from agent.models.sizes import activation_bytes_per_token
from agent.moe.build import build_model
from agent.moe.experts_api import BackwardCall, ForwardCall
from agent.moe.local import LocalExperts
from agent.trainer import Batches
from agent.training import load_data, make_batches


@dataclass(frozen=True)
class Point:
    """Where the crowd stands: totals over all trainers."""

    tokens: int
    batches: int
    cpu_s: float
    """Of models and experts; validation is not counted."""
    megabytes: float
    """Activations and gradients, those for a trainer's own experts included."""
    loss_validation: float


def rounded(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16).float()


class Crowd(LocalExperts):
    """Experts that step their optimizers, behind a wire that rounds and loses a share of the calls."""

    def __init__(self, manifest: Manifest, loss: float) -> None:
        factory = expert_factory(manifest)
        self.backends = {uid: factory(uid) for grid in manifest.model.grids() for uid in grid}
        rng = random.Random(0)
        super().__init__({u: b.module for u, b in self.backends.items()}, fails=lambda way, uid: rng.random() < loss)

    def _forward(self, call: ForwardCall) -> Tensor | None:
        if self._fails("forward", call.uid):
            return None
        self.rows[call.uid] += len(call.inputs)
        return rounded(self.backends[call.uid].forward(rounded(call.inputs)))

    def _backward(self, call: BackwardCall) -> Tensor | None:
        if self._fails("backward", call.uid):
            return None
        return rounded(self.backends[call.uid].backward(rounded(call.inputs), rounded(call.gradient)))


@dataclass
class Trainer:
    trunk: Trunk
    batches: Batches
    step: int = 0


class Simulation:
    """`trainers` take turns; the oldest of their `trainers * in_flight` batches is finished at each turn."""

    def __init__(self, manifest: Manifest, trainers: int, average_every: int, loss: float) -> None:
        training = manifest.training
        self.manifest = manifest
        self.average_every = average_every
        self.experts = Crowd(manifest, loss)
        self.model: GPT | Classifier = build_model(manifest, self.experts)
        data = load_data(manifest)
        trunk = TrunkConfig(
            learning_rate=training.learning_rate, warmup_steps=training.warmup_steps, clip_norm=training.clip_norm
        )
        self.trainers = [
            Trainer(Trunk(dict(self.model.named_parameters()), trunk), make_batches(manifest, data, peer=f"trainer {i}"))
            for i in range(trainers)
        ]
        self.flight: deque[tuple[Trainer, Tensor, Tensor]] = deque()
        self.turns = 0

    def turn(self) -> float:
        """Begin one batch, finish the oldest if enough are in flight, average if it is time. The begun batch's loss."""
        trainer = self.trainers[self.turns % len(self.trainers)]
        inputs, targets = trainer.batches.training(trainer.step)
        trainer.step += 1
        vector_P = trainer.trunk.snapshot()
        loss, balance = self._loss(trainer, vector_P, inputs, targets)
        self.flight.append((trainer, vector_P, loss + self.manifest.training.balance_weight * balance))
        if len(self.flight) >= len(self.trainers) * self.manifest.training.batches_in_flight:
            oldest, oldest_P, total = self.flight.popleft()
            oldest.trunk.apply(torch.autograd.grad(total, oldest_P)[0])
        self.turns += 1
        if self.turns % (self.average_every * len(self.trainers)) == 0:
            vectors = [t.trunk.snapshot().detach() for t in self.trainers]
            mean_P = torch.stack(vectors).mean(0)
            for t, v in zip(self.trainers, vectors, strict=True):
                t.trunk.shift(mean_P - v)
        return float(loss.detach())

    def validate(self) -> float:
        first = self.trainers[0]
        vector_P = first.trunk.snapshot().detach()
        with torch.no_grad():
            losses = [float(self._loss(first, vector_P, x, y)[0]) for x, y in first.batches.validation()]
        return sum(losses) / len(losses)

    def _loss(self, trainer: Trainer, vector_P: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, balance = functional_call(self.model, trainer.trunk.views(vector_P), (inputs,))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), balance


def manifest_with(settings: list[str], preset: str = "gpt-crowd") -> Manifest:
    """A preset's manifest with `part.field=value` changed, validated."""
    chosen = PRESETS[preset]
    manifest = Manifest(name="bench", revision=1, title="b", model=chosen.model, data=chosen.data, training=chosen.training)
    tree = msgspec.to_builtins(manifest)
    for setting in settings:
        path, _, value = setting.partition("=")
        part, _, name = path.partition(".")
        tree[part][name] = value if part == "model" and name == "routing" else json.loads(value)
    return decode(msgspec.json.encode(tree))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="PART.FIELD=VALUE", help="change the manifest")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="gpt-crowd")
    parser.add_argument("--every", type=int, default=8_192, help="tokens between validations")
    parser.add_argument("--trainers", type=int, default=3)
    parser.add_argument("--average-every", type=int, default=10, help="batches per trainer between averagings")
    parser.add_argument("--loss", type=float, default=0.0, help="share of calls that fail")
    parser.add_argument("--tokens", type=int, default=120_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    manifest = manifest_with(options.set, options.preset)
    run = Simulation(manifest, options.trainers, options.average_every, options.loss)
    per_batch = run.trainers[0].batches.training(0)[1].numel()
    bytes_per_token = activation_bytes_per_token(manifest.model, manifest.training)
    if not options.json:
        print(" ktokens  batches  cpu s     MB  loss of validation", flush=True)
    cpu_s, since, points = 0.0, 0, []
    while run.turns * per_batch < options.tokens:
        began = time.process_time()
        run.turn()
        cpu_s += time.process_time() - began
        since += per_batch
        if since >= options.every or run.turns * per_batch >= options.tokens:
            since = 0
            tokens = run.turns * per_batch
            megabytes = tokens * bytes_per_token / 1e6
            point = Point(tokens, run.turns, round(cpu_s, 2), round(megabytes, 1), round(run.validate(), 4))
            points.append(point)
            if not options.json:
                print(f"{tokens / 1e3:8.0f} {run.turns:8} {cpu_s:6.1f} {megabytes:6.0f}  {point.loss_validation:.3f}", flush=True)
    rows = run.experts.rows
    least = min(rows.values()) * len(rows) / sum(rows.values())
    if options.json:
        print(json.dumps({"settings": options.set, "points": [asdict(p) for p in points], "least_used_expert": round(least, 3)}))
    else:
        print(f"rows of the least used expert: {least:.2f} of the mean")


if __name__ == "__main__":
    main()
