"""Drafts, revisions, statuses, archive: what may become of an experiment, and what may not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agent.errors import ManifestRejected
from agent.manifest import decode_signed
from coordinator.accounts.actions import delete_account
from coordinator.accounts.models import User
from coordinator.experiments import actions, queries
from coordinator.experiments.actions import Refused, Stale
from coordinator.experiments.models import Experiment, ManifestRevision, Role

from .conftest import SMALL

pytestmark = pytest.mark.django_db
BEES = replace(SMALL, name="bees", title="Bees")


@pytest.fixture
def bees(organizer: User) -> Experiment:
    return actions.create(BEES, organizer)


def again(experiment: Experiment) -> Experiment:
    return Experiment.objects.get(pk=experiment.pk)


def test_a_draft_is_kept_and_signed_by_nobody(bees: Experiment, organizer: User) -> None:
    assert again(bees).planned == BEES and not ManifestRevision.objects.exists()
    assert not Experiment.objects.visible_to().exists()
    assert list(Experiment.objects.owned_by(organizer)) == [bees]


def test_a_name_is_taken_once(bees: Experiment, volunteer: User) -> None:
    with pytest.raises(Refused, match="called bees already"):
        actions.create(BEES, volunteer)
    other = actions.create(replace(BEES, name="wasps"), volunteer)
    with pytest.raises(Refused, match="called bees already"):
        actions.save_draft(other, BEES)
    assert again(other).name == "wasps"


def test_how_many_one_may_own(organizer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "OWNED_MAX", 2)
    for i in range(2):
        actions.create(replace(BEES, name=f"bees{i}"), organizer)
    with pytest.raises(Refused, match="You own 2"):
        actions.create(BEES, organizer)
    Experiment.objects.filter(name="bees0").update(archived_at="2026-01-01T00:00Z")
    actions.create(BEES, organizer)


def test_a_draft_changes_with_its_name(bees: Experiment) -> None:
    actions.save_draft(bees, replace(BEES, name="wasps", title="Wasps"))
    found = again(bees)
    assert (found.name, found.title, found.planned.name) == ("wasps", "Wasps", "wasps")  # type: ignore[union-attr]


def test_the_life_of_an_experiment_is_a_chain_of_signed_revisions(bees: Experiment, organizer: User, volunteer: User) -> None:
    first = actions.set_status(bees, "open", organizer)
    assert (first.revision, first.author, again(bees).draft) == (1, organizer, None)
    second = actions.revise(again(bees), replace(BEES, title="Many bees"), volunteer, base=1)
    third = actions.set_status(bees, "paused", organizer)
    fourth = actions.set_status(bees, "open", organizer)
    fifth = actions.set_status(bees, "finished", organizer)
    for number, r in enumerate([first, second, third, fourth, fifth], 1):
        manifest = decode_signed(r.signed_json).open(name="bees", revision_min=number)
        assert manifest.revision == number
    assert [r.manifest.status for r in again(bees).revisions.order_by("revision")] == [
        "open",
        "open",
        "paused",
        "open",
        "finished",
    ]
    assert again(bees).title == "Many bees" and again(bees).status == "finished"
    steps = queries.history(again(bees))
    assert [[c.path for c in step.changes] for step in steps] == [["status"], ["status"], ["status"], ["title"], []]
    assert [s.revision.revision for s in queries.history(again(bees), limit=2, before=4)] == [3, 2]


def test_a_revision_keeps_name_and_status(bees: Experiment, organizer: User) -> None:
    actions.set_status(bees, "open", organizer)
    actions.set_status(bees, "paused", organizer)
    revision = actions.revise(again(bees), replace(BEES, name="other", status="open", title="X"), organizer, base=2)
    assert (revision.manifest.name, revision.manifest.status) == ("bees", "paused")


def test_who_publishes_what_they_have_not_seen_is_told(bees: Experiment, organizer: User, volunteer: User) -> None:
    actions.set_status(bees, "open", organizer)
    actions.revise(again(bees), replace(BEES, title="A"), organizer, base=1)
    with pytest.raises(Stale, match="Revision 2 was published while you were at work"):
        actions.revise(again(bees), replace(BEES, title="B"), volunteer, base=1)
    assert again(bees).title == "A"


def test_no_change_is_no_revision(bees: Experiment, organizer: User) -> None:
    actions.set_status(bees, "open", organizer)
    assert actions.revise(again(bees), BEES, organizer, base=1).revision == 1


def test_what_does_not_validate_is_not_published(bees: Experiment, organizer: User) -> None:
    actions.set_status(bees, "open", organizer)
    with pytest.raises(ManifestRejected):
        actions.revise(again(bees), replace(BEES, title=""), organizer, base=1)


@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        ([], "paused"),
        ([], "finished"),
        (["open"], "open"),
        (["open", "finished"], "open"),
        (["open", "finished"], "paused"),
        (["open"], "draft"),
        (["open"], "nonsense"),
    ],
)
def test_statuses_that_do_not_follow(bees: Experiment, organizer: User, way: list[str], wanted: str) -> None:
    for status in way:
        actions.set_status(bees, status, organizer)
    before = again(bees).status
    with pytest.raises(Refused, match="cannot become"):
        actions.set_status(bees, wanted, organizer)
    assert again(bees).status == before


def test_what_is_finished_stays_as_it_is(bees: Experiment, organizer: User) -> None:
    for status in ("open", "finished"):
        actions.set_status(bees, status, organizer)
    with pytest.raises(Refused, match="Clone it"):
        actions.revise(again(bees), replace(BEES, title="X"), organizer, base=2)
    with pytest.raises(Refused, match="opened meanwhile"):
        actions.save_draft(again(bees), BEES)


def test_an_empty_draft_cannot_be_opened(draft: Experiment, organizer: User) -> None:
    with pytest.raises(Refused, match="nothing to publish"):
        actions.set_status(draft, "open", organizer)


def test_revisions_are_bounded(bees: Experiment, organizer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "REVISIONS_MAX", 2)
    actions.set_status(bees, "open", organizer)
    actions.revise(again(bees), replace(BEES, title="A"), organizer, base=1)
    with pytest.raises(Refused, match="at most 2 revisions"):
        actions.revise(again(bees), replace(BEES, title="B"), organizer, base=2)


def test_only_what_is_finished_goes_into_the_archive(bees: Experiment, organizer: User) -> None:
    with pytest.raises(Refused, match="Only what is finished"):
        actions.archive(bees, away=True)
    for status in ("open", "finished"):
        actions.set_status(bees, status, organizer)
    actions.archive(bees, away=True)
    assert not Experiment.objects.listed().exists() and Experiment.objects.visible_to().exists()
    actions.archive(bees, away=False)
    assert Experiment.objects.listed().exists()


def test_only_drafts_are_deleted(bees: Experiment, organizer: User) -> None:
    other = actions.create(replace(BEES, name="other"), organizer)
    actions.set_status(bees, "open", organizer)
    with pytest.raises(Refused, match="not deleted"):
        actions.delete_draft(bees)
    actions.delete_draft(other)
    assert [e.name for e in Experiment.objects.all()] == ["bees"]


def test_revisions_outlive_their_authors(bees: Experiment, organizer: User) -> None:
    actions.set_status(bees, "open", organizer)
    delete_account(organizer)
    assert ManifestRevision.objects.get().author is None and not Role.objects.exists()
