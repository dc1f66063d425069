"""`hive-agent join`: take part in an experiment until stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent import __version__
from agent.admission import Rule
from agent.cli import logs, screen, status
from agent.cli.attend import Attendance, Member
from agent.cli.options import add_settings, settle
from agent.cli.running import PidFile
from agent.cli.screen import Screen
from agent.config import AgentConfig
from agent.errors import CoordinatorError, LocalError
from agent.identity import Identity, KeyFile, PeerId

if TYPE_CHECKING:
    from agent.credentials import Credentials
    from agent.net.coordinator import Coordinator, FetchedManifest

log = logging.getLogger(__name__)

EXAMPLE = "hive-agent join gpt-crowd --coordinator https://hive.example.org"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Take part in an experiment: find its peers, host some of its experts, and train. The first Ctrl-C leaves in good order, "
        "the second stops at once."
    )
    add_settings(parser)
    parser.add_argument("--no-panel", action="store_true", help="plain lines on a terminal too")


def run(args: argparse.Namespace) -> int:
    config = settle(args)
    # Before torch is loaded: OpenMP reads it once.
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    with PidFile(config.experiment_dir):
        shown = screen.choose(f"hive-agent {__version__} · {config.experiment}", panel=config.panel)
        logs.start(config.experiment_dir, config.log_format, shown.handler)
        key_file = KeyFile(config.key_file)
        try:
            identity = key_file.open()
            for name in ("coordinator", "state_dir", "threads"):
                log.info("%s", config.described(name))
            log.info("peer id %s", identity.peer_id)
            with shown, asyncio.Runner(loop_factory=loop_factory(config)) as runner:
                return runner.run(take_part(config, identity, shown))
        finally:
            key_file.close()


def loop_factory(config: AgentConfig) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where it is installed, for stock channels. Fast ones read sockets in batches, which asyncio's loop lets them do."""
    if config.channel == "fast":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def take_part(config: AgentConfig, identity: Identity, shown: Screen) -> int:
    """Get the manifest, put the peer together, and attend it to its end. Returns the exit code; raises HiveError."""
    member = await compose(config, identity)
    # A full collection goes through 200,000 objects of the libraries, 80 ms in which no packet is read: leave those out.
    gc.collect()
    gc.freeze()
    return await Attendance(member, shown).run(config.for_s)


async def compose(config: AgentConfig, identity: Identity) -> Member:
    """The peer of this configuration, not yet running. Raises HiveError."""
    from agent.net.coordinator import Coordinator, CoordinatorConfig

    coordinator = Coordinator(CoordinatorConfig(url=config.coordinator, state_dir=config.state_dir))
    fetched = await coordinator.manifest(config.experiment, pinned_key=config.coordinator_key)
    manifest = fetched.manifest
    log.info("%s, revision %d, signed by %s…", manifest.title, manifest.revision, fetched.key[:8])
    if manifest.status == "finished":
        raise LocalError(f"the experiment {manifest.name} has finished: there is nothing left to train")
    credentials = await admitted(config, identity, coordinator, fetched)
    if not fetched.cached:
        # Loading torch may take ten seconds: should the coordinator die meanwhile, we know whom to ask.
        with contextlib.suppress(CoordinatorError):
            await coordinator.bootstrap(manifest.name)

    import torch

    from agent.connecting import Membership
    from agent.experts.capacity import measure
    from agent.peer import Peer

    torch.set_num_threads(config.threads)
    who = Membership(config=config, identity=identity, manifest=manifest, coordinator=coordinator, credentials=credentials)
    return Peer(who, experts_max=measure(manifest, config), first_step=last_step(config))


async def admitted(
    config: AgentConfig, identity: Identity, coordinator: Coordinator, fetched: FetchedManifest, *, visiting: bool = False
) -> Credentials:
    """What this agent shows. A visitor has a certificate of its own, and none where none is needed.

    Raises NotAdmitted before anything costly is loaded, CoordinatorUnreachable.
    """
    from agent.credentials import Credentials
    from agent.net.account import Account

    account = Account(coordinator, config.state_dir)
    kept = account.kept() if not config.token else None
    manifest = fetched.manifest
    token = config.token or (kept.token if kept else "")
    if visiting and manifest.admission == "open":
        token = ""  # it would make this visit's key one of the account's machines
    rule = Rule(experiment=manifest.name, policy=manifest.admission, key=PeerId.parse(fetched.key))
    path = config.experiment_dir / ("admission-visitor" if visiting else "admission")
    credentials = Credentials(account, rule, identity, token=token, path=path)
    await credentials.obtain(socket.gethostname())
    log.info("taking part %s", "with a certificate of admission" if credentials.certificate else "anonymously")
    return credentials


def last_step(config: AgentConfig) -> int:
    """Where this agent's shard of the data was when it last ran, from its status file; 0 if it never did."""
    try:
        kept = status.read(config.experiment_dir)
    except LocalError as e:
        log.warning("the data begins anew: %s", e)
        return 0
    return kept.report.step if kept else 0
