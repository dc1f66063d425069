"""The shape of a sans-IO core.

A machine never does I/O, never reads a clock and never makes its own randomness: `now` (seconds on a monotonic
clock) and `random.Random` come in, effects go out. Its host performs the effects and reports what came of them as
further events. The same machine runs under asyncio in production and under a virtual clock in the simulator.
The design follows dask.distributed's worker state machine and aioquic's connection (docs/decisions/0001).
"""

from __future__ import annotations

from typing import Protocol, TypeVar, runtime_checkable

Event = TypeVar("Event", contravariant=True)
Effect = TypeVar("Effect")


@runtime_checkable
class Machine(Protocol[Event, Effect]):
    """One state machine. Every change of state goes through `handle` or `tick`."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at time `now` and return the effects, in the order in which they are to be performed."""
        ...

    def tick(self, now: float) -> list[Effect]:
        """Do what is due by `now`. Calling it early is harmless."""
        ...

    def next_deadline(self) -> float | None:
        """Return when `tick` wants to be called next, or None if nothing is pending."""
        ...
