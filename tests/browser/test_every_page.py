"""Every page of the site: nothing serious for axe-core, nothing that scrolls sideways on a phone, and a picture of each.

In light and dark at a desk's width, and in light on a phone. Pictures go to artifacts/screenshots/, for people to look at.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.urls import URLPattern, URLResolver, get_resolver
from playwright.async_api import Browser, BrowserContext, Page

from agent.identity import Identity

from .accounts import sign_in
from .conftest import ARTIFACTS, ROOT, SimulatedAgent, Site, settle

STRANGER = {
    "home": "/",
    "experiment": "/experiments/gpt-crowd/",
    "leaderboard": "/leaderboard/",
    "leaderboard_experiment": "/leaderboard/in/gpt-crowd/",
    "leaderboard_numbers": "/leaderboard/numbers/",
    "find_peer": "/peers/?id={peer:.6}",
    "peer": "/peers/{peer}/",
    "teams": "/teams/",
    "team": "/teams/{team}/",
    "join": "/experiments/by-approval/join/",
    "invitation": "/invitations/{invitation}/",
    "experiment_revisions": "/experiments/gpt-crowd/revisions/",
    "experiment_revision": "/experiments/gpt-crowd/revisions/2/",
    "account_login": "/accounts/login/",
    "account_signup": "/accounts/signup/",
    "account_reset_password": "/accounts/password/reset/",
    "account_reset_password_done": "/accounts/password/reset/done/",
    "account_reset_password_from_key": "/accounts/password/reset/key/1-set-password/",
    "account_reset_password_from_key_done": "/accounts/password/reset/key/done/",
    "account_email_verification_sent": "/accounts/confirm-email/",
    "account_confirm_email": "/accounts/confirm-email/no-such-key/",
    "account_inactive": "/accounts/inactive/",
    "socialaccount_login_cancelled": "/accounts/3rdparty/login/cancelled/",
    "socialaccount_login_error": "/accounts/3rdparty/login/error/",
    "not_found": "/nope",
}
ORGANIZER = {
    "account": "/account/",
    "account_tokens": "/account/tokens/",
    "account_machines": "/account/machines/",
    "account_data": "/account/data/",
    "account_delete": "/account/delete/",
    "device": "/device/",
    "account_logout": "/accounts/logout/",
    "account_email": "/accounts/email/",
    "account_change_password": "/accounts/password/change/",
    "account_reauthenticate": "/accounts/reauthenticate/",
    "mfa_index": "/accounts/2fa/",
    "mfa_activate_totp": "/accounts/2fa/totp/activate/",
    "organize": "/organize/",
    "experiment_new": "/organize/new/",
    "experiment_edit": "/experiments/gpt-crowd/edit/",
    "people": "/experiments/by-approval/people/",
    "operator": "/operator/",
}
ELSEWHERE = {
    "live", "ready", "metrics", "account_export", "experiment_estimate",  # no pages
    "account_token_revoke", "account_machine_unlink", "experiment_archive", "experiment_delete", "join_ask", "people_invite",
    "experiment_status",
    "people_withdraw", "people_decide", "people_appoint", "people_dismiss", "team_leave", "team_join",  # take forms only
    "mfa_deactivate_totp", "mfa_view_recovery_codes", "mfa_generate_recovery_codes", "mfa_download_recovery_codes",
    "mfa_authenticate", "mfa_reauthenticate",  # need a second factor; of the same templates as account_reauthenticate
    "account_set_password", "account_confirm_login_code", "socialaccount_signup", "socialaccount_connections",  # not offered
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True},
}
AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
PEER = Identity.from_seed(b"p" * 32)
POPULATION_S = 120


def test_no_page_is_left_out() -> None:
    """Whoever adds a page adds it above."""
    assert _names(get_resolver()) == {*STRANGER, *ORGANIZER, *ELSEWHERE} - {"not_found"}


def _names(resolver: URLResolver) -> set[str]:
    found: set[str] = set()
    for entry in resolver.url_patterns:
        if isinstance(entry, URLPattern):
            found |= {entry.name} if entry.name else set()
        elif entry.namespace is None and "social/" not in str(entry.pattern):
            found |= _names(entry)
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("state"))
    site.start()
    yield site
    site.stop()


@pytest.fixture(scope="module")
def places(site: Site) -> dict[str, str]:
    """What addresses of pages need, after something was put on every page."""
    environment = {**os.environ, "HIVE_STATE_DIR": str(site.directory)}
    command = [sys.executable, "-m", "tests.browser.population"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=POPULATION_S, stdout=subprocess.PIPE, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
async def crowd(site: Site) -> AsyncIterator[list[SimulatedAgent]]:
    """Three peers that have trained for two minutes and are here."""
    agents = [SimulatedAgent(site, identity=PEER), SimulatedAgent(site), SimulatedAgent(site)]
    grid = [f"ffn{layer}.{i}.{j}" for layer in range(2) for i in range(4) for j in range(4)]
    began = time.time() - 130
    for i, agent in enumerate(agents):
        await agent.connect()
        agent.host(*grid[i:31:3])
        agent.know(*(other for other in agents if other is not agent), kind="relayed" if i == 2 else "direct")
        for s in range(120):
            agent.train(2 + 3.5 * math.exp(-s / 40), at=began + s, validation=2.2 if s % 40 == 39 else None)
        agent.tell("sample", step=240, prompt="def main(argv):\n", text="    for name in argv:\n        print(name, file=self)\n")
        await agent.flush()
    yield agents
    for agent in agents:
        await agent.vanish()


async def _look(page: Page, url: str, name: str, variant: str) -> list[Any]:
    """Open it, take its picture, and say what axe and a ruler find."""
    response = await page.goto(url)
    assert response is not None and response.status < 500, f"{url} answers {response and response.status}"
    if "/experiments/gpt-crowd/" in url and url.endswith("gpt-crowd/"):
        await page.locator("metric-chart[metric=loss][data-state=ready]").wait_for()
    await settle(page)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTIFACTS / f"{name}-{variant}.png", full_page=True)
    await page.add_script_tag(path=AXE)
    report = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
    found = [
        (url, variant, v["id"], [n["html"][:200] for n in v["nodes"][:4]])
        for v in report["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return found + ([(url, variant, "scrolls sideways", width)] if width[0] > width[1] else [])


async def _open(browser: Browser, variant: str) -> BrowserContext:
    return await browser.new_context(bypass_csp=True, **VARIANTS[variant])  # axe is put into the page


@pytest.mark.slow
@pytest.mark.skipif(not AXE.exists(), reason="axe-core is installed by `npm ci` in frontend/")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("who", ["stranger", "organizer"])
async def test_every_page(
    site: Site, browser: Browser, places: dict[str, str], crowd: list[SimulatedAgent], variant: str, who: str
) -> None:
    context = await _open(browser, variant)
    page = await context.new_page()
    if who == "organizer":
        await sign_in(site, page, "alice@example.org")
    found: list[Any] = []
    for name, path in (STRANGER if who == "stranger" else ORGANIZER).items():
        for agent in crowd:  # still here
            agent.train(2.1)
            await agent.flush()
        found += await _look(page, site.url + path.format(**places), name, variant)
    await context.close()
    assert not found, "\n".join(map(str, found))
