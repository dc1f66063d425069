"""Samples of what the model writes, so that people see it learn.

A trainer continues a piece of held-out text after it has validated, on the same thread and with remote experts. In each slot
of time one of the agents that know each other is chosen, by rendezvous hashing, so that a crowd writes as often as one agent.
Nobody coordinates that: two agents that do not know each other may both write.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor

from agent.identity import PeerId
from agent.models.gpt import generate
from agent.scoring import Model

PROMPT_BYTES_MAX = 32
TEXT_CHARS_MAX = 200


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How often and how much is written."""

    period_s: float = 180.0
    """Length of a slot: about one sample in each, by whoever is chosen."""
    tokens: int = 120
    time_max_s: float = 15.0
    """Writing ends then, however far it has come: each byte is a round of calls to remote experts."""

    def __post_init__(self) -> None:
        if min(self.period_s, self.tokens, self.time_max_s) <= 0:
            raise ValueError("period_s, tokens and time_max_s are positive")


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt from held-out text, and how the model went on."""

    prompt: str
    text: str


def chosen(slot: int, own: PeerId, others: Collection[PeerId]) -> bool:
    """Whether `own` writes in this slot: its hash is the highest among those it knows."""
    return max({own, *others}, key=lambda peer: hashlib.sha256(f"hive/1/sample\n{slot}\n{peer}".encode()).digest()) == own


class Sampler:
    """Writes when it is this agent's turn; at most once in a slot. Called by one thread at a time."""

    def __init__(
        self,
        own: PeerId,
        others: Callable[[], Collection[PeerId]],
        prompts_BT: Tensor,
        *,
        tell: Callable[[Sample], None],
        config: SampleConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`prompts_BT`: held-out text, int64. `tell` is called on the thread that writes."""
        self._own = own
        self._others = others
        self._prompts_BT = prompts_BT
        self._tell = tell
        self._config = config or SampleConfig()
        self._clock = clock
        self._done = -1

    def maybe(self, model: Model, keep_going: Callable[[], bool]) -> None:
        """Write if it is our turn, while `keep_going()`."""
        slot = int(self._clock() // self._config.period_s)
        if slot <= self._done or not chosen(slot, self._own, self._others()):
            return
        self._done = slot
        self._tell(self._write(model, slot, keep_going))

    def _write(self, model: Model, slot: int, keep_going: Callable[[], bool]) -> Sample:
        row_T = self._prompts_BT[slot % len(self._prompts_BT)]
        sequence = len(row_T)
        prompt = bytes(int(b) & 255 for b in row_T[: min(PROMPT_BYTES_MAX, sequence // 2)])
        until = self._clock() + self._config.time_max_s
        written = bytearray()
        for token in generate(model, prompt, tokens=self._config.tokens, sequence=sequence, seed=slot):
            written.append(token & 255)
            if self._clock() > until or not keep_going():
                break
        return Sample(readable(prompt), readable(bytes(written)))


def readable(text: bytes) -> str:
    """As text that can be shown anywhere: what is not UTF-8 or not printable becomes U+FFFD."""
    return printable(text.decode(errors="replace").replace("\r\n", "\n"))[:TEXT_CHARS_MAX]


def printable(text: str) -> str:
    """With U+FFFD for what is not printable: what a model wrote must not steer a terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
