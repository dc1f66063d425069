from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import PROTOCOL_VERSION, errors
from agent.cli import main as module
from agent.cli.main import VERBS, exit_codes, main
from agent.errors import HiveError


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HIVE_CONFIG", "/dev/null")


def test_help_names_every_verb_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    own = {k.exit_code for k in vars(errors).values() if isinstance(k, type) and issubclass(k, HiveError)}
    assert own <= {code for code, _, _ in exit_codes()}
    assert len({code for code, _, _ in exit_codes()}) == len(exit_codes()), "an exit code has two meanings"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert "example: hive-agent " + verb in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jion"], "did you mean join?"),
        (["join", "gpt-crowd", "--coordinater", "x"], "did you mean --coordinator?"),
        (["join"], "which experiment?"),
        (["--threads", "0", "--experiment", "x"], "--threads must be a whole number"),
        (["--experimnt", "x"], "did you mean --experiment?"),
        (["join", "a", "--experiment", "b"], "two experiments"),
        (["join", "a", "b"], "not understood"),
        (["join", "--threads"], "expected one argument"),
        (["join", "x", "--role", "boss"], "--role must be"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.startswith("hive-agent: ") and err.count("\n") == 1


def test_identity_is_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        assert main(["identity", "--json"]) == 0
        seen.append(json.loads(capsys.readouterr().out))
    assert seen[0] == seen[1] and len(seen[0]["peer"]) == 52
    assert (tmp_path / "identity.key").stat().st_mode & 0o777 == 0o600


def test_unusable_key_file_is_exit_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_text("nonsense")
    (tmp_path / "identity.key").chmod(0o600)
    assert main(["identity"]) == 3
    assert "not a Hive key file" in capsys.readouterr().err


def test_config_shows_values_and_sources(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "--threads", "2", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["threads"] == {"value": "2", "source": "flag"}
    assert body["state_dir"] == {"value": str(tmp_path), "source": "HIVE_STATE_DIR"}
    assert main(["config"]) == 0
    assert "coordinator      http://127.0.0.1:8000  (default)" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert f"hive-agent 0.1.0\nprotocol {PROTOCOL_VERSION}\n" in capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["aiortc"] != "missing"


def test_interruption_has_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(argv: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "dispatch", interrupted)
    assert main([]) == 130
