"""The other pages, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from .conftest import Complaints, Site, shoot


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for all of them: none of these tests changes anything."""
    site = Site(tmp_path_factory.mktemp("state"))
    site.start()
    yield site
    site.stop()


async def test_home_lists_the_experiments(site: Site, page: Page) -> None:
    await page.goto(site.url)
    await expect(page.locator(".shelf li")).to_have_count(1)
    await shoot(page, "home")
    async with page.expect_websocket() as live:
        await page.get_by_role("link", name="gpt-crowd").click()
    await expect(page).to_have_url(f"{site.url}/experiments/gpt-crowd/")
    await (await live.value).wait_for_event("framereceived")  # a page that is left before its socket is open warns of it


async def test_a_page_that_is_not_there(site: Site, page: Page, complaints: Complaints) -> None:
    response = await page.goto(f"{site.url}/experiments/nope/")
    assert response is not None and response.status == 404
    await expect(page.locator("h1")).to_be_visible()
    complaints.found[:] = [c for c in complaints.found if "404" not in c]


async def test_the_api_pages_work_under_the_policy(site: Site, page: Page) -> None:
    await page.goto(f"{site.url}/api/v1/docs")
    await expect(page.locator(".opblock").first).to_be_visible()


async def test_pages_work_without_javascript(site: Site, browser: Browser, complaints: Complaints) -> None:
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    complaints.watch(page)
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await expect(page.locator("#join")).to_be_visible()
    await expect(page.locator("[data-figure=peers]")).to_have_text("0")
    await context.close()
    assert not complaints.found
