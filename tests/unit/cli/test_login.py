"""`hive-agent login` and `logout`, with a coordinator that is made up and time that passes at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli import login
from agent.cli.main import main
from agent.errors import CoordinatorUnreachable, NotAdmitted
from agent.net.account import INTERVAL_MAX_S, Account, DeviceStart, SignedIn
from agent.net.coordinator import Coordinator, CoordinatorConfig
from tests.virtual_loop import run

URL = "https://hive.example"
STARTED = DeviceStart("secret", "BCDF-GHJK", f"{URL}/device/", f"{URL}/device/?code=BCDF-GHJK", 600, 5)
SIGNED_IN = SignedIn(url=URL, token="hive_aaaaaaaa_b", account="Bob")


class FakeAccount(Account):
    """Answers polls from a list; an exception in it is raised, and when it is used up, nobody typed the code."""

    def __init__(self, state_dir: Path, *answers: Any) -> None:
        super().__init__(Coordinator(CoordinatorConfig(url=URL, state_dir=state_dir)), state_dir)
        self.answers = list(answers)
        self.label = ""

    async def start(self, label: str) -> DeviceStart:
        self.label = label
        return STARTED

    async def poll(self, started: DeviceStart) -> SignedIn | str:
        assert started is STARTED
        answer = self.answers.pop(0) if self.answers else "authorization_pending"
        if isinstance(answer, Exception):
            raise answer
        return answer


class Waits(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def signing_in(account: FakeAccount) -> tuple[SignedIn, list[str], Waits]:
    said: list[str] = []
    waits = Waits()
    return run(login.sign_in(account, "laptop", said.append, waits)), said, waits


def test_the_code_is_shown_and_the_account_kept(tmp_path: Path) -> None:
    account = FakeAccount(tmp_path, "authorization_pending", SIGNED_IN)
    signed_in, said, waits = signing_in(account)
    assert signed_in == account.kept() == SIGNED_IN and account.label == "laptop"
    assert "BCDF-GHJK" in said[0] and f"{URL}/device/" in said[0] and "?code=BCDF-GHJK" in said[1]
    assert not any("secret" in line or "hive_" in line for line in said)
    assert waits == [5, 5]


def test_it_slows_down_when_asked_and_backs_off_when_nobody_answers(tmp_path: Path) -> None:
    account = FakeAccount(tmp_path, "slow_down", CoordinatorUnreachable("away"), CoordinatorUnreachable("away"), SIGNED_IN)
    _, _, waits = signing_in(account)
    assert waits == [5, 10, 20, 40]


def test_waits_are_bounded(tmp_path: Path) -> None:
    account = FakeAccount(tmp_path, *[CoordinatorUnreachable("away")] * 20)
    with pytest.raises(TimeoutError):
        signing_in(account)
    account.answers = [CoordinatorUnreachable("away")] * 5 + [SIGNED_IN]
    assert max(signing_in(account)[2]) == INTERVAL_MAX_S


def test_a_refusal_in_the_browser_ends_it(tmp_path: Path) -> None:
    account = FakeAccount(tmp_path, "access_denied")
    with pytest.raises(NotAdmitted, match="refused in the browser"):
        signing_in(account)
    assert account.kept() is None


@pytest.mark.parametrize("answers", [["expired_token"], []])
def test_nobody_typed_the_code(tmp_path: Path, answers: list[str]) -> None:
    with pytest.raises(TimeoutError):
        signing_in(FakeAccount(tmp_path, *answers))


# As a command


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAccount:
    monkeypatch.setenv("HIVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HIVE_CONFIG", "/dev/null")
    monkeypatch.delenv("HIVE_TOKEN", raising=False)
    fake = FakeAccount(tmp_path)
    monkeypatch.setattr(login, "Account", lambda *_: fake)

    async def at_once(account: Account, label: str, say: Any) -> SignedIn:
        return await signed(account, label, say, Waits())

    signed = login.sign_in
    monkeypatch.setattr(login, "sign_in", at_once)
    return fake


def test_login_then_logout(fake: FakeAccount, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers = [SIGNED_IN]
    assert main(["login", "--coordinator", URL, "--label", "the old laptop"]) == 0
    out = capsys.readouterr().out
    assert f"signed in to {URL} as Bob" in out and fake.label == "the old laptop" and "hive_" not in out
    assert main(["logout", "--coordinator", URL]) == 0
    assert f"revoke it at {URL}/account/tokens/" in capsys.readouterr().out
    assert fake.kept() is None
    assert main(["logout", "--coordinator", URL]) == 0
    assert "was not signed in" in capsys.readouterr().out


def test_login_that_fails_ends_with_a_sentence_and_its_number(fake: FakeAccount, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers = ["access_denied"]
    assert main(["login", "--coordinator", URL]) == NotAdmitted.exit_code
    assert "refused in the browser" in capsys.readouterr().err
    fake.answers = ["expired_token"]
    assert main(["login", "--coordinator", URL]) == NotAdmitted.exit_code
    assert "nobody typed the code in time" in capsys.readouterr().err


def test_a_token_in_the_environment_goes_before_an_account(
    fake: FakeAccount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIVE_TOKEN", "hive_aaaaaaaa_bbbb")
    assert main(["login", "--coordinator", URL]) == 2
    err = capsys.readouterr().err
    assert "HIVE_TOKEN is set" in err and "bbbb" not in err


def test_a_token_that_is_none_is_not_repeated(
    fake: FakeAccount, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HIVE_TOKEN", "my password")
    assert main(["logout", "--coordinator", URL]) == 2
    assert "password" not in capsys.readouterr().err
