"""Finding oneself on the leaderboard, in a real browser, with agents that report by the real protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable

from playwright.async_api import Page, expect

from .accounts import make_account, sign_in
from .conftest import ROOT, SimulatedAgent, Site, shoot

BOARDS_MS = 90_000
"""Contributions are derived every 10 s and boards made every 30 s; the page looks every 15 s."""
_LINK = """
from django.utils import timezone
from coordinator.accounts.actions import link_machine
from coordinator.accounts.models import User
link_machine(User.objects.get(email={email!r}), {peer!r}, "the old laptop", timezone.now())
"""


def link(site: Site, email: str, peer: str) -> None:
    """As a certificate of admission would."""
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", _LINK.format(email=email, peer=peer)]
    environment = {**os.environ, "HIVE_STATE_DIR": str(site.directory)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)


async def test_bob_finds_himself_his_name_and_his_team(
    site: Site, page: Page, agents: Callable[[], Awaitable[SimulatedAgent]]
) -> None:
    email = make_account(site, "Bob")
    his, others = await agents(), [await agents() for _ in range(3)]
    for i, agent in enumerate([his, *others]):
        for step in range(5):
            agent.train(3.0 - step / 10, tokens=1000 * (4 - i))
        await agent.flush()
    link(site, email, his.peer)
    await sign_in(site, page, email)
    await page.goto(f"{site.url}/teams/")
    await page.get_by_label("Name").fill("Night shift")
    await page.get_by_role("button", name="Make the team").click()
    await expect(page.get_by_role("heading", name="Night shift")).to_be_visible()
    await page.goto(f"{site.url}/leaderboard/in/gpt-crowd/")
    mine = page.get_by_role("region", name="Pinned peers").get_by_role("row").last
    await expect(mine).to_contain_text("Bob", timeout=BOARDS_MS)
    await expect(mine).to_contain_text("yours")
    await expect(mine.locator(".rank")).to_have_text("1")
    await expect(mine.locator(".moved")).to_contain_text("new")
    rows = page.get_by_role("region", name="Standings").locator("tbody tr")
    await expect(rows).to_have_count(4)
    await expect(rows.first).to_contain_text("Bob")
    assert await rows.first.locator("[data-label=tokens]").get_attribute("title") == "20000"
    await expect(page.locator("main")).to_contain_text("Night shift")
    await shoot(page, "leaderboard-mine")
    await page.get_by_role("region", name="Standings").get_by_role("link", name="Expert rows").click()
    await expect(page).to_have_url(f"{site.url}/leaderboard/numbers/#rows")
