"""The profile: a name, and whether others see it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from coordinator.accounts.models import User

from .conftest import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(organizer: User) -> Client:
    return signed_in(organizer)


def save(browser: Client, **fields: str) -> Any:
    return browser.post("/account/", fields)


def test_nobody_is_shown_who_did_not_ask_for_it(browser: Client, organizer: User) -> None:
    assert not organizer.is_listed and organizer.shown_name == "" and str(organizer) == organizer.public_id
    assert save(browser, display_name="Alice", is_listed="on").status_code == 302
    organizer.refresh_from_db()
    assert organizer.shown_name == "Alice"


@pytest.mark.parametrize("name", ["Ada Lovelace", "Ада", "bee-keeper_7", "Dr. No", "李"])
def test_names(browser: Client, organizer: User, name: str) -> None:
    assert save(browser, display_name=f"  {name} ").status_code == 302
    organizer.refresh_from_db()
    assert organizer.display_name == name


@pytest.mark.parametrize("name", ["<b>", "-x", "a" * 33, "a\u202eb", "a@b", "x "[:1] + "\u0000"])
def test_what_is_no_name(browser: Client, organizer: User, name: str) -> None:
    response = save(browser, display_name=name)
    assert response.status_code == 400 and "errorlist" in response.content.decode()
    organizer.refresh_from_db()
    assert organizer.display_name == "Alice"


def test_a_name_is_taken_once_whatever_its_case(browser: Client, volunteer: User) -> None:
    response = save(browser, display_name="BOB")
    assert response.status_code == 400 and "Somebody else goes by this name" in response.content.decode()


def test_to_be_shown_takes_a_name(browser: Client, organizer: User) -> None:
    response = save(browser, display_name="", is_listed="on")
    assert response.status_code == 400 and "A name is needed" in response.content.decode()


def test_looking_at_the_page_with_errors_changes_nothing_at_the_top(browser: Client) -> None:
    page = save(browser, display_name="<b>").content.decode()
    assert "&lt;b&gt;" in page and "<b>" not in page
