"""Accounts, signed in through the pages."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.integration import accounts

from .conftest import Site


def make_account(site: Site, name: str, *, staff: bool = False) -> str:
    """An account with a confirmed address; returns the address."""
    return accounts.make_account(site.directory, name, staff=staff)


async def sign_in(site: Site, page: Page, email: str) -> None:
    """Through the sign-in page."""
    await page.goto(f"{site.url}/accounts/login/")
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password", exact=True).fill(accounts.PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("navigation", name="Site").get_by_role("link", name="Account")).to_be_visible()
