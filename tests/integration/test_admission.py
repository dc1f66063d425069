"""Admission as real processes do it: sign in with a code or a token, be let in by an invitation, and do without the site."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import NotAdmitted
from tests.integration.accounts import PlainBrowser, make_account
from tests.integration.crowd import EXPERIMENT, Agent, Running, Site, agent_command, run_to_end

pytestmark = pytest.mark.demo


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    yield site
    site.close()


@pytest.fixture
def running() -> Iterator[list[Running]]:
    """Whatever a test starts and puts in here is ended with it."""
    found: list[Running] = []
    yield found
    for each in found:
        each.close()


def browser_of(site: Site, name: str, *, staff: bool = False) -> PlainBrowser:
    browser = PlainBrowser(site.url)
    browser.sign_in(make_account(site.directory / "state", name, staff=staff))
    return browser


def close_to_the_invited(staff: PlainBrowser) -> None:
    """Publish a revision of gpt-crowd that admits by invitation."""
    page = staff.get(f"/experiments/{EXPERIMENT}/edit/")
    fields = dict(re.findall(r'<input type="(?:text|hidden)" name="([^"]+)"(?: value="([^"]*)")?', page))
    fields |= {
        "admission": "invite",
        "data.kind": "python-stdlib",
        "model.kind": "gpt",
        "model.gpt.routing": "token",
        "training.wire_dtype": "bfloat16",
    }
    fields.pop("csrfmiddlewaretoken")
    assert "Since revision 1" in staff.post(f"/experiments/{EXPERIMENT}/edit/", **fields, description="", save="1")


def login(site: Site, browser: PlainBrowser, home: Path, running: list[Running]) -> None:
    """`hive-agent login`, with its code typed into `browser`."""
    command = agent_command("login", "--coordinator", site.url, "--state-dir", str(home), "--label", home.name)
    process = Running("login", command, home, {})
    running.append(process)
    process.look_until(lambda: "waiting" in process.said, "the code is shown")
    code = re.search(r"type +([A-Z]{4}-[A-Z]{4})", process.said)
    assert code, process.said
    page = browser.post("/device/", code=code[1])
    assert "Is this your machine?" in page and home.name in page
    assert "Signed in" in browser.post("/device/", form_at=f"/device/?code={code[1]}", code=code[1], decision="approve")
    assert process.wait() == 0, process.said
    assert "signed in to" in process.said and "hive_" not in process.said


def test_members_train_together_and_others_do_not(site: Site, tmp_path: Path, running: list[Running]) -> None:
    alice, bob = browser_of(site, "Alice", staff=True), browser_of(site, "Bob")
    close_to_the_invited(alice)

    # without an account: told why, and what to do, before anything costly happens
    ended = run_to_end(
        agent_command("join", EXPERIMENT, "--coordinator", site.url, "--state-dir", str(tmp_path / "charlie"), "--no-panel")
    )
    assert ended.returncode == NotAdmitted.exit_code
    assert "admits by invitation" in ended.stderr and f"{site.url}/experiments/{EXPERIMENT}/join/" in ended.stderr

    # with an account that was not invited
    login(site, bob, tmp_path / "bob", running)
    command = agent_command("join", EXPERIMENT, "--coordinator", site.url, "--state-dir", str(tmp_path / "bob"), "--no-panel")
    ended = run_to_end(command)
    assert ended.returncode == NotAdmitted.exit_code and "it takes an invitation link" in ended.stderr

    # invited by Alice, who comes with a token
    alice.post(f"/experiments/{EXPERIMENT}/people/invite/", form_at=f"/experiments/{EXPERIMENT}/people/", uses_max="1", life="7")
    link = re.search(r"/invitations/\w+/", alice.get(f"/experiments/{EXPERIMENT}/people/"))
    assert link
    assert "You may take part" in bob.post(link[0])
    token = re.search(r'id="token">(hive_\w+)<', alice.post("/account/tokens/", name="server", scopes="join", life="30"))
    assert token
    # she is staff, and takes part by an invitation as everybody does
    alice.post(f"/experiments/{EXPERIMENT}/people/invite/", form_at=f"/experiments/{EXPERIMENT}/people/", uses_max="1", life="7")
    links = re.findall(r"/invitations/\w+/", alice.get(f"/experiments/{EXPERIMENT}/people/"))
    alice.post(next(each for each in links if each != link[0]))
    first = Agent(tmp_path / "alice", site.url, "--listen", "127.0.0.1:0", "--max-experts", "32", HIVE_TOKEN=token[1])
    running.append(first)
    first.until_trains()
    second = Agent(tmp_path / "bob", site.url, "--bootstrap", first.address)
    running.append(second)
    second.until_trains()
    assert second.latest and second.latest.connections and "with a certificate of admission" in second.said
    assert f">{EXPERIMENT}" in bob.get("/account/machines/") and "bob" in bob.get("/account/machines/")

    # the site goes: Bob comes back with what he has, an outsider who knows manifest and address does not get in
    site.send(signal.SIGKILL)
    site.wait()
    second.send(signal.SIGKILL)
    second.wait()
    again = Agent(tmp_path / "bob", site.url, "--bootstrap", first.address)
    running.append(again)
    again.until_trains()
    shutil.copytree(tmp_path / "alice" / "experiments", tmp_path / "charlie" / "experiments", dirs_exist_ok=True)
    words = ("join", EXPERIMENT, "--coordinator", site.url, "--state-dir", str(tmp_path / "charlie"), "--no-panel")
    ended = run_to_end(agent_command(*words, "--bootstrap", first.address))
    assert ended.returncode == NotAdmitted.exit_code and "admits by invitation" in ended.stderr
