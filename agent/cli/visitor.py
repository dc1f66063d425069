"""What the verbs that use a crowd's model share: they come as visitors (agent/visiting.py), and leave."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.cli.join import admitted, loop_factory
from agent.cli.options import add_settings, settle
from agent.config import AgentConfig
from agent.errors import StorageError
from agent.identity import Identity, KeyFile
from agent.manifest import Manifest

if TYPE_CHECKING:
    from agent.visiting import Visit

SETTINGS = ("experiment", "coordinator", "coordinator_key", "bootstrap", "state_dir", "threads", "channel")
EXIT_INTERRUPTED = 130

Errand = Callable[["Visit"], Awaitable[None]]
Prepare = Callable[[AgentConfig, Manifest], Errand]
"""Makes the errand, before anybody is connected to. Raises HiveError if this experiment is not one for it."""


def arguments(parser: argparse.ArgumentParser, *more: str) -> None:
    """Flags for the settings of a visitor, `more` named ones among them."""
    add_settings(parser, (*SETTINGS, *more))


def run(args: argparse.Namespace, prepare: Prepare) -> int:
    """Visit the experiment, and do there what `prepare` gives. Returns the exit code; raises HiveError."""
    config = replace(settle(args), listen=None)
    os.environ["OMP_NUM_THREADS"] = str(config.threads)  # before torch is loaded: OpenMP reads it once
    try:
        config.experiment_dir.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise StorageError(f"cannot write to {config.experiment_dir}: {e.strerror}. Choose another --state-dir.") from e
    with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
        try:
            runner.run(_go(config, prepare))
        except asyncio.CancelledError:
            return EXIT_INTERRUPTED
    return 0


def say(text: str) -> None:
    """What happens now, for the person who waits; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


async def _go(config: AgentConfig, prepare: Prepare) -> None:
    from agent.net.coordinator import Coordinator, CoordinatorConfig

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    coordinator = Coordinator(CoordinatorConfig(url=config.coordinator, state_dir=config.state_dir))
    fetched = await coordinator.manifest(config.experiment, pinned_key=config.coordinator_key)
    errand = prepare(config, fetched.manifest)
    with _identity(config, fetched.manifest) as identity:
        credentials = await admitted(config, identity, coordinator, fetched, visiting=True)

        import torch

        from agent.connecting import Membership
        from agent.visiting import visit

        torch.set_num_threads(config.threads)
        who = Membership(
            config=config, identity=identity, manifest=fetched.manifest, coordinator=coordinator, credentials=credentials
        )
        async with visit(who, say) as there:
            await errand(there)


@contextlib.contextmanager
def _identity(config: AgentConfig, manifest: Manifest) -> Iterator[Identity]:
    """Not the agent's own, which may run beside: one for this visit, or a kept one where a certificate has to name it."""
    if manifest.admission == "open":
        yield Identity.generate()
        return
    key_file = KeyFile(config.state_dir / "visitor.key")
    try:
        yield key_file.open()
    finally:
        key_file.close()
