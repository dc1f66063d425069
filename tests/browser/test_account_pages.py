"""Every page of accounts, teams and who may join, in a real browser: looked at, and nothing serious for axe."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from .accounts import make_account, sign_in
from .conftest import ROOT, Complaints, Site, shoot

AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
ENTRANCE = {
    "login": "/accounts/login/",
    "signup": "/accounts/signup/",
    "signup-sent": "/accounts/confirm-email/",
    "confirm-gone": "/accounts/confirm-email/x/",
    "reset": "/accounts/password/reset/",
    "reset-sent": "/accounts/password/reset/done/",
    "inactive": "/accounts/inactive/",
    "cancelled": "/accounts/3rdparty/login/cancelled/",
}
OWN = {
    "profile": "/account/",
    "machines": "/account/machines/",
    "tokens": "/account/tokens/",
    "email": "/accounts/email/",
    "password": "/accounts/password/change/",
    "two-factors": "/accounts/2fa/",
    "data": "/account/data/",
    "reauthenticate": "/accounts/reauthenticate/",
    "device": "/device/",
    "logout": "/accounts/logout/",
    "teams": "/teams/",
    "organize": "/organize/",
    "organize-new": "/organize/new/",
    "people": "/experiments/gpt-crowd/people/",
    "revisions": "/experiments/gpt-crowd/revisions/",
    "revision": "/experiments/gpt-crowd/revisions/1/",
    "edit": "/experiments/gpt-crowd/edit/",
    "join": "/experiments/gpt-crowd/join/",
    "numbers": "/leaderboard/numbers/",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all of them; each test has accounts of its own."""
    site = Site(tmp_path_factory.mktemp("state"))
    site.start()
    yield site
    site.stop()


async def test_entrance(site: Site, page: Page) -> None:
    for name, path in ENTRANCE.items():
        await page.goto(f"{site.url}{path}")
        await expect(page.locator("h1")).to_have_count(1)
        await shoot(page, f"account-{name}")


async def test_ones_own_pages(site: Site, page: Page) -> None:
    await sign_in(site, page, make_account(site, "Alice", staff=True))
    for name, path in OWN.items():
        await page.goto(f"{site.url}{path}")
        await expect(page.locator("h1")).to_have_count(1)
        await shoot(page, f"account-{name}")


async def test_a_token_is_shown_once(site: Site, page: Page) -> None:
    await sign_in(site, page, make_account(site, "Bob"))
    await page.goto(f"{site.url}/account/tokens/")
    await page.get_by_label("What is it for?").fill("desk")
    await page.get_by_role("button", name="Make it").click()
    await expect(page.locator("#token")).to_have_text(re.compile(r"^hive_[a-z0-9]{8}_[a-z0-9]{32}$"))
    await shoot(page, "account-token-made")
    await page.goto(f"{site.url}/account/tokens/")
    await expect(page.locator("#token")).to_have_count(0)
    await page.get_by_role("button", name="Revoke desk").click()
    await expect(page.locator("table")).to_contain_text("revoked")


async def test_the_second_factor_is_turned_on(site: Site, page: Page) -> None:
    await sign_in(site, page, make_account(site, "Dora"))
    await page.goto(f"{site.url}/accounts/2fa/totp/activate/")
    await page.get_by_label("Password").fill("correct horse battery")
    await page.get_by_role("button", name="Go on").click()
    await expect(page.locator(".qr svg")).to_be_visible()
    await shoot(page, "account-totp")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_serious_for_axe(site: Site, browser: Browser, complaints: Complaints, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is installed by `npm ci` in frontend/")
    context = await browser.new_context(bypass_csp=True, color_scheme=scheme)  # type: ignore[arg-type]
    page = await context.new_page()
    found = []
    for path in ENTRANCE.values():
        found += await _serious(site, page, path)
    await sign_in(site, page, make_account(site, f"Eve {scheme}".replace(" ", "-"), staff=True))
    for path in OWN.values():
        found += await _serious(site, page, path)
    await context.close()
    assert not found, "\n".join(found)


async def _serious(site: Site, page: Page, path: str) -> list[str]:
    await page.goto(f"{site.url}{path}")
    await page.add_script_tag(path=AXE)
    result = await page.evaluate("axe.run()")
    return [
        f"{path}: {v['id']}: {[n['html'][:120] for n in v['nodes']][:3]}"
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]
