"""Publishing: every change is a new signed revision, seeding twice changes nothing."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from agent.errors import ManifestRejected
from agent.identity import Identity
from agent.manifest import decode_signed
from coordinator.experiments.actions import publish, seed
from coordinator.experiments.models import Experiment, ManifestRevision
from coordinator.experiments.presets import GPT_CROWD

from .conftest import SMALL

pytestmark = pytest.mark.django_db


def test_a_change_is_a_new_revision_and_no_change_is_none() -> None:
    first = publish(SMALL)
    assert publish(SMALL).pk == first.pk
    second = publish(msgspec.structs.replace(SMALL, title="Better", status="paused"))
    assert [r.revision for r in ManifestRevision.objects.order_by("revision")] == [1, 2]
    experiment = Experiment.objects.get()
    assert (experiment.title, experiment.status, experiment.manifest.title) == ("Better", "paused", "Better")
    assert decode_signed(second.signed_json).open(revision_min=2).title == "Better"
    assert first.manifest.title == SMALL.title


def test_what_does_not_validate_is_not_published() -> None:
    with pytest.raises(ManifestRejected):
        publish(msgspec.structs.replace(SMALL, title=""))
    assert not Experiment.objects.exists()


def test_revisions_are_unique_and_states_are_known() -> None:
    revision = publish(SMALL)
    with pytest.raises(IntegrityError):
        ManifestRevision.objects.create(experiment=revision.experiment, revision=1, payload=b"", signature=b"", key="")


def test_states_are_known() -> None:
    with pytest.raises(IntegrityError):
        Experiment.objects.create(name="x", title="x", status="dancing")


def test_drafts_are_not_visible(draft: Experiment) -> None:
    assert not Experiment.objects.visible_to().exists()
    assert not Experiment.objects.visible_to(None).exists()


def test_seeding_is_idempotent_and_leaves_changes_alone() -> None:
    assert seed(GPT_CROWD)[1]
    assert not seed(GPT_CROWD)[1]
    publish(msgspec.structs.replace(GPT_CROWD, title="By its organizer"))
    assert not seed(GPT_CROWD)[1]
    assert Experiment.objects.get().manifest.title == "By its organizer"
    assert seed(GPT_CROWD, update=True)[1]
    assert Experiment.objects.get().manifest.title == GPT_CROWD.title


def test_a_lost_key_signs_the_newest_content_again() -> None:
    publish(msgspec.structs.replace(GPT_CROWD, title="Ours"), identity=Identity.generate())
    revision, new = seed(GPT_CROWD)
    assert new and revision.revision == 2 and revision.manifest.title == "Ours"


def test_the_command(tmp_path: Path) -> None:
    said = StringIO()
    call_command("seed_experiment", "gpt-crowd", stdout=said)
    call_command("seed_experiment", stdout=said)
    assert said.getvalue().splitlines() == ["gpt-crowd: revision 1 published", "gpt-crowd: revision 1 is already there"]
    file = tmp_path / "manifest.json"
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(SMALL, name="mine")))
    call_command("seed_experiment", manifest=file, stdout=said)
    assert Experiment.objects.filter(name="mine").exists()


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"name": 5}')
    for kwargs, words in (
        ({"name": "nope"}, "there is no preset 'nope'"),
        ({"manifest": tmp_path / "absent.json"}, "cannot read"),
        ({"manifest": bad}, "the manifest is not valid"),
    ):
        with pytest.raises(CommandError, match=words):
            call_command("seed_experiment", **kwargs)  # type: ignore[arg-type]
