"""From sign-up to the leaderboard: a real browser, a real site, and a real agent that trains a real model.

Nothing is set up behind the site's back, but the second account that is refused at the end.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from tests.integration.accounts import PASSWORD
from tests.integration.crowd import Running

from .accounts import make_account, sign_in
from .conftest import Complaints, Site, shoot

pytestmark = [pytest.mark.demo, pytest.mark.timeout(280)]
ALICE = "alice@example.org"
PATIENT_MS = 120_000
"""An agent loads torch and writes a corpus of the standard library first, and a busy machine takes its time."""
FALL = 0.5
"""Nats per byte: what the tiny model learns in its first seconds, far above the noise of a batch."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Its mail goes to files."""
    site = Site(tmp_path / "state", EMAIL_URL=f"filemail://{tmp_path}/mail")
    site.start()
    yield site
    site.stop()


@pytest.fixture
async def stranger(browser: Browser, site: Site) -> AsyncIterator[Page]:
    """Somebody else's browser."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


async def test_from_sign_up_to_the_leaderboard(
    site: Site, page: Page, stranger: Page, complaints: Complaints, tmp_path: Path
) -> None:
    await sign_up(site, page, tmp_path / "mail")
    token = await make_token(site, page)
    await create_experiment(site, page)
    command = await join_command(site, page)
    agent = Running("agent", command, tmp_path / "agent", {"HIVE_TOKEN": token, "HIVE_STATE_DIR": str(tmp_path / "agent")})
    try:
        await watch_it_learn(page, agent)
        await find_oneself(site, page)
        await revoke(site, page, token)
        await be_refused(site, stranger)
        agent.send(signal.SIGINT)
        await page.goto(f"{site.url}/experiments/bees/")
        await expect(page.locator("[data-figure=peers]")).to_have_text("0", timeout=PATIENT_MS)
        assert await asyncio.to_thread(agent.wait) == 0, agent.said
    finally:
        agent.close()
    # refusals; and all fonts are preloaded on every page, so one that shows no code for seconds gets Chromium's advice
    expected = ("404", "preloaded using link preload but not used")
    complaints.found[:] = [c for c in complaints.found if not any(words in c for words in expected)]


async def sign_up(site: Site, page: Page, mail: Path) -> None:
    await page.goto(f"{site.url}/accounts/signup/")
    await page.get_by_label("Email").fill(ALICE)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Make the account").click()
    await expect(page).to_have_url(f"{site.url}/accounts/confirm-email/")
    await shoot(page, "sign-up-sent")
    link = await asyncio.to_thread(confirmation_link, mail)
    await page.goto(link)
    await expect(page.locator("#content")).to_contain_text(ALICE)
    await page.get_by_role("button", name="Confirm").click()
    await page.goto(f"{site.url}/account/")
    await page.get_by_label("Display name").fill("Alice")
    await page.get_by_label("Show it on leaderboards").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Display name")).to_have_value("Alice")


def confirmation_link(mail: Path) -> str:
    """From the newest message, once a task has delivered it."""
    quiet = threading.Event()
    for _ in range(300):
        for path in mail.glob("*") if mail.exists() else ():
            found = re.search(r"http://\S+/confirm-email/\S+", path.read_text())
            if found:
                return found[0]
        quiet.wait(0.1)
    raise AssertionError("no mail came")


async def make_token(site: Site, page: Page) -> str:
    await page.goto(f"{site.url}/account/tokens/")
    await page.get_by_label("What is it for").or_(page.get_by_label("Name")).first.fill("workshop")
    for scope in await page.get_by_role("checkbox").all():
        await scope.check()
    await page.get_by_role("button", name="Make it").click()
    token = await page.locator("#token").inner_text()
    assert token.startswith("hive_") and await who_am_i(site, page, token) == 200
    return token


async def who_am_i(site: Site, page: Page, token: str) -> int:
    """What the API says to this token."""
    answer = await page.request.get(f"{site.url}/api/v1/account", headers={"Authorization": f"Bearer {token}"})
    return answer.status


async def create_experiment(site: Site, page: Page) -> None:
    await page.goto(f"{site.url}/organize/new/")
    await page.get_by_role("button", name="tiny").click()
    await page.get_by_label("Short name").fill("bees")
    await page.get_by_label("Title").fill("Bees write")
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page).to_have_url(f"{site.url}/experiments/bees/edit/")
    await page.get_by_role("button", name="Open it to agents").click()
    await expect(page.locator(".eyebrow")).to_contain_text("revision 1")


async def join_command(site: Site, page: Page) -> list[str]:
    """The words to run, as the page gives them, for an agent that is not installed but run from the sources."""
    await page.goto(f"{site.url}/experiments/bees/")
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    await page.locator("copy-command", has=page.locator("#join")).get_by_role("button").click()
    words = shlex.split(await page.evaluate("navigator.clipboard.readText()"))
    assert words == ["hive-agent", "--experiment", "bees", "--coordinator", site.url]
    return [sys.executable, "-m", "agent.cli.main", *words[1:], "--threads", "1"]


async def watch_it_learn(page: Page, agent: Running) -> None:
    """The page is open all the while, and is never loaded again."""
    await expect(page.locator("[data-figure=peers]")).to_have_text("1", timeout=PATIENT_MS)
    loss = page.locator("[data-figure=loss]")
    await expect(loss).to_have_text(re.compile(r"^\d"), timeout=PATIENT_MS)
    first = float(await loss.inner_text())
    await page.wait_for_function(
        "([most]) => Number(document.querySelector('[data-figure=loss]').textContent) < most",
        arg=[first - FALL],
        timeout=PATIENT_MS,
    )
    assert agent.child.running, agent.said
    await expect(page.locator("live-stamp")).to_contain_text("live")
    await expect(page.locator("peer-table tbody tr")).to_have_count(1)
    await expect(page.locator("event-log")).to_contain_text("joined")
    await shoot(page, "end-to-end-learning")


async def find_oneself(site: Site, page: Page) -> None:
    row = page.locator("table.board tbody tr", has_text="Alice").first
    for _ in range(30):  # contributions and boards are made in the background, a few seconds each
        await page.goto(f"{site.url}/leaderboard/in/bees/")
        if await row.count():
            break
        await page.wait_for_timeout(2000)
    await expect(row).to_be_visible()
    await expect(row).to_contain_text("1")
    await shoot(page, "end-to-end-leaderboard")
    await page.goto(f"{site.url}/account/machines/")
    await expect(page.locator("table.list tbody tr")).to_contain_text("Bees write")


async def revoke(site: Site, page: Page, token: str) -> None:
    await page.goto(f"{site.url}/account/tokens/")
    await page.get_by_role("button", name="Revoke workshop").click()
    await expect(page.locator("table.list")).to_contain_text("revoked")
    assert await who_am_i(site, page, token) == 401


async def be_refused(site: Site, stranger: Page) -> None:
    """Not signed in: asked to. Signed in as somebody else: there is nothing there, and nothing changes."""
    await stranger.goto(f"{site.url}/experiments/bees/edit/")
    await expect(stranger).to_have_url(re.compile("/accounts/login/"))
    await sign_in(site, stranger, await asyncio.to_thread(make_account, site, "Charlie"))
    for path in ("edit", "people", "revisions"):
        answer = await stranger.goto(f"{site.url}/experiments/bees/{path}/")
        assert answer is not None and answer.status == 404, path
    await stranger.goto(f"{site.url}/account/")
    status = await stranger.evaluate(
        """async () => {
            const token = document.querySelector('[name=csrfmiddlewaretoken]').value;
            const body = new URLSearchParams({csrfmiddlewaretoken: token, status: 'finished'});
            return (await fetch('/experiments/bees/status/', {method: 'POST', body})).status;
        }"""
    )
    assert status == 404
    answer = await stranger.request.get(f"{site.url}/api/v1/experiments/bees")
    assert (await answer.json())["summary"]["status"] == "open"
    answer = await stranger.goto(f"{site.url}/operator/")
    assert answer is not None and answer.status == 404
