"""Fixtures for every test. The rest of the rules is in pyproject.toml: warnings are errors, no test may run over five minutes."""

from __future__ import annotations

import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_itemcollected(item: pytest.Item) -> None:
    """What starts processes runs one after another even if several workers share the tests: each of it wants the machine."""
    if starts_processes(item):
        item.add_marker(pytest.mark.xdist_group("processes"))


@pytest.hookimpl(trylast=True)  # after Django's, which puts tests with a database first
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What starts processes comes first, so that it is not left for the end. Slow tests run when they are asked for: with
    -m slow, or by name."""
    items.sort(key=lambda item: not starts_processes(item))
    if "slow" in config.option.markexpr:
        return
    for item in items:
        if "slow" in item.keywords and not any("::" in argument for argument in config.args):
            item.add_marker(pytest.mark.skip(reason="slow; run it with -m slow"))


def starts_processes(item: pytest.Item) -> bool:
    return bool({"integration", "browser"} & set(item.path.parts))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser that browser tests drive; ./hive test installs it where it can."""
    found = os.environ.get("HIVE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium here; install chromium, or set HIVE_CHROMIUM to its path")
    return found
