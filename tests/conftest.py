"""Fixtures for every test. The rest of the rules is in pyproject.toml: warnings are errors, no test may run over five minutes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
IN_TURN = ("tests/integration/", "tests/browser/")


settings.register_profile("repeatable", derandomize=True, database=None)
settings.register_profile("explore", database=None, print_blob=True)
settings.load_profile("repeatable")
"""A run draws what every run draws. To look further: ./hive test tests/property --hypothesis-profile explore"""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is for a shell's background jobs, and for all that they start
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Each test draws the same numbers, in whatever order and company it runs."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


class ProcessesInTurn(LoadScopeScheduling):  # type: ignore[misc]
    """Shares files of tests among workers. The browser's run in turn on one of them, and so do those that start agents: two of
    either kind at once would want more than the machine has."""

    def _split_scope(self, nodeid: str) -> str:
        path: str = nodeid.split("::")[0]
        return next((folder for folder in IN_TURN if path.startswith(folder)), path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ProcessesInTurn:
    return ProcessesInTurn(config, log)


@pytest.hookimpl(trylast=True)  # after Django's, which puts tests with a database first
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What starts processes comes first, so that it is not left for the end. Slow tests run when they are asked for: with
    -m slow, or by name."""
    items.sort(key=lambda item: not item.nodeid.startswith(IN_TURN))
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if "slow" in item.keywords and not any("::" in argument for argument in config.args):
            item.add_marker(pytest.mark.skip(reason="slow; run it with -m slow"))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser that browser tests drive; ./hive test installs it where it can."""
    found = os.environ.get("HIVE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium here; install chromium, or set HIVE_CHROMIUM to its path")
    return found
