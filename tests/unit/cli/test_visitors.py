"""Arguments and refusals of the verbs that use a crowd's model, and how text is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent.cli.generate import PROMPT_BYTES_MAX, stream
from agent.cli.main import main
from agent.identity import Identity
from agent.manifest import Digits, ImageClassifier, Manifest, sign
from tests.unit.cli.answers import last_line

pytestmark = pytest.mark.usefixtures("surroundings")

SIGNER = Identity.from_seed(b"\1" * 32)
Answer = Callable[[int, bytes], None]


def publish(site: Answer, manifest: Manifest) -> None:
    site(200, msgspec.json.encode(sign(manifest, SIGNER)))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "gpt-crowd"], "--prompt"),
        (["generate", "gpt-crowd", "--prompt", ""], f"1 to {PROMPT_BYTES_MAX} bytes"),
        (["generate", "gpt-crowd", "--prompt", "ä" * (PROMPT_BYTES_MAX // 2 + 1)], f"1 to {PROMPT_BYTES_MAX} bytes"),
        (["generate", "gpt-crowd", "--prompt", "x", "--length", "0"], "a whole number from 1 to 100000, not '0'"),
        (["generate", "gpt-crowd", "--prompt", "x", "--length", "100001"], "a whole number from 1 to 100000"),
        (["generate", "gpt-crowd", "--prompt", "x", "--temperature", "nan"], "a number from 0 to 10, not 'nan'"),
        (["generate", "gpt-crowd", "--prompt", "x", "--temperature", "-0.1"], "a number from 0 to 10"),
        (["generate", "gpt-crowd", "--prompt", "x", "--temperature", "10.1"], "a number from 0 to 10"),
        (["generate", "gpt-crowd", "--prompt", "x", "--top-k", "0"], "a whole number from 1 to"),
        (["generate", "gpt-crowd", "--prompt", "x", "--seed", "-1"], "a whole number from 0 to"),
        (["generate", "--prompt", "x"], "which experiment?"),
        (["generate", "gpt-crowd", "--promt", "x"], "--prompt"),
        (["export", "gpt-crowd"], "--out"),
        (["export", "gpt-crowd", "--out", " "], "must be a path"),
        (["export", "--out", "x"], "which experiment?"),
        (["evaluate"], "which experiment?"),
        (["evaluate", "a", "--experiment", "b"], "two experiments"),
        (["evaluate", "gpt-crowd", "--max-experts", "3"], "not understood"),
        (["evaluate", "gpt-crowd", "--data", "/nowhere/text"], "there is no file"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in last_line(capsys)


@pytest.mark.parametrize("verb", [["evaluate"], ["generate", "--prompt", "x"], ["export", "--out", "x"]])
def test_trouble_with_the_site_has_the_codes_of_join(
    verb: list[str], site: Answer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [verb[0], "gpt-crowd", *verb[1:]]
    site(404, b'{"detail": "There is no experiment gpt-crowd."}')
    assert main(words) == 11
    assert "no experiment 'gpt-crowd'" in last_line(capsys)
    site(200, b"<html>")
    assert main(words) == 12
    monkeypatch.setenv("HIVE_COORDINATOR", "http://127.0.0.1:1")
    capsys.readouterr()
    assert main(words) == 10
    assert "does not answer" in last_line(capsys)


def test_who_may_not_take_part_may_not_use_the_model(site: Answer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    publish(site, Manifest(name="gpt-crowd", revision=1, title="GPT crowd", admission="invite"))
    assert main(["generate", "gpt-crowd", "--prompt", "x"]) == 14
    assert "admits by invitation" in last_line(capsys)
    assert (tmp_path / "visitor.key").exists() and not (tmp_path / "identity.key").exists()


def test_images_are_not_continued(site: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    publish(site, Manifest(name="digits", revision=1, title="Digits", model=ImageClassifier(), data=Digits()))
    assert main(["generate", "digits", "--prompt", "x"]) == 2
    said = last_line(capsys)
    assert "digits learns from images, and its model writes no text" in said and "hive-agent evaluate digits" in said


def test_a_file_that_is_there_is_not_replaced_unasked(site: Answer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    publish(site, Manifest(name="gpt-crowd", revision=1, title="GPT crowd"))
    out = tmp_path / "model.safetensors"
    out.write_text("mine")
    assert main(["export", "gpt-crowd", "--out", str(out)]) == 4
    assert "--force replaces it" in last_line(capsys) and out.read_text() == "mine"
    assert main(["export", "gpt-crowd", "--out", str(tmp_path / "no" / "such")]) == 4
    assert "cannot write to the directory" in last_line(capsys)


def test_a_state_directory_that_cannot_be_written_is_exit_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HIVE_STATE_DIR", str(tmp_path / "file"))
    assert main(["evaluate", "gpt-crowd"]) == 4
    assert "cannot write to" in last_line(capsys)


def shown_of(data: bytes, keep_going: Callable[[], bool] = lambda: True) -> list[str]:
    shown: list[str] = []
    assert stream(data, keep_going, shown.append) == "".join(shown)
    return [piece for piece in shown if piece]


def test_characters_are_shown_when_they_are_whole() -> None:
    assert shown_of("a€b".encode()) == ["a", "€", "b"]


def test_what_is_not_text_or_would_steer_the_terminal_is_replaced() -> None:
    assert "".join(shown_of(b"a\x1b[2J\xffb\n\xe2\x82")) == "a\ufffd[2J\ufffdb\n\ufffd"


def test_writing_stops_when_the_visit_is_over() -> None:
    assert shown_of(b"abc", lambda: False) == ["a"]
