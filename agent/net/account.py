"""What an agent asks the coordinator for in a person's name: signing in with a code (RFC 8628), and certificates of admission.

The token and the certificates are kept in the state directory, mode 0600, and shown to nobody.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from agent.admission import CERTIFICATE_BYTES_MAX, REQUEST_PURPOSE, AdmissionRequest, Certificate, Rule
from agent.errors import (
    AdmissionRejected,
    CoordinatorError,
    CoordinatorUnreachable,
    LocalError,
    NotAdmitted,
    StorageError,
    UnknownExperiment,
)
from agent.identity import Identity
from agent.net.coordinator import Answer, Coordinator

TOKEN_LENGTH_MAX = 200
INTERVAL_MIN_S, INTERVAL_MAX_S = 1.0, 60.0
SLOW_DOWN_S = 5.0
"""RFC 8628 3.5: what `slow_down` adds to the interval."""

T = TypeVar("T")
_Text = Annotated[str, Meta(max_length=400)]


class DeviceStart(msgspec.Struct, frozen=True):
    """What the coordinator gives a machine that asks to be signed in."""

    device_code: _Text
    user_code: Annotated[str, Meta(max_length=20)]
    verification_uri: _Text
    verification_uri_complete: _Text
    expires_in: Annotated[int, Meta(ge=1, le=3600)]
    interval: Annotated[int, Meta(ge=1, le=60)]


class SignedIn(msgspec.Struct, frozen=True):
    """What the state directory keeps of an account at one coordinator."""

    url: str
    token: Annotated[str, Meta(min_length=1, max_length=TOKEN_LENGTH_MAX)]
    account: Annotated[str, Meta(max_length=100)] = ""


class _Granted(msgspec.Struct, frozen=True):
    token: Annotated[str, Meta(max_length=TOKEN_LENGTH_MAX)]
    account: Annotated[str, Meta(max_length=100)]


class _Error(msgspec.Struct, frozen=True):
    error: Annotated[str, Meta(max_length=60)]


class _Issued(msgspec.Struct, frozen=True):
    certificate: Annotated[bytes, Meta(max_length=2 * CERTIFICATE_BYTES_MAX)]


class Account:
    """A person's account at one coordinator, as one machine uses it."""

    def __init__(self, coordinator: Coordinator, state_dir: Path, *, clock: Callable[[], float] = time.time) -> None:
        place = hashlib.sha256(coordinator.url.encode()).hexdigest()[:12]
        self.path = state_dir / "accounts" / f"{place}.json"
        self.url = coordinator.url
        self._coordinator = coordinator
        self._clock = clock

    # Signing in

    async def start(self, label: str) -> DeviceStart:
        """Ask for a code. Raises CoordinatorUnreachable, CoordinatorError."""
        answer = await self._coordinator.ask("/api/v1/device", {}, msgspec.json.encode({"label": label[:60]}))
        return self._read(answer, DeviceStart)

    async def poll(self, started: DeviceStart) -> SignedIn | str:
        """What became of it: the account, or `authorization_pending`, `slow_down`, `access_denied`, `expired_token`.

        Raises CoordinatorUnreachable, CoordinatorError.
        """
        body = msgspec.json.encode({"device_code": started.device_code})
        answer = await self._coordinator.ask("/api/v1/device/token", {}, body)
        if answer.status == 400:
            try:
                return msgspec.json.decode(answer.body, type=_Error).error
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        granted = self._read(answer, _Granted)
        return SignedIn(url=self.url, token=granted.token, account=granted.account)

    def keep(self, signed_in: SignedIn) -> None:
        """Remember it on disk, mode 0600. Raises StorageError."""
        self._write(self.path, msgspec.json.encode(signed_in))

    def kept(self) -> SignedIn | None:
        """What `keep` remembered. Raises LocalError if the file is not one of ours."""
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=SignedIn)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise LocalError(f"{self.path} cannot be read ({e}). Delete it, and sign in again with hive-agent login.") from None

    def forget(self) -> bool:
        """Forget the account here. False if there was none. The token itself is revoked on the site."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as e:
            raise StorageError(f"cannot delete {self.path}: {e.strerror}.") from e
        return True

    # Certificates

    async def admission(self, identity: Identity, rule: Rule, token: str, label: str, *, path: Path) -> bytes:
        """A certificate that `rule` accepts: the one kept at `path` while more than half of its days are left, or a new one.

        If the coordinator does not answer, the kept one serves until it ends. Raises NotAdmitted if the coordinator says no,
        CoordinatorUnreachable if it does not answer and nothing usable is kept, CoordinatorError, StorageError.
        """
        kept, data = self.usable(identity, rule, path)
        if kept is not None and self._clock() < (kept.issued_at + kept.ends_at) / 2:
            return data
        try:
            data = await self._ask_for_certificate(identity, rule, token, label)
        except CoordinatorUnreachable:
            if kept is None:
                raise
            return data
        self._write(path, data)
        return data

    def usable(self, identity: Identity, rule: Rule, path: Path) -> tuple[Certificate | None, bytes]:
        """The certificate kept at `path` and its bytes, if it holds now; else None and nothing."""
        try:
            data = path.read_bytes()
            return rule.check(identity.peer_id, data, self._clock()), data
        except (OSError, AdmissionRejected):
            return None, b""

    async def _ask_for_certificate(self, identity: Identity, rule: Rule, token: str, label: str) -> bytes:
        request = AdmissionRequest(
            peer=str(identity.peer_id), experiment=rule.experiment, at=int(self._clock()), label=label[:60]
        )
        signature = identity.sign(REQUEST_PURPOSE, request.signed_bytes(token))
        body = msgspec.json.encode(msgspec.structs.replace(request, signature=signature))
        path = f"/api/v1/experiments/{rule.experiment}/admission"
        answer = await self._coordinator.ask(path, {"Authorization": f"Bearer {token}"}, body)
        if answer.status == 404:
            raise UnknownExperiment(f"the coordinator has no experiment {rule.experiment!r}. {answer.detail}".rstrip())
        if answer.status in (401, 403):
            raise NotAdmitted(answer.detail or f"the coordinator at {self.url} refuses this account.")
        data = self._read(answer, _Issued).certificate
        try:
            rule.check(identity.peer_id, data, self._clock())
        except AdmissionRejected as e:
            raise CoordinatorError(f"the coordinator at {self.url} issued a certificate of no use: {e}") from None
        return data

    def _read(self, answer: Answer, kind: type[T]) -> T:
        if answer.status == 429:
            raise CoordinatorError(f"the coordinator at {self.url} is asked too often. Wait a minute, and try again.")
        try:
            if answer.status in (200, 201):
                return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        raise CoordinatorError(
            f"the coordinator at {self.url} does not understand this agent, or the other way round "
            f"(HTTP status {answer.status}). {answer.detail}".rstrip()
        )

    def _write(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError as e:
            raise StorageError(f"cannot write {path}: {e.strerror}. Free some space, or choose another --state-dir.") from e
