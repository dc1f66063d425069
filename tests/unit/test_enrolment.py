from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.config import AgentConfig, load
from agent.enrolment import obtain
from agent.errors import CoordinatorUnreachable, ManifestRejected, StorageError, UnknownExperiment
from agent.identity import Identity
from agent.manifest import Manifest, SignedManifest, sign

COORDINATOR, STRANGER = Identity.from_seed(b"\1" * 32), Identity.from_seed(b"\2" * 32)


def manifest(revision: int = 1, name: str = "gpt-crowd") -> Manifest:
    return Manifest(name=name, revision=revision, title="GPT crowd")


class Site:
    """The coordinator: serves what it is told to, or fails."""

    def __init__(self) -> None:
        self.serves: SignedManifest | Exception = sign(manifest(), COORDINATOR)

    async def __call__(self) -> SignedManifest:
        if isinstance(self.serves, Exception):
            raise self.serves
        return self.serves


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    made = load({"experiment": "gpt-crowd", "state_dir": str(tmp_path), "config": "/dev/null"}, {})
    made.experiment_dir.mkdir()
    return made


@pytest.fixture
def site() -> Site:
    return Site()


AWAY = CoordinatorUnreachable("the coordinator http://127.0.0.1:8000 (default) does not answer")


async def test_a_kept_manifest_stands_in_for_a_dead_coordinator(config: AgentConfig, site: Site) -> None:
    assert await obtain(config, site) == manifest()
    site.serves = AWAY
    assert await obtain(config, site) == manifest()


async def test_nothing_kept_and_nobody_there(config: AgentConfig, site: Site) -> None:
    site.serves = AWAY
    with pytest.raises(CoordinatorUnreachable, match="does not answer, and no manifest of gpt-crowd is cached"):
        await obtain(config, site)


async def test_unknown_experiment_is_final(config: AgentConfig, site: Site) -> None:
    await obtain(config, site)
    site.serves = UnknownExperiment("no such experiment")
    with pytest.raises(UnknownExperiment):
        await obtain(config, site)


async def test_the_first_key_is_pinned(config: AgentConfig, site: Site) -> None:
    await obtain(config, site)
    site.serves = sign(manifest(2), STRANGER)
    with pytest.raises(ManifestRejected, match=f"pass --coordinator-key {STRANGER.peer_id}"):
        await obtain(config, site)
    changed = dataclasses.replace(config, coordinator_key=str(STRANGER.peer_id))
    assert (await obtain(changed, site)).revision == 2
    assert (await obtain(config, site)).revision == 2, "the new key is now the kept one"


async def test_a_given_key_is_the_only_one(config: AgentConfig, site: Site) -> None:
    pinned = dataclasses.replace(config, coordinator_key=str(STRANGER.peer_id))
    with pytest.raises(ManifestRejected):
        await obtain(pinned, site)
    assert not (config.experiment_dir / "manifest.json").exists()


async def test_revisions_never_go_back(config: AgentConfig, site: Site) -> None:
    site.serves = sign(manifest(3), COORDINATOR)
    await obtain(config, site)
    site.serves = sign(manifest(2), COORDINATOR)
    with pytest.raises(ManifestRejected, match="older"):
        await obtain(config, site)
    site.serves = sign(manifest(4), COORDINATOR)
    assert (await obtain(config, site)).revision == 4


async def test_tampering_is_seen(config: AgentConfig, site: Site) -> None:
    signed = sign(manifest(), COORDINATOR)
    site.serves = SignedManifest(payload=signed.payload.replace(b"GPT", b"XXX"), signature=signed.signature, key=signed.key)
    with pytest.raises(ManifestRejected, match="altered"):
        await obtain(config, site)
    site.serves = sign(manifest(name="other"), COORDINATOR)
    with pytest.raises(ManifestRejected, match="other"):
        await obtain(config, site)


async def test_a_tampered_cache_is_not_used(config: AgentConfig, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    await obtain(config, site)
    (config.experiment_dir / "manifest.json").write_bytes(b"{}")
    site.serves = AWAY
    with pytest.raises(CoordinatorUnreachable):
        await obtain(config, site)
    assert "is not used" in caplog.text


async def test_a_cache_that_cannot_be_written(config: AgentConfig, site: Site) -> None:
    config.experiment_dir.rmdir()
    with pytest.raises(StorageError, match="cannot write"):
        await obtain(config, site)
