"""What an agent shows: had once, renewed in time, and doing without where the experiment is open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.admission import Policy, Rule
from agent.credentials import RENEW_PERIOD_S, Credentials
from agent.errors import CoordinatorUnreachable, NotAdmitted, StorageError
from agent.identity import Identity
from agent.net.account import Account
from tests.virtual_loop import run

BOB = Identity.from_seed(b"b" * 32)
COORDINATOR = Identity.from_seed(b"c" * 32)


class FakeAccount(Account):
    """Gives `answers` one after the other; an exception among them is raised. `held` is what is kept on disk."""

    def __init__(self, *answers: bytes | Exception, held: bytes = b"") -> None:
        self.url = "https://hive.example"
        self.answers = list(answers)
        self.held = held
        self.labels: list[str] = []

    async def admission(self, identity: Identity, rule: Rule, token: str, label: str, *, path: Path) -> bytes:
        self.labels.append(label)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def usable(self, identity: Identity, rule: Rule, path: Path) -> tuple[None, bytes]:
        return None, self.held


def credentials(account: Account, policy: Policy = "approval", token: str = "hive_a_b") -> Credentials:
    rule = Rule(experiment="bees", policy=policy, key=COORDINATOR.peer_id)
    return Credentials(account, rule, BOB, token=token, path=Path("/nowhere/admission"))


def test_a_token_gets_a_certificate() -> None:
    account = FakeAccount(b"one")
    mine = credentials(account)
    run(mine.obtain("laptop"))
    assert mine.certificate == b"one" and account.labels == ["laptop"]


def test_who_may_not_take_part_is_told_why() -> None:
    with pytest.raises(NotAdmitted, match="declined"):
        run(credentials(FakeAccount(NotAdmitted("declined"))).obtain())


def test_without_an_account_one_is_told_how_to_get_one() -> None:
    with pytest.raises(NotAdmitted) as told:
        run(credentials(FakeAccount(), "invite", token="").obtain())
    text = str(told.value)
    assert "admits by invitation" in text and "hive-agent login --coordinator https://hive.example" in text
    assert "https://hive.example/experiments/bees/join/" in text and "HIVE_TOKEN" in text


def test_without_a_token_a_certificate_that_is_kept_still_serves() -> None:
    mine = credentials(FakeAccount(held=b"kept"), token="")
    run(mine.obtain())
    assert mine.certificate == b"kept"


def test_nobody_can_say() -> None:
    with pytest.raises(CoordinatorUnreachable, match="no certificate of admission to bees here"):
        run(credentials(FakeAccount(CoordinatorUnreachable("it is away."))).obtain())


@pytest.mark.parametrize("error", [NotAdmitted("no"), CoordinatorUnreachable("away."), StorageError("full")])
def test_an_open_experiment_takes_in_who_has_none(error: Exception) -> None:
    mine = credentials(FakeAccount(error), "open")
    run(mine.obtain())
    assert mine.certificate == b""


def test_it_is_renewed_and_shown_when_it_is_new() -> None:
    account = FakeAccount(b"one", b"one", NotAdmitted("removed"), b"two")
    mine = credentials(account)
    shown: list[bytes] = []

    async def story() -> None:
        await mine.obtain("laptop")
        keeping = asyncio.create_task(mine.keep(shown.append))
        passed = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(3.5 * RENEW_PERIOD_S, passed.set_result, None)
        await passed
        keeping.cancel()

    run(story(), limit_s=5 * RENEW_PERIOD_S)
    assert shown == [b"two"] and mine.certificate == b"two" and not account.answers


def test_the_organizers_newest_word_is_followed() -> None:
    mine = credentials(FakeAccount(), "open")
    assert not mine.follow("open")
    assert mine.follow("invite") and mine.rule.policy == "invite" and mine.rule.experiment == "bees"
