"""The cast: Alice organizes, Bob volunteers, Charlie is a stranger. Each agent has a key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from django.core.cache import cache
from django.test import Client

from agent.identity import Identity
from agent.manifest import GPTModel, Manifest
from agent.reports import HELLO_PURPOSE, Event, Hello, HostedExpert, Report
from coordinator.accounts.models import User
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.hello import header

NOW = 1_800_000_000.0
PASSWORD = "correct horse battery"
SMALL = Manifest(
    name="gpt-crowd", revision=1, title="GPT of the crowd", description="It learns.", model=GPTModel(grid=(2, 2), layers=1)
)


@dataclass(frozen=True)
class Agent:
    """A volunteer's agent, as the coordinator knows it."""

    identity: Identity
    session: str = "0123456789abcdef"

    @property
    def peer(self) -> str:
        return str(self.identity.peer_id)

    def hello(self, *, at: float, experiment: str = "gpt-crowd", **changes: object) -> Hello:
        hello = Hello(peer=self.peer, experiment=experiment, session=self.session, at=int(at), version="0.1.0")
        hello = msgspec.structs.replace(hello, signature=self.identity.sign(HELLO_PURPOSE, hello.signed_bytes()))
        return msgspec.structs.replace(hello, **changes)

    def headers(self, *, at: float, experiment: str = "gpt-crowd", **changes: object) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", header(self.hello(at=at, experiment=experiment, **changes)).encode())]


def report(sequence: int, at: float = NOW, **fields: object) -> Report:
    return Report(**{"sequence": sequence, "at": at, "stage": "training", **fields})  # type: ignore[arg-type]


def event(sequence: int, name: str, at: float = NOW, **detail: str | int | float | bool | None) -> Event:
    return Event(sequence=sequence, at=at, name=name, detail=detail)


def hosts(*uids: str, epoch: int = 1, version: int = 5, rows: int = 10) -> tuple[HostedExpert, ...]:
    return tuple(HostedExpert(uid=uid, epoch=epoch, version=version, rows=rows) for uid in uids)


@pytest.fixture
def alice() -> Agent:
    return Agent(Identity.from_seed(b"a" * 32))


@pytest.fixture
def bob() -> Agent:
    return Agent(Identity.from_seed(b"b" * 32), session="b0b0b0b0b0b0b0b0")


@pytest.fixture
def charlie() -> Agent:
    return Agent(Identity.from_seed(b"c" * 32), session="cccccccccccccccc")


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, settings: object) -> Iterator[Path]:
    settings.STATE_DIR = tmp_path  # type: ignore[attr-defined]
    yield tmp_path


@pytest.fixture
def experiment(db: None) -> Experiment:
    """A published experiment of four experts."""
    return publish(SMALL).experiment


def account(name: str, **fields: object) -> User:
    """An account with a confirmed address, called after its owner."""
    email = f"{name.lower()}@example.org"
    user = User.objects.create_user(email, PASSWORD, display_name=name, **fields)
    user.emailaddress_set.create(email=email, verified=True, primary=True)
    return user


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def just_asked(user: User) -> Client:
    """Signed in through the page, and asked for the password again just now, as what is dangerous demands."""
    cache.clear()
    client = Client()
    client.post("/accounts/login/", {"login": user.email, "password": PASSWORD})
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    return client


@pytest.fixture
def organizer(db: None) -> User:
    """Alice's account."""
    return account("Alice")


@pytest.fixture
def volunteer(db: None) -> User:
    """Bob's account."""
    return account("Bob")


@pytest.fixture
def stranger(db: None) -> User:
    """Charlie's account."""
    return account("Charlie")


@pytest.fixture
def draft(db: None) -> Experiment:
    """An experiment that Alice has not published."""
    return Experiment.objects.create(name="secret", title="Not yet")
