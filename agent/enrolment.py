"""Getting an experiment's manifest: from the coordinator, or, when that is away, the copy that was kept.

The first manifest pins the coordinator's key (unless --coordinator-key did); after that, only manifests with that key and
no older revision are accepted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agent.config import AgentConfig
from agent.errors import CoordinatorUnreachable, ManifestRejected, StorageError
from agent.manifest import Manifest, SignedManifest, decode_signed

log = logging.getLogger(__name__)

Fetch = Callable[[], Awaitable[SignedManifest]]
"""Asks the coordinator. Raises CoordinatorUnreachable, UnknownExperiment, ManifestRejected."""


class ManifestCache:
    """The last accepted manifest, in one file. A file that is not one is as good as none, and said."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, *, pinned_key: str | None, name: str) -> tuple[SignedManifest, Manifest] | None:
        """What was kept, verified again; None if there is nothing, or nothing that `pinned_key` signed."""
        try:
            signed = decode_signed(self._path.read_bytes())
            return signed, signed.open(pinned_key=pinned_key, name=name)
        except FileNotFoundError:
            return None
        except (OSError, ManifestRejected) as e:
            log.warning("the cached manifest %s is not used: %s", self._path, e)
            return None

    def store(self, signed: SignedManifest) -> None:
        """Keep it, replacing the older one atomically. Raises StorageError."""
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_bytes(msgspec.json.encode(signed))
            temporary.replace(self._path)
        except OSError as e:
            raise StorageError(f"cannot write {self._path}: {e.strerror}. Free some space, or choose another --state-dir.") from e


async def obtain(config: AgentConfig, fetch: Fetch) -> Manifest:
    """The manifest to join by.

    Raises CoordinatorUnreachable if the coordinator is away and nothing is cached, UnknownExperiment if it has no such
    experiment, ManifestRejected if what it serves is not acceptable, StorageError if it cannot be kept.
    """
    cache = ManifestCache(config.experiment_dir / "manifest.json")
    kept = cache.load(pinned_key=config.coordinator_key, name=config.experiment)
    try:
        signed = await fetch()
    except CoordinatorUnreachable as e:
        if kept is None:
            raise CoordinatorUnreachable(
                f"{e}, and no manifest of {config.experiment} is cached in {config.experiment_dir}. "
                "Check --coordinator and the network, or try again when it is up."
            ) from e
        log.warning("%s; going on with the cached manifest, revision %d", e, kept[1].revision)
        return kept[1]
    pinned = config.coordinator_key or (kept[0].key if kept else None)
    manifest = signed.open(pinned_key=pinned, name=config.experiment, revision_min=kept[1].revision if kept else 1)
    if kept is None and config.coordinator_key is None:
        log.info("trusting the coordinator's key %s from now on", signed.key)
    if kept is None or signed != kept[0]:
        cache.store(signed)
    return manifest
