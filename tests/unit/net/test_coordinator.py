from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from agent import manifest as manifests
from agent.errors import ConfigError, CoordinatorError, CoordinatorUnreachable, ManifestRejected, StorageError, UnknownExperiment
from agent.manifest import Manifest
from agent.net.coordinator import RESPONSE_BYTES_MAX, Coordinator, CoordinatorConfig
from tests.unit.net.peers import ALICE, BOB, CHARLIE

COORDINATOR, STRANGER = ALICE, CHARLIE
ADDRESS = f"ws://192.0.2.1:7000/{BOB.peer_id}"


class Site:
    """A web server that gives out what it is told to."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.raw: bytes | None = None
        self.etags: list[str] = []
        self.server: asyncio.Server | None = None
        self.url = ""

    def publish(self, manifest: Manifest, signer=COORDINATOR) -> None:  # type: ignore[no-untyped-def]
        self.pages[f"/api/v1/experiments/{manifest.name}/manifest"] = 200, msgspec.json.encode(manifests.sign(manifest, signer))

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        asked = [line[15:].strip() for line in head.split("\r\n") if line.lower().startswith("if-none-match:")]
        status, body = self.pages.get(path, (404, b'{"detail": "There is no experiment of that name here."}'))
        etag = f'"{hash(body):x}"'
        if asked:
            self.etags.append(asked[0])
        if asked == [etag]:
            status, body = 304, b""
        answer = (
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nETag: {etag}\r\nConnection: close\r\n\r\n".encode() + body
        )
        writer.write(self.raw if self.raw is not None else answer)
        try:
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.start()
    yield site
    await site.stop()


@pytest.fixture
def coordinator(site: Site, tmp_path: Path) -> Coordinator:
    return Coordinator(CoordinatorConfig(url=site.url, state_dir=tmp_path, timeout_s=2))


def crowd(revision: int = 1, **changes: object) -> Manifest:
    return Manifest(name="gpt-crowd", revision=revision, title="GPT", **changes)  # type: ignore[arg-type]


async def test_a_manifest_is_fetched_verified_and_counted(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd())
    got = await coordinator.manifest("gpt-crowd")
    assert got.manifest == crowd() and got.key == str(COORDINATOR.peer_id) and not got.cached
    assert coordinator.bytes_total > 500


async def test_it_is_not_sent_twice(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd())
    await coordinator.manifest("gpt-crowd")
    first = coordinator.bytes_total
    assert (await coordinator.manifest("gpt-crowd")).manifest == crowd()
    assert len(site.etags) == 1 and coordinator.bytes_total - first < 500


async def test_with_the_coordinator_gone_the_cached_one_does(site: Site, coordinator: Coordinator, tmp_path: Path) -> None:
    site.publish(crowd(revision=3))
    await coordinator.manifest("gpt-crowd")
    await site.stop()
    got = await Coordinator(CoordinatorConfig(url=site.url, state_dir=tmp_path)).manifest("gpt-crowd")
    assert got.cached and got.manifest.revision == 3 and "Connection refused" in got.why


async def test_with_nothing_cached_its_absence_is_an_error_that_helps(coordinator: Coordinator, site: Site) -> None:
    await site.stop()
    with pytest.raises(CoordinatorUnreachable, match=r"127\.0\.0\.1:\d+ does not answer: Connection refused.*--coordinator"):
        await coordinator.manifest("gpt-crowd")
    with pytest.raises(CoordinatorUnreachable):
        await coordinator.bootstrap("gpt-crowd")


async def test_an_unknown_experiment_is_named(coordinator: Coordinator) -> None:
    with pytest.raises(UnknownExperiment, match=r"no experiment 'gpt-crowd'\. Those that it has are listed at http"):
        await coordinator.manifest("gpt-crowd")
    with pytest.raises(UnknownExperiment):
        await coordinator.bootstrap("gpt-crowd")
    with pytest.raises(ConfigError, match="not the name"):
        await coordinator.manifest("../../etc/passwd")


async def test_the_key_that_was_seen_first_is_trusted_from_then_on(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd())
    await coordinator.manifest("gpt-crowd")
    site.publish(crowd(revision=2), STRANGER)
    with pytest.raises(ManifestRejected, match="--coordinator-key"):
        await coordinator.manifest("gpt-crowd")
    got = await coordinator.manifest("gpt-crowd", pinned_key=str(STRANGER.peer_id))
    assert got.manifest.revision == 2
    assert (await coordinator.manifest("gpt-crowd")).key == str(STRANGER.peer_id)


async def test_a_key_that_the_user_names_is_the_only_one(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd(), STRANGER)
    with pytest.raises(ManifestRejected):
        await coordinator.manifest("gpt-crowd", pinned_key=str(COORDINATOR.peer_id))


async def test_an_older_revision_is_a_replay(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd(revision=5))
    await coordinator.manifest("gpt-crowd")
    site.publish(crowd(revision=4))
    with pytest.raises(ManifestRejected, match="older"):
        await coordinator.manifest("gpt-crowd")


async def test_tampering_is_found_and_does_not_fall_back_to_the_cache(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd())
    await coordinator.manifest("gpt-crowd")
    path = "/api/v1/experiments/gpt-crowd/manifest"
    signed = json.loads(site.pages[path][1])
    signed["signature"] = "A" * 86 + "=="
    site.pages[path] = 200, json.dumps(signed).encode()
    with pytest.raises(ManifestRejected, match="altered"):
        await coordinator.manifest("gpt-crowd")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b'{"payload":1}', b"<html>", b"[" * 5000])
async def test_what_is_no_manifest(site: Site, coordinator: Coordinator, body: bytes) -> None:
    site.pages["/api/v1/experiments/gpt-crowd/manifest"] = 200, body
    with pytest.raises(ManifestRejected):
        await coordinator.manifest("gpt-crowd")


async def test_an_answer_without_end_is_cut_off(site: Site, coordinator: Coordinator) -> None:
    site.pages["/api/v1/experiments/gpt-crowd/manifest"] = 200, b"x" * (RESPONSE_BYTES_MAX + 1)
    with pytest.raises(ManifestRejected, match="more than"):
        await coordinator.manifest("gpt-crowd")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "does not speak HTTP"),
        (b"", "does"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "HTTP status 500"),
    ],
)
async def test_what_is_no_coordinator(site: Site, coordinator: Coordinator, raw: bytes, words: str) -> None:
    site.raw = raw
    with pytest.raises(CoordinatorUnreachable, match=words):
        await coordinator.manifest("gpt-crowd")


async def test_bootstrap_addresses_are_listed_checked_and_kept(site: Site, coordinator: Coordinator) -> None:
    site.publish(crowd())
    await coordinator.manifest("gpt-crowd")
    page = "/api/v1/experiments/gpt-crowd/bootstrap"
    site.pages[page] = 200, json.dumps({"addresses": [ADDRESS, "http://evil/", "ws://h:1/x"]}).encode()
    assert await coordinator.bootstrap("gpt-crowd") == [ADDRESS]
    site.pages[page] = 200, b"[]"
    with pytest.raises(CoordinatorError, match="cannot be read"):
        await coordinator.bootstrap("gpt-crowd")
    await site.stop()
    assert await coordinator.bootstrap("gpt-crowd") == [ADDRESS]


async def test_a_state_directory_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    site.publish(crowd())
    with pytest.raises(StorageError, match=r"--state-dir|cannot read"):
        await Coordinator(CoordinatorConfig(url=site.url, state_dir=blocker)).manifest("gpt-crowd")


async def test_a_damaged_cache_is_not_guessed_at(site: Site, coordinator: Coordinator, tmp_path: Path) -> None:
    site.publish(crowd())
    await coordinator.manifest("gpt-crowd")
    (kept,) = (tmp_path / "experiments").glob("*.json")
    kept.write_bytes(b"{")
    with pytest.raises(ManifestRejected, match="Delete it"):
        await coordinator.manifest("gpt-crowd")


@pytest.mark.parametrize("url", ["", "ftp://x", "http://", "http://h:99999", "localhost:8000", "http://h/?q"])
def test_what_is_no_address_of_a_coordinator(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the address of a coordinator"):
        CoordinatorConfig(url=url, state_dir=tmp_path)


async def test_a_coordinator_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(CoordinatorUnreachable, match="timed out"):
            await Coordinator(CoordinatorConfig(url=url, state_dir=tmp_path, timeout_s=0.1)).manifest("gpt-crowd")
