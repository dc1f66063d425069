"""Accounts on a site of another process: made at its database, signed in through its pages."""

from __future__ import annotations

import os
import subprocess
import sys

from playwright.async_api import Page, expect

from .conftest import ROOT, Site

PASSWORD = "correct horse battery"
_MAKE = """
from coordinator.accounts.models import User
email, name, staff = {email!r}, {name!r}, {staff!r}
user = User.objects.create_user(email, {password!r}, display_name=name, is_listed=True, is_staff=staff)
user.emailaddress_set.create(email=email, verified=True, primary=True)
"""


def make_account(site: Site, name: str, *, staff: bool = False) -> str:
    """An account with a confirmed address; returns the address."""
    email = f"{name.lower()}@example.org"
    code = _MAKE.format(email=email, name=name, staff=staff, password=PASSWORD)
    environment = {**os.environ, "HIVE_STATE_DIR": str(site.directory)}
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return email


async def sign_in(site: Site, page: Page, email: str) -> None:
    """Through the sign-in page."""
    await page.goto(f"{site.url}/accounts/login/")
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("navigation", name="Site").get_by_role("link", name="Account")).to_be_visible()
