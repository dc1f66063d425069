"""Another mail address."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core import mail
from django.test import Client

from coordinator.accounts.models import User

from .conftest import just_asked

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser(organizer: User) -> Client:
    """Alice's, signed in with her password just now."""
    return just_asked(organizer)


def change(browser: Client, email: str) -> Any:
    return browser.post("/accounts/email/", {"email": email, "action_add": ""}, follow=True)


def test_it_changes_once_the_new_one_is_confirmed(browser: Client, organizer: User) -> None:
    page = change(browser, "alice@new.example").content.decode()
    assert "waits for you to open the link" in page
    organizer.refresh_from_db()
    assert organizer.email == "alice@example.org"
    letter = next(m for m in mail.outbox if m.to == ["alice@new.example"])
    link = re.search(r"http://testserver(/accounts/confirm-email/[^\s]+)", str(letter.body))
    assert link
    browser.post(link[1])
    organizer.refresh_from_db()
    assert organizer.email == "alice@new.example"


def test_one_that_somebody_else_has_is_not_given_away(browser: Client, volunteer: User) -> None:
    change(browser, volunteer.email)
    assert User.objects.get(email="bob@example.org") == volunteer


def test_nonsense(browser: Client) -> None:
    assert "errorlist" in change(browser, "nonsense").content.decode()
