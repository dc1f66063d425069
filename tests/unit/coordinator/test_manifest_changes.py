"""What differs between two manifests, and what it means for agents that run."""

from __future__ import annotations

from msgspec.structs import replace

from agent.manifest import GPTModel, IceServer, Manifest, PythonStdlib, TextFile, Training
from agent.revisions import needs_restart
from coordinator.experiments.changes import changes, lines, worst

BASE = Manifest(name="bees", revision=1, title="Bees", description="One.\nTwo.")


def test_equal_manifests_do_not_differ() -> None:
    assert changes(BASE, replace(BASE, revision=9)) == []
    assert worst([]) is None


def test_each_value_is_told_with_its_effect() -> None:
    after = replace(
        BASE, status="paused", title="Wasps", model=GPTModel(layers=3, k_best=3), training=Training(learning_rate=0.5)
    )
    found = {c.path: (c.before, c.after, c.effect) for c in changes(BASE, after)}
    assert found == {
        "status": ("open", "paused", "at once"),
        "title": ("Bees", "Wasps", "at once"),
        "model.gpt.layers": ("2", "3", "starts anew"),
        "model.gpt.k_best": ("2", "3", "after a restart"),
        "training.learning_rate": ("0.01", "0.5", "after a restart"),
    }
    assert worst(changes(BASE, after)) == "starts anew"


def test_what_needs_a_restart_is_what_agents_say_does() -> None:
    for after in (
        replace(BASE, title="x"),
        replace(BASE, admission="invite"),
        replace(BASE, seed=4),
        replace(BASE, training=Training(batch_size=9)),
        replace(BASE, data=TextFile()),
    ):
        assert bool(needs_restart(BASE, after)) == (worst(changes(BASE, after)) in ("after a restart", "starts anew"))
    assert worst(changes(BASE, replace(BASE, ice_servers=(IceServer(urls="stun:x"),)))) == "for newcomers"


def test_another_kind_shows_what_it_brings_and_takes_along() -> None:
    found = {c.path: (c.before, c.after) for c in changes(replace(BASE, data=PythonStdlib()), replace(BASE, data=TextFile()))}
    assert found == {
        "data.kind": ("python-stdlib", "text"),
        "data.python-stdlib.validation_share": ("0.05", None),
        "data.text.sha256": (None, ""),
        "data.text.validation_share": (None, "0.05"),
    }


def test_long_texts_differ_line_by_line() -> None:
    ((_, parts),) = lines(changes(BASE, replace(BASE, description="One.\nThree.")))
    assert parts == [("same", "One."), ("del", "Two."), ("ins", "Three.")]


def test_the_first_revision_is_all_new() -> None:
    assert all(c.before is None for c in changes(None, BASE))
