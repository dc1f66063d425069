"""The manifest's schema as form fields: texts in, a manifest or all reasons out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as shape

from agent.manifest import Digits, GPTModel, IceServer, ImageClassifier, Manifest, TextFile
from coordinator.experiments import schema, words

ADDRESS = f"ws://192.0.2.1:4000/{'a' * 52}"
FULL = Manifest(
    name="bees",
    revision=1,
    title="Bees",
    description="They write.\nA lot.",
    admission="invite",
    model=GPTModel(grid=(3, 4, 5), k_best=3),
    data=TextFile(sha256="0" * 64),
    bootstrap=(ADDRESS, ADDRESS.replace("ws", "wss", 1)),
    ice_servers=(IceServer(urls="stun:stun.example.org:3478"), IceServer(urls="turn:t:1", username="u", credential="p")),
)


def test_what_is_written_reads_back() -> None:
    assert schema.read(schema.write(FULL)).manifest == FULL
    assert schema.read(schema.write(FULL), revision=7, status="paused").manifest == msgspec.structs.replace(
        FULL, revision=7, status="paused"
    )


def test_every_value_of_the_manifest_is_a_leaf() -> None:
    """A field that the schema gains appears in the form by itself."""

    def count(value: Any) -> int:
        if isinstance(value, dict):
            return sum(count(v) for v in value.values())
        return 1

    tree = msgspec.to_builtins(Manifest(name="x", revision=1, title="x"))
    other_kinds = sum(len(kind.__struct_fields__) for kind in (TextFile, Digits, ImageClassifier))
    assert len(schema.leaves()) == count(tree) - len(schema.SET_ELSEWHERE) + other_kinds


def test_every_pattern_and_every_field_has_words() -> None:
    for each in schema.leaves():
        infos = [each.info, getattr(each.info, "item_type", None)]
        for info in infos:
            if isinstance(info, shape.StrType) and info.pattern:
                assert info.pattern in schema.PATTERNS, each.path
        assert each.words in words.LABELS, each.path
        assert set(words.CHOICES.get(each.words, {})) <= set(each.choices)


def test_a_field_that_nobody_described_shows_its_own_name() -> None:
    assert words.label("Outer.nesterov_momentum") == "Nesterov momentum"
    assert words.choices("Outer.kind", ("b", "a")) == [("b", "b"), ("a", "a")]


@pytest.mark.parametrize(
    ("path", "text", "says"),
    [
        ("name", "Bees!", "Small letters, digits and hyphens between them; at most 63."),
        ("name", "-bees", "Small letters"),
        ("title", "", "1 to 120 characters."),
        ("title", "x" * 121, "1 to 120 characters."),
        ("description", "x" * 4001, "At most 4000 characters."),
        ("description", "x" * (schema.TEXT_CHARS_MAX + 1), "At most 32768 characters."),
        ("seed", "-1", "A whole number of at least 0 and below 2,147,483,648."),
        ("seed", "1.5", "A whole number"),
        ("model.gpt.layers", "", "A whole number from 1 to 128."),
        ("model.gpt.layers", "many", "A whole number from 1 to 128."),
        ("model.gpt.grid", "", "1 to 4 numbers."),
        ("model.gpt.grid", "1 2 3 4 5", "1 to 4 numbers."),
        ("model.gpt.grid", "4 × 257", "A whole number from 1 to 256."),
        ("model.gpt.heads", "5", "Width 64 is not a multiple of attention heads 5."),
        ("model.gpt.k_best", "61", "Experts per token 61 is more than the 60 experts of a layer."),
        ("model.gpt.grid", "256 × 256", "65,536 that are allowed"),
        ("model.gpt.vocabulary", "255", "less than the 256 values of a byte"),
        ("training.learning_rate", "0", "A number above 0 and at most 10."),
        ("training.learning_rate", "nan", "A number above 0 and at most 10."),
        ("training.learning_rate", "inf", "A number above 0 and at most 10."),
        ("training.wire_dtype", "int8", "Choose one of these."),
        ("admission", "", "Choose one of these."),
        ("data.kind", "url", "Choose one of these."),
        ("data.text.sha256", "abc", "64 digits"),
        ("bootstrap", f"{ADDRESS}\nhttp://x", "Line 2: ws://host:port/PEERID"),
        ("bootstrap", "\n".join([ADDRESS] * 65), "At most 64 lines."),
        ("ice_servers", "http://x", "Line 1: stun:host:port"),
        ("ice_servers", "turn:t:1 user password more", "Line 1: At most 3 parts"),
    ],
)
def test_a_bad_text_is_told_beside_its_field_only(path: str, text: str, says: str) -> None:
    reading = schema.read(schema.write(FULL) | {path: text})
    assert reading.manifest is None
    assert list(reading.errors) == [path] and says in reading.errors[path][0]


def test_all_errors_come_at_once() -> None:
    reading = schema.read({})
    required = {each.path for each in schema.leaves() if not each.variant}
    assert set(reading.errors) == required - {"description", "bootstrap", "ice_servers"}


def test_kinds_that_are_not_chosen_are_not_read() -> None:
    texts = schema.write(FULL) | {"data.kind": "python-stdlib", "data.text.sha256": "nonsense"}
    assert schema.read(texts).manifest is not None


CLASSIFIER = Manifest(
    name="d", revision=1, title="D", model=ImageClassifier(grid=(3,), patch=2), data=Digits(validation_share=0.1)
)


def test_a_classifier_is_read_and_written_like_a_gpt() -> None:
    texts = schema.write(CLASSIFIER)
    assert (texts["model.kind"], texts["model.image-classifier.patch"], texts["data.kind"]) == ("image-classifier", "2", "digits")
    assert schema.read(texts).manifest == CLASSIFIER
    reading = schema.read(texts | {"model.image-classifier.heads": "5"})
    assert reading.errors == {"model.image-classifier.heads": ["Width per patch 32 is not a multiple of heads of attention 5."]}


def test_a_model_and_data_that_do_not_fit_are_told_beside_the_data() -> None:
    reading = schema.read(schema.write(CLASSIFIER) | {"data.kind": "python-stdlib"})
    assert list(reading.errors) == ["data.kind"] and "learns from images" in reading.errors["data.kind"][0]
    reading = schema.read(schema.write(FULL) | {"data.kind": "digits"})
    assert list(reading.errors) == ["data.kind"] and "learns from text" in reading.errors["data.kind"][0]


@pytest.mark.parametrize("text", ["3 × 4", "3x4", "3, 4", " 3*4 ", "3;4"])
def test_a_grid_may_be_typed_in_many_ways(text: str) -> None:
    assert schema.leaf("model.gpt.grid").read(text) == (3, 4)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([each.path for each in schema.leaves()]), st.text(max_size=40), max_size=6))
def test_any_text_gives_a_manifest_that_reads_back_or_an_error_of_a_field(texts: dict[str, str]) -> None:
    reading = schema.read(schema.write(FULL) | texts)
    if reading.manifest is not None:
        assert schema.read(schema.write(reading.manifest)).manifest == reading.manifest
    else:
        assert reading.errors and set(reading.errors) <= {each.path for each in schema.leaves()}
