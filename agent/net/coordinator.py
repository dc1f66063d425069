"""What an agent asks the coordinator for over HTTP: the manifest and the addresses of bootstrap peers.

Both are kept in the state directory, so that an agent that knew the experiment once can join again with the coordinator
gone. The coordinator's signing key is pinned the first time that it is seen (trust on first use).
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from agent import __version__
from agent.errors import ConfigError, CoordinatorError, CoordinatorUnreachable, ManifestRejected, StorageError, UnknownExperiment
from agent.manifest import MANIFEST_BYTES_MAX, Manifest, SignedManifest, decode_signed
from agent.net.bootstrap import is_local, parse_address
from agent.net.coordinator_socket import websocket_url

logger = logging.getLogger(__name__)

RESPONSE_BYTES_MAX = 2 * MANIFEST_BYTES_MAX
ADDRESSES_MAX = 256
_NAME = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, kw_only=True)
class CoordinatorConfig:
    """Where the coordinator is, and how long it may take."""

    url: str
    """`http://…` or `https://…`, without a path unless the site lives below one."""
    state_dir: Path
    """Where answers are kept."""
    timeout_s: float = 10.0
    """For each answer as a whole."""

    def __post_init__(self) -> None:
        websocket_url(self.url, "/")
        if self.timeout_s <= 0:
            raise ConfigError("the coordinator's timeout must be positive")


@dataclass(frozen=True, kw_only=True)
class FetchedManifest:
    """A verified manifest, and where it came from."""

    manifest: Manifest
    key: str
    """The coordinator's key that signed it."""
    cached: bool
    """True if the coordinator did not answer, and this is what it said before."""
    why: str = ""
    """Why the coordinator did not answer."""


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the state directory holds of one experiment of one coordinator."""

    url: str
    key: str
    revision: int
    manifest: SignedManifest
    etag: str = ""
    bootstrap: Annotated[tuple[str, ...], Meta(max_length=ADDRESSES_MAX)] = ()


class _Addresses(msgspec.Struct, frozen=True):
    addresses: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(max_length=ADDRESSES_MAX)]


@dataclass(frozen=True)
class Answer:
    """What the coordinator answered."""

    status: int
    body: bytes
    etag: str = ""

    @property
    def detail(self) -> str:
        """The API's own words for an error, if it has any."""
        try:
            detail = json.loads(self.body).get("detail")
        except (ValueError, AttributeError):
            return ""
        return str(detail)[:300] if isinstance(detail, str) else ""


class Coordinator:
    """Fetches, verifies and remembers. One per coordinator."""

    def __init__(self, config: CoordinatorConfig) -> None:
        self.url = config.url.rstrip("/")
        self.bytes_total = 0
        """Both ways, headers included (as far as they can be seen here)."""
        self._directory = config.state_dir / "experiments"
        self._timeout_s = config.timeout_s

    async def manifest(self, name: str, *, pinned_key: str | None = None) -> FetchedManifest:
        """The newest manifest of an experiment: the coordinator's, or else the one it gave before.

        `pinned_key` is the key that the user trusts (`--coordinator-key`); without it, it is the one seen first.
        Raises UnknownExperiment, ManifestRejected, CoordinatorUnreachable (and nothing is cached), StorageError, ConfigError.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:80]!r} is not the name of an experiment (letters a-z, digits and hyphens)")
        kept = self._load(name)
        trusted = pinned_key or (kept.key if kept else None)
        try:
            answer = await self._get(f"/api/v1/experiments/{name}/manifest", kept.etag if kept else "")
        except CoordinatorUnreachable as e:
            if kept is None:
                raise CoordinatorUnreachable(
                    f"{e} No manifest of {name!r} is cached here either. Check --coordinator, or try again later."
                ) from None
            logger.warning("%s Going on with the manifest that it gave before (revision %d).", e, kept.revision)
            return self._opened(kept.manifest, name, trusted, 1, cached=True, why=str(e))
        if answer.status == 404:
            raise self._unknown(name)
        if answer.status == 304 and kept is not None:
            return self._opened(kept.manifest, name, trusted, 1)
        signed = decode_signed(answer.body)
        if kept is not None and pinned_key not in (None, kept.key):
            kept = None  # the user trusts another key now
        fetched = self._opened(signed, name, trusted, kept.revision if kept else 1)
        self._save(
            name,
            _Kept(
                url=self.url,
                key=signed.key,
                revision=fetched.manifest.revision,
                manifest=signed,
                etag=answer.etag,
                bootstrap=kept.bootstrap if kept else (),
            ),
        )
        return fetched

    async def bootstrap(self, name: str) -> list[str]:
        """Addresses of bootstrap peers, `ws://host:port/PEERID`: the coordinator's list, or else the one it gave before.

        Raises UnknownExperiment, CoordinatorUnreachable (and nothing is cached), CoordinatorError.
        """
        kept = self._load(name)
        try:
            answer = await self._get(f"/api/v1/experiments/{name}/bootstrap", "")
        except CoordinatorUnreachable:
            if kept is None or not kept.bootstrap:
                raise
            return list(kept.bootstrap)
        if answer.status == 404:
            raise self._unknown(name)
        try:
            listed = msgspec.json.decode(answer.body, type=_Addresses).addresses
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise CoordinatorError(f"the coordinator at {self.url} sent a list of peers that cannot be read: {e}") from None
        addresses = tuple(a for a in listed if _is_address(a))
        if kept is not None and addresses and addresses != kept.bootstrap:
            self._save(name, msgspec.structs.replace(kept, bootstrap=addresses))
        return list(addresses)

    def _unknown(self, name: str) -> UnknownExperiment:
        return UnknownExperiment(
            f"the coordinator at {self.url} has no experiment {name!r}. Those that it has are listed at {self.url}/"
        )

    def _opened(
        self, signed: SignedManifest, name: str, trusted: str | None, revision_min: int, *, cached: bool = False, why: str = ""
    ) -> FetchedManifest:
        manifest = signed.open(pinned_key=trusted, name=name, revision_min=revision_min)
        return FetchedManifest(manifest=manifest, key=signed.key, cached=cached, why=why)

    # The state directory

    def _path(self, name: str) -> Path:
        place = hashlib.sha256(self.url.encode()).hexdigest()[:12]
        return self._directory / f"{name}-{place}.json"

    def _load(self, name: str) -> _Kept | None:
        path = self._path(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise ManifestRejected(
                f"{path}, which remembers the coordinator's key, cannot be read ({e}). Delete it to trust the coordinator anew."
            ) from None
        except OSError as e:
            raise StorageError(f"cannot read {path}: {e.strerror}.") from e

    def _save(self, name: str, kept: _Kept) -> None:
        path = self._path(name)
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(kept))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as e:
            raise StorageError(f"cannot write {path}: {e.strerror}. Free some space there, or choose another --state-dir.") from e

    # HTTP

    async def _get(self, path: str, etag: str) -> Answer:
        """Raises CoordinatorUnreachable for no answer, and for answers that are neither 200, 304 nor 404."""
        answer = await self.ask(path, {"If-None-Match": etag} if etag else {})
        if answer.status not in (200, 304, 404):
            raise CoordinatorUnreachable(f"the coordinator at {self.url} answers with HTTP status {answer.status}.")
        if answer.status == 304 and not etag:
            raise CoordinatorUnreachable(f"the coordinator at {self.url} answers what was not asked (HTTP status 304).")
        return answer

    async def ask(self, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """GET, or with a `body` (JSON) POST, below the coordinator's address. Raises CoordinatorUnreachable for no answer."""
        return await asyncio.to_thread(self._ask_blocking, self.url + path, dict(headers), body)

    def _ask_blocking(self, url: str, extra: dict[str, str], body: bytes | None) -> Answer:
        headers = {"Accept": "application/json", "User-Agent": f"hive-agent/{__version__}", **extra}
        if body is not None:
            headers["Content-Type"] = "application/json"
        opener = urllib.request.build_opener(
            *([urllib.request.ProxyHandler({})] if is_local(urlsplit(url).hostname or "") else []), _NoRedirect()
        )
        self.bytes_total += len(url) + len(body or b"") + sum(len(k) + len(v) + 4 for k, v in headers.items())
        deadline = time.monotonic() + self._timeout_s
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with opener.open(request, timeout=self._timeout_s) as response:
                return self._read(response.status, response, deadline)
        except urllib.error.HTTPError as e:
            with e:
                return self._read(e.code, e, deadline)
        except http.client.HTTPException as e:
            raise CoordinatorUnreachable(f"what answers at {self.url} does not speak HTTP ({type(e).__name__}).") from None
        except (OSError, ValueError) as e:  # URLError is an OSError
            raise CoordinatorUnreachable(f"the coordinator at {self.url} does not answer: {_why(e)}.") from None

    def _read(self, status: int, response: Any, deadline: float) -> Answer:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(65_536):
            parts.append(part)
            size += len(part)
            if size > RESPONSE_BYTES_MAX:
                raise ManifestRejected(f"the coordinator at {self.url} answers with more than {RESPONSE_BYTES_MAX} bytes")
            if time.monotonic() > deadline:
                raise CoordinatorUnreachable(f"the coordinator at {self.url} takes more than {self._timeout_s:g} s to answer.")
        headers = response.headers
        self.bytes_total += size + sum(len(k) + len(v) + 4 for k, v in headers.items())
        return Answer(status, b"".join(parts), str(headers.get("ETag") or "")[:200])


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token sent to one site must not follow a redirect to another: what redirects is an error to report."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.get_header("Authorization") is not None or req.data is not None:
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ConfigError:
        return False
    return True


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason)[:200] or type(reason).__name__
