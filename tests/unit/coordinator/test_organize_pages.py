"""Organizers' pages, as the server sends them. Alice organizes, Bob helps her, Charlie is a stranger."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from msgspec.structs import replace

from coordinator.accounts.actions import link_machine, make_token
from coordinator.accounts.models import User
from coordinator.admission.models import Membership
from coordinator.experiments import actions, schema, views
from coordinator.experiments.models import Experiment, ManifestRevision, Role
from coordinator.experiments.presets import PRESETS

from .conftest import SMALL, signed_in

pytestmark = pytest.mark.django_db
BEES = replace(SMALL, name="bees", title="Bees")
TEXTS = schema.write(BEES)


@pytest.fixture
def alice_browser(organizer: User) -> Client:
    return signed_in(organizer)


@pytest.fixture
def bees(organizer: User) -> Experiment:
    """Alice's open experiment."""
    experiment = actions.create(BEES, organizer)
    actions.set_status(experiment, "open", organizer)
    return Experiment.objects.get(pk=experiment.pk)


def html(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:2000]
    return str(response.content.decode())


def field(page: str, path: str) -> str:
    """The part of the page between one field's beginning and the next's."""
    start = page.index(f'name="{path}"')
    begin = page.rindex('<div class="field', 0, start)
    end = page.find('<div class="form-cell', start)
    return page[begin : end if end > 0 else None]


# The list


def test_mine(alice_browser: Client, bees: Experiment, organizer: User, volunteer: User) -> None:
    actions.create(replace(BEES, name="later", title="Later"), organizer)
    actions.create(replace(BEES, name="his", title="His"), volunteer)
    page = html(alice_browser.get("/organize/"))
    assert page.index(">Bees<") < page.index(">Later<") and "His" not in page
    assert "revision 1 of" in page and "Peers now" in page


def test_mine_counts_what_a_model_learns_from(alice_browser: Client, organizer: User) -> None:
    actions.set_status(actions.create(PRESETS["digits"], organizer), "open", organizer)
    page = html(alice_browser.get("/organize/"))
    assert "<dt>Images</dt>" in page and "<dt>Tokens</dt>" not in page


def test_mine_when_there_is_nothing(alice_browser: Client) -> None:
    assert "You organize nothing yet" in html(alice_browser.get("/organize/"))


def test_where_i_take_part(bees: Experiment, volunteer: User) -> None:
    Membership.objects.create(experiment=bees, user=volunteer, standing="admitted")
    page = html(signed_in(volunteer).get("/organize/"))
    assert "/experiments/bees/join/" in page and "/experiments/bees/edit/" not in page


def test_the_list_costs_few_queries(alice_browser: Client, organizer: User, django_assert_max_num_queries: Any) -> None:
    for i in range(12):
        actions.create(replace(BEES, name=f"bees{i}"), organizer)
    with django_assert_max_num_queries(8):
        alice_browser.get("/organize/")


# The form


def test_a_new_form_begins_with_the_defaults_or_a_preset(alice_browser: Client) -> None:
    page = html(alice_browser.get("/organize/new/"))
    assert 'value="64"' in field(page, "model.gpt.d_model") and 'value=""' not in field(page, "name")
    page = html(alice_browser.get("/organize/new/?preset=medium"))
    assert 'value="512"' in field(page, "model.gpt.d_model") and 'value="16"' in field(page, "training.batch_size")
    assert html(alice_browser.get("/organize/new/?preset=nonsense"))


def test_a_preset_keeps_what_else_was_typed(alice_browser: Client) -> None:
    page = html(alice_browser.post("/organize/new/", {**TEXTS, "title": "Mine", "rules.lease_s": "77", "preset": "tiny"}))
    assert 'value="Mine"' in field(page, "title") and 'value="77"' in field(page, "rules.lease_s")
    assert 'value="32"' in field(page, "model.gpt.d_model")
    assert not Experiment.objects.exists()


def test_the_preset_of_digits_brings_its_data_and_others_take_it_away(alice_browser: Client) -> None:
    def data(page: str) -> str:
        found = re.search(r'name="data.kind" value="([a-z-]+)"[^>]*checked', page)
        assert found
        return found[1]

    assert data(html(alice_browser.get("/organize/new/?preset=digits"))) == "digits"
    page = html(alice_browser.post("/organize/new/", {**TEXTS, "preset": "digits"}))
    assert data(page) == "digits" and re.search(r'name="model.kind" value="image-classifier"[^>]*checked', page)
    assert "A patch passes through" in page and "Traffic per image" in page and "Images a second" in page
    chosen = {**TEXTS, "data.kind": "digits", "model.kind": "image-classifier"}
    assert "Everything fits together" in html(alice_browser.post("/organize/new/", {**chosen, "check": "1"}))
    assert data(html(alice_browser.post("/organize/new/", {**chosen, "preset": "tiny"}))) == "python-stdlib"
    assert data(html(alice_browser.post("/organize/new/", {**TEXTS, "data.kind": "text", "preset": "tiny"}))) == "text"


def test_checking_saves_nothing_and_counts(alice_browser: Client) -> None:
    page = html(alice_browser.post("/organize/new/", {**TEXTS, "check": "1"}))
    assert "Everything fits together" in page and not Experiment.objects.exists()


def test_saving_makes_a_draft_of_ones_own(alice_browser: Client, organizer: User) -> None:
    response = alice_browser.post("/organize/new/", {**TEXTS, "save": "1"})
    assert response.headers["Location"] == "/experiments/bees/edit/"
    found = Experiment.objects.get()
    assert (found.status, found.planned) == ("draft", BEES)
    assert Role.objects.get().user == organizer
    page = html(alice_browser.get("/experiments/bees/edit/"))
    assert "Open it to agents" in page and "Save the draft" in page


def test_every_error_stands_beside_its_field_and_nothing_typed_is_lost(alice_browser: Client) -> None:
    evil = {
        "name": "No good",
        "title": '"><script>alert(1)</script>',
        "model.gpt.heads": "5",
        "training.learning_rate": "fast",
        "bootstrap": "ws://here\nhttp://there",
        "ice_servers": "stun:fine:1\nftp:wrong",
        "rules.lease_s": "-1",
    }
    page = html(alice_browser.post("/organize/new/", {**TEXTS, **evil, "save": "1"}), 400)
    assert "6 things to mend" in page and "<script>alert" not in page
    assert "Small letters, digits" in field(page, "name") and 'value="No good"' in field(page, "name")
    assert "not a multiple of attention heads 5" in field(page, "model.gpt.heads") and 'value="5"' in field(
        page, "model.gpt.heads"
    )
    assert "A number above 0" in field(page, "training.learning_rate") and 'value="fast"' in page
    assert "Line 1:" in field(page, "bootstrap") and "ws://here\nhttp://there" in page
    assert "Line 2:" in field(page, "ice_servers") and 'value="-1"' in field(page, "rules.lease_s")
    assert re.search(r'<details class="form-part fine"\s+open>', page), "what is wrong is not folded away"
    assert 'aria-invalid="true"' in field(page, "name")
    assert not Experiment.objects.exists()


def test_a_name_that_is_taken_is_told_beside_the_name(alice_browser: Client, volunteer: User) -> None:
    actions.create(BEES, volunteer)
    page = html(alice_browser.post("/organize/new/", {**TEXTS, "save": "1"}), 400)
    assert "called bees already" in field(page, "name") and 'value="Bees"' in field(page, "title")


def test_an_empty_post_is_answered_with_errors(alice_browser: Client) -> None:
    assert "things to mend" in html(alice_browser.post("/organize/new/", {}), 400)


def test_the_name_is_fixed_once_agents_know_it(alice_browser: Client, bees: Experiment) -> None:
    page = html(alice_browser.get("/experiments/bees/edit/"))
    assert 'name="name"' not in page
    alice_browser.post("/experiments/bees/edit/", {**TEXTS, "name": "wasps", "title": "Two", "base": "1", "save": "1"})
    assert Experiment.objects.get().name == "bees" and Experiment.objects.get().title == "Two"


def test_checking_shows_what_the_next_revision_would_change(alice_browser: Client, bees: Experiment) -> None:
    page = html(alice_browser.post("/experiments/bees/edit/", {**TEXTS, "model.gpt.layers": "2", "base": "1", "check": "1"}))
    assert "What revision 2 would change" in page and "starts anew" in page and "A clone under another name" in page
    assert ManifestRevision.objects.count() == 1


def test_publishing_leads_to_the_difference(alice_browser: Client, bees: Experiment) -> None:
    response = alice_browser.post("/experiments/bees/edit/", {**TEXTS, "title": "New", "base": "1", "save": "1"})
    assert response.headers["Location"] == "/experiments/bees/revisions/2/"
    page = html(alice_browser.get("/experiments/bees/revisions/2/"))
    assert "Since revision 1" in page and "<ins>" in page and "Bees" in page and "New" in page and "at once" in page
    page = html(alice_browser.get("/experiments/bees/revisions/1/"))
    assert "All of it" in page
    page = html(alice_browser.get("/experiments/bees/revisions/1/?against=2"))
    assert "Since revision 2" in page
    for path in ("/experiments/bees/revisions/3/", "/experiments/bees/revisions/2/?against=9"):
        assert alice_browser.get(path).status_code == 404
    page = html(alice_browser.get("/experiments/bees/revisions/"))
    assert page.index("/revisions/2/") < page.index("/revisions/1/") and "Alice" in page


def test_two_at_work_at_once(alice_browser: Client, bees: Experiment, volunteer: User) -> None:
    Role.objects.create(experiment=bees, user=volunteer, kind="co-organizer")
    bob = signed_in(volunteer)
    bob.post("/experiments/bees/edit/", {**TEXTS, "title": "Bob's", "base": "1", "save": "1"})
    mine = {**TEXTS, "title": "Alice's", "save": "1"}
    page = html(alice_browser.post("/experiments/bees/edit/", {**mine, "base": "1"}), 400)
    assert "Revision 2 was published while you were at work" in page and "Alice&#x27;s" in page and "Bob&#x27;s" in page
    assert 'name="base" value="2"' in page
    alice_browser.post("/experiments/bees/edit/", {**mine, "base": "2"})
    assert Experiment.objects.get().title == "Alice's"


@pytest.mark.parametrize("base", ["", "x", "²", "99999999999999999999"])
def test_a_broken_base_publishes_nothing(alice_browser: Client, bees: Experiment, base: str) -> None:
    html(alice_browser.post("/experiments/bees/edit/", {**TEXTS, "title": "X", "base": base, "save": "1"}), 400)
    assert ManifestRevision.objects.count() == 1


def test_nothing_changed(alice_browser: Client, bees: Experiment) -> None:
    alice_browser.post("/experiments/bees/edit/", {**TEXTS, "base": "1", "save": "1"})
    assert ManifestRevision.objects.count() == 1
    assert "Nothing differs" in html(alice_browser.get("/experiments/bees/edit/"))


def test_clone(alice_browser: Client, bees: Experiment, stranger: User) -> None:
    page = html(alice_browser.get("/organize/new/?clone=bees"))
    assert 'value="Bees, again"' in field(page, "title") and 'value="2 × 2"' in field(page, "model.gpt.grid")
    assert html(signed_in(stranger).get("/organize/new/?clone=bees")), "what is published may be cloned by anybody"
    assert alice_browser.get("/organize/new/?clone=nope").status_code == 404


def test_another_ones_draft_cannot_be_cloned(organizer: User, stranger: User) -> None:
    actions.create(BEES, organizer)
    assert signed_in(stranger).get("/organize/new/?clone=bees").status_code == 404
    assert signed_in(organizer).get("/organize/new/?clone=bees").status_code == 200


def test_a_draft_has_no_revisions_yet(alice_browser: Client, organizer: User) -> None:
    actions.create(BEES, organizer)
    assert "Nothing is published yet" in html(alice_browser.get("/experiments/bees/revisions/"))


# The estimate


def test_the_estimate_is_computed_by_the_server(alice_browser: Client) -> None:
    page = html(alice_browser.post("/organize/estimate/", {**TEXTS, "name": "", "title": "", "bootstrap": "nonsense"}))
    assert "parameters" in page and "<html" not in page and 'title="167296"' not in page
    assert "Memory per expert" in page and "Traffic per token" in page
    page = html(alice_browser.post("/organize/estimate/", {**TEXTS, "model.gpt.heads": "", "training.batch_size": "x"}))
    assert "Look at: Attention heads, Sequences per batch" in page


def test_an_estimate_of_nothing_is_of_the_defaults(alice_browser: Client) -> None:
    assert "parameters" in html(alice_browser.post("/organize/estimate/", {}))


def test_estimates_are_limited(alice_browser: Client, organizer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from coordinator.limits import KeyedBuckets

    monkeypatch.setattr(views, "_estimates", KeyedBuckets(per_s=0.0, burst=1, keys_max=10))
    assert alice_browser.post("/organize/estimate/", TEXTS).status_code == 200
    assert alice_browser.post("/organize/estimate/", TEXTS).status_code == 429


# Statuses, archive, deletion


def test_from_draft_to_archive(alice_browser: Client, organizer: User) -> None:
    actions.create(BEES, organizer)
    for status in ("open", "paused", "open", "finished"):
        assert alice_browser.post("/experiments/bees/status/", {"status": status}).status_code == 302
        assert Experiment.objects.get().status == status
    page = html(alice_browser.get("/experiments/bees/edit/"))
    assert "Clone it" in page and "Publish revision" not in page
    alice_browser.post("/experiments/bees/archive/", {"away": "1"})
    assert "In the archive" in html(alice_browser.get("/organize/"))
    assert "Bees" not in html(Client().get("/")) and Client().get("/experiments/bees/").status_code == 200
    alice_browser.post("/experiments/bees/archive/", {"away": "0"})
    assert "Bees" in html(Client().get("/"))


def test_what_cannot_be_done_is_said(alice_browser: Client, bees: Experiment) -> None:
    for path, data, says in (
        ("status", {"status": "open"}, "cannot become open"),
        ("status", {}, "cannot become"),
        ("archive", {"away": "1"}, "Only what is finished"),
        ("delete", {}, "not deleted"),
    ):
        page = html(alice_browser.post(f"/experiments/bees/{path}/", data, follow=True))
        assert says in page


def test_a_draft_is_deleted_by_its_owner_only(organizer: User, volunteer: User) -> None:
    experiment = actions.create(BEES, organizer)
    Role.objects.create(experiment=experiment, user=volunteer, kind="co-organizer")
    bob = signed_in(volunteer)
    assert "Delete" not in html(bob.get("/experiments/bees/edit/"))
    assert bob.post("/experiments/bees/delete/").status_code == 404
    assert signed_in(organizer).post("/experiments/bees/delete/").status_code == 302
    assert not Experiment.objects.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/experiments/bees/edit/",
        "/experiments/bees/revisions/",
        "/experiments/bees/revisions/20/",
        "/experiments/bees/revisions/20/?against=3",
        "/account/tokens/",
        "/account/machines/",
    ],
)
def test_pages_cost_few_queries_whatever_the_history(
    alice_browser: Client, bees: Experiment, organizer: User, path: str, django_assert_max_num_queries: Any
) -> None:
    for i in range(1, 30):
        actions.revise(Experiment.objects.get(), replace(BEES, title=f"Bees {i}"), organizer, base=i)
        if i < 15:
            make_token(organizer, f"token {i}", ["join"])
            link_machine(organizer, f"{'a' * 50}{i:02}", "machine", timezone.now())
    with django_assert_max_num_queries(9):
        assert alice_browser.get(path).status_code == 200
