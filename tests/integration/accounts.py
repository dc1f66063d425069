"""Accounts on a site of another process: made at its database, used through its pages."""

from __future__ import annotations

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
_MAKE = """
from coordinator.accounts.models import User
email, name, staff = {email!r}, {name!r}, {staff!r}
user = User.objects.create_user(email, {password!r}, display_name=name, is_listed=True, is_staff=staff)
user.emailaddress_set.create(email=email, verified=True, primary=True)
"""


def make_account(state_dir: Path, name: str, *, staff: bool = False) -> str:
    """An account with a confirmed address; returns the address."""
    email = f"{name.lower()}@example.org"
    code = _MAKE.format(email=email, name=name, staff=staff, password=PASSWORD)
    environment = {**os.environ, "HIVE_STATE_DIR": str(state_dir)}
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)
    return email


class PlainBrowser:
    """A browser without JavaScript or pictures: follows links and redirects, keeps cookies, fills in forms."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def get(self, path: str) -> str:
        with self.opener.open(self.url + path, timeout=30) as response:
            return str(response.read().decode())

    def post(self, path: str, *, form_at: str | None = None, **fields: str) -> str:
        """Post a form of the page at `form_at` (by default at `path`); returns the page that it leads to."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(form_at or path))
        assert token, f"there is no form at {form_at or path}"
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Referer": self.url})
        with self.opener.open(request, timeout=30) as response:
            return str(response.read().decode())

    def sign_in(self, email: str) -> None:
        self.post("/accounts/login/", login=email, password=PASSWORD)
        assert email in self.get("/account/")
