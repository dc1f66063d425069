"""What an agent asks the coordinator for in a person's name, against a web server that says what it is told to."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.admission import DAY_S, REQUEST_PURPOSE, AdmissionRequest, Certificate, Rule, issue
from agent.errors import CoordinatorError, CoordinatorUnreachable, LocalError, NotAdmitted, StorageError, UnknownExperiment
from agent.identity import Identity
from agent.net.account import Account, DeviceStart, SignedIn
from agent.net.coordinator import Coordinator, CoordinatorConfig
from tests.unit.net.peers import ALICE, BOB, CHARLIE

NOW = 1_800_000_000.0
RULE = Rule(experiment="bees", policy="approval", key=ALICE.peer_id)
STARTED = {
    "device_code": "secret",
    "user_code": "BCDF-GHJK",
    "verification_uri": "http://x/device/",
    "verification_uri_complete": "http://x/device/?code=BCDF-GHJK",
    "expires_in": 600,
    "interval": 5,
}


class Site:
    """Answers every POST to a path with the next of what it was given, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, Any]]] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.server: asyncio.Server | None = None
        self.url = ""

    def will(self, path: str, status: int, body: Any) -> None:
        self.answers.setdefault(path, []).append((status, body))

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
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = first.split(" ")[1]
        self.asked.append((path, headers, body))
        status, answer = self.answers[path].pop(0)
        if callable(answer):
            answer = answer(body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        location = "Location: http://127.0.0.1:1/elsewhere\r\n" if status == 302 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    await site.start()
    yield site
    await site.stop()


@pytest.fixture
def clock() -> list[float]:
    return [NOW]


@pytest.fixture
def account(site: Site, tmp_path: Path, clock: list[float]) -> Account:
    coordinator = Coordinator(CoordinatorConfig(url=site.url, state_dir=tmp_path, timeout_s=2))
    return Account(coordinator, tmp_path, clock=lambda: clock[0])


def certificate(identity: Identity = BOB, signer: Identity = ALICE, *, at: float = NOW, days: float = 14) -> bytes:
    said = Certificate(1, identity.peer_id.raw, "bees", "abc", "Bob", int(at), int(at + days * DAY_S))
    return issue(said, signer)


def issued(data: bytes) -> dict[str, Any]:
    return {"certificate": msgspec.to_builtins(data), "ends_at": 0.0}


ADMISSION = "/api/v1/experiments/bees/admission"


# Signing in


async def test_a_code_is_asked_for_and_polled(site: Site, account: Account) -> None:
    site.will("/api/v1/device", 200, STARTED)
    for error in ("authorization_pending", "slow_down", "access_denied", "expired_token"):
        site.will("/api/v1/device/token", 400, {"error": error})
    site.will("/api/v1/device/token", 200, {"token": "hive_a_b", "account": "Bob"})
    started = await account.start("x" * 100)
    assert started == msgspec.convert(STARTED, DeviceStart)
    assert json.loads(site.asked[0][2]) == {"label": "x" * 60}
    outcomes = [await account.poll(started) for _ in range(5)]
    assert outcomes == [
        "authorization_pending",
        "slow_down",
        "access_denied",
        "expired_token",
        SignedIn(url=site.url, token="hive_a_b", account="Bob"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (429, {"detail": "x"}, "asked too often"),
        (500, b"<html>", "HTTP status 500"),
        (200, {"nonsense": 1}, "does not understand"),
        (200, {**STARTED, "interval": 0}, "does not understand"),
        (200, b"\xff", "does not understand"),
        (302, b"", "HTTP status 302"),
    ],
)
async def test_answers_of_no_use_are_told(site: Site, account: Account, status: int, body: Any, says: str) -> None:
    site.will("/api/v1/device", status, body)
    with pytest.raises(CoordinatorError, match=says):
        await account.start("x")


async def test_nobody_answers(site: Site, account: Account) -> None:
    await site.stop()
    with pytest.raises(CoordinatorUnreachable):
        await account.start("x")


def test_the_account_is_kept_for_its_owner_only(account: Account) -> None:
    assert account.kept() is None and not account.forget()
    signed_in = SignedIn(url=account.url, token="hive_a_b", account="Bob")
    account.keep(signed_in)
    assert account.kept() == signed_in
    assert stat.S_IMODE(account.path.stat().st_mode) == 0o600
    assert [p.name for p in account.path.parent.iterdir()] == [account.path.name]
    assert account.forget() and account.kept() is None


def test_accounts_of_two_coordinators_are_apart(account: Account, tmp_path: Path) -> None:
    account.keep(SignedIn(url=account.url, token="hive_a_b"))
    other = Account(Coordinator(CoordinatorConfig(url="http://other.example", state_dir=tmp_path)), tmp_path)
    assert other.kept() is None


def test_a_spoilt_file_is_told_with_a_remedy(account: Account) -> None:
    account.keep(SignedIn(url=account.url, token="hive_a_b"))
    account.path.write_bytes(b"{")
    with pytest.raises(LocalError, match="Delete it, and sign in again"):
        account.kept()


def test_a_place_that_cannot_be_written(account: Account) -> None:
    account.path.parent.parent.mkdir(parents=True, exist_ok=True)
    account.path.parent.write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        account.keep(SignedIn(url=account.url, token="hive_a_b"))


# Certificates


async def test_a_certificate_is_asked_for_by_the_peer_and_kept(site: Site, account: Account, tmp_path: Path) -> None:
    site.will(ADMISSION, 200, issued(certificate()))
    path = tmp_path / "bees" / "admission"
    assert await account.admission(BOB, RULE, "hive_a_b", "laptop", path=path) == certificate() == path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    _, headers, body = site.asked[0]
    assert headers["authorization"] == "Bearer hive_a_b"
    asked = msgspec.json.decode(body, type=AdmissionRequest)
    assert (asked.peer, asked.experiment, asked.label, asked.at) == (str(BOB.peer_id), "bees", "laptop", int(NOW))
    assert BOB.peer_id.verify(REQUEST_PURPOSE, asked.signed_bytes("hive_a_b"), asked.signature)


async def test_it_is_renewed_when_half_of_its_days_are_over(
    site: Site, account: Account, tmp_path: Path, clock: list[float]
) -> None:
    path = tmp_path / "admission"
    path.write_bytes(certificate())
    clock[0] = NOW + 7 * DAY_S - 1
    assert await account.admission(BOB, RULE, "t", "", path=path) == certificate()
    assert not site.asked
    clock[0] = NOW + 7 * DAY_S
    newer = certificate(at=clock[0])
    site.will(ADMISSION, 200, issued(newer))
    assert await account.admission(BOB, RULE, "t", "", path=path) == newer == path.read_bytes()


async def test_with_the_coordinator_gone_the_kept_one_serves_until_it_ends(
    site: Site, account: Account, tmp_path: Path, clock: list[float]
) -> None:
    path = tmp_path / "admission"
    path.write_bytes(certificate())
    await site.stop()
    clock[0] = NOW + 13 * DAY_S
    assert await account.admission(BOB, RULE, "t", "", path=path) == certificate()
    clock[0] = NOW + 15 * DAY_S
    with pytest.raises(CoordinatorUnreachable):
        await account.admission(BOB, RULE, "t", "", path=path)


@pytest.mark.parametrize(
    "kept", [b"", b"nonsense", certificate(CHARLIE), certificate(signer=CHARLIE), certificate(at=NOW - 30 * DAY_S)]
)
async def test_a_kept_one_of_no_use_is_replaced(site: Site, account: Account, tmp_path: Path, kept: bytes) -> None:
    path = tmp_path / "admission"
    path.write_bytes(kept)
    site.will(ADMISSION, 200, issued(certificate()))
    assert await account.admission(BOB, RULE, "t", "", path=path) == certificate()


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (403, {"detail": "You were removed. See http://x/join/"}, NotAdmitted, "You were removed. See http://x/join/"),
        (401, b"", NotAdmitted, "refuses this account"),
        (404, {"detail": "No."}, UnknownExperiment, "no experiment 'bees'. No."),
        (429, b"", CoordinatorError, "too often"),
        (200, {"certificate": "%%%"}, CoordinatorError, "does not understand"),
        (200, issued(certificate(CHARLIE)), CoordinatorError, "a certificate of no use: .* not for"),
        (200, issued(certificate(signer=CHARLIE)), CoordinatorError, "not signed by the coordinator"),
    ],
)
async def test_refusals(
    site: Site, account: Account, tmp_path: Path, status: int, body: Any, error: type[Exception], says: str
) -> None:
    site.will(ADMISSION, status, body)
    with pytest.raises(error, match=says):
        await account.admission(BOB, RULE, "t", "", path=tmp_path / "admission")
    assert not (tmp_path / "admission").exists()


async def test_a_token_does_not_follow_a_redirect(site: Site, account: Account, tmp_path: Path) -> None:
    site.will(ADMISSION, 302, b"")
    with pytest.raises(CoordinatorError):
        await account.admission(BOB, RULE, "t", "", path=tmp_path / "admission")
    assert len(site.asked) == 1
