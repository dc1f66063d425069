"""An organizer at work, in a real browser."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Page, expect

from tests.integration.accounts import PASSWORD

from .accounts import make_account, sign_in
from .conftest import Complaints, Site, shoot


async def test_from_a_preset_to_a_second_revision(site: Site, page: Page, complaints: Complaints) -> None:
    await sign_in(site, page, make_account(site, "Alice"))
    await page.goto(f"{site.url}/organize/")
    await shoot(page, "organize-empty")
    await page.get_by_role("link", name="New experiment").click()
    await page.get_by_label("Title").fill("Bees write")
    await page.get_by_role("button", name="tiny").click()
    await expect(page.get_by_label("Title")).to_have_value("Bees write")
    await expect(page.locator(".estimate-head strong")).to_have_text("37.5 k")

    # the estimate follows what is typed, and says what to mend when it cannot
    await page.get_by_label("Grid of experts in each layer").fill("8 x 8")
    await expect(page.locator(".estimate-head strong")).to_have_text("289 k")
    await page.get_by_label("Attention heads").fill("5")
    await expect(page.locator("size-estimate")).to_contain_text("Look at: Attention heads")
    await shoot(page, "organize-new")

    # every error beside its field, nothing typed is lost
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page.get_by_role("alert")).to_contain_text("2 things to mend")
    await expect(page.locator(".form-cell", has=page.get_by_label("Short name"))).to_contain_text("Small letters, digits")
    await expect(page.locator(".form-cell", has=page.get_by_label("Attention heads"))).to_contain_text(
        "Width 32 is not a multiple of attention heads 5"
    )
    await expect(page.get_by_label("Grid of experts in each layer")).to_have_value("8 x 8")
    complaints.found[:] = [c for c in complaints.found if "400" not in c]
    await shoot(page, "organize-errors")
    await page.get_by_label("Short name").fill("bees")
    await page.get_by_label("Attention heads").fill("4")
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page).to_have_url(f"{site.url}/experiments/bees/edit/")
    await shoot(page, "organize-draft")

    await page.get_by_role("button", name="Open it to agents").click()
    await expect(page.locator(".eyebrow")).to_contain_text("revision 1")
    await page.get_by_label("Learning rate of the trunk").fill("0.005")
    await page.get_by_label("What it is about").fill("Bees.\nThey write.")
    await page.get_by_role("button", name="Check").last.click()
    await expect(page.locator("ins")).to_have_text(["after: Bees.", "after: They write.", "after: 0.005"])
    await shoot(page, "organize-check")
    await page.get_by_role("button", name="Publish revision 2").click()
    await expect(page.get_by_role("heading", name="Revision 2")).to_be_visible()
    await shoot(page, "organize-revision")
    await page.get_by_role("navigation", name="Bees write").get_by_role("link", name="Revisions").click()
    await shoot(page, "organize-revisions")
    await page.get_by_role("navigation", name="Bees write").get_by_role("link", name="People").click()
    await shoot(page, "organize-people")
    await page.goto(f"{site.url}/organize/")
    await shoot(page, "organize-mine")


async def test_what_was_typed_outlives_a_sign_in_that_ran_out(site: Site, page: Page) -> None:
    email = make_account(site, "Alice")
    await sign_in(site, page, email)
    await page.goto(f"{site.url}/organize/new/")
    await page.get_by_label("Title").fill("Patient bees")
    await page.get_by_label("What it is about").fill("They wait.")
    await page.get_by_label("Whoever has an invitation link").check()
    await page.get_by_label("Grid of experts in each layer").fill("2 x 3")
    await page.context.clear_cookies(name=re.compile("session"))
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page).to_have_url(f"{site.url}/accounts/login/?next=/organize/new/")
    await page.get_by_label("Email").fill(email)
    await page.get_by_label("Password", exact=True).fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(f"{site.url}/organize/new/")
    await expect(page.locator("kept-fields")).to_contain_text("Nothing of it is saved yet")
    await expect(page.get_by_label("Title")).to_have_value("Patient bees")
    await expect(page.get_by_label("What it is about")).to_have_value("They wait.")
    await expect(page.get_by_label("Whoever has an invitation link")).to_be_checked()
    await expect(page.get_by_label("Grid of experts in each layer")).to_have_value("2 x 3")
    await expect(page.locator("size-estimate")).to_contain_text("6.1 MB")  # of 12 experts, not of a new form's 32
    await shoot(page, "organize-kept")
    await page.get_by_label("Short name").fill("patient-bees")
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page).to_have_url(f"{site.url}/experiments/patient-bees/edit/")
    await expect(page.locator("kept-fields")).to_be_hidden()


async def test_the_form_works_without_javascript(site: Site, browser: Browser, complaints: Complaints) -> None:
    email = make_account(site, "Alice")
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    complaints.watch(page)
    await sign_in(site, page, email)
    await page.goto(f"{site.url}/organize/new/?preset=gpt-crowd")
    await page.get_by_label("Short name").fill("quiet-bees")
    await page.get_by_label("Title").fill("Quiet bees")
    await page.get_by_label("Grid of experts in each layer").fill("8, 8")
    await page.get_by_role("button", name="Check").last.click()
    await expect(page.locator(".estimate-head strong")).to_have_text("4.30 M")
    await expect(page.get_by_role("status")).to_contain_text("Everything fits together")
    await page.get_by_role("button", name="Save the draft").click()
    await expect(page.locator("h1")).to_have_text("Quiet bees")
    await context.close()
    assert not complaints.found


async def test_the_form_shows_what_belongs_to_the_chosen_kind(site: Site, page: Page, complaints: Complaints) -> None:
    await sign_in(site, page, make_account(site, "Alice"))
    await page.goto(f"{site.url}/organize/new/")
    await page.get_by_role("button", name="digits").click()
    await expect(page.get_by_label("Side of a patch")).to_be_visible()
    await expect(page.get_by_label("Vocabulary")).to_be_hidden()
    await expect(page.get_by_label("SHA-256 of the file")).to_be_hidden()
    await expect(page.locator(".estimate-body")).to_contain_text("Traffic per image")
    await shoot(page, "organize-digits")
    await page.get_by_label("A GPT, which learns to write").check()
    await expect(page.get_by_label("Side of a patch")).to_be_hidden()
    await expect(page.locator(".estimate-body")).to_contain_text("Look at: Data to learn from")
    await page.get_by_label("The Python standard library").check()
    await expect(page.locator(".estimate-body")).to_contain_text("Traffic per token")
