from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent import config as module
from agent.config import BOOTSTRAPS_MAX, CONFIG_BYTES_MAX, Address, load
from agent.errors import ConfigError
from agent.identity import Identity

PEER = str(Identity.from_seed(b"\1" * 32).peer_id)
WS = f"ws://127.0.0.1:7700/{PEER}"


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platformdirs, "user_config_path", lambda name: tmp_path / "home-config" / name)
    monkeypatch.setattr(module.platformdirs, "user_state_path", lambda name: tmp_path / "home-state" / name)


def refused(flags: dict[str, Any], environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load({"experiment": "gpt-crowd", **flags}, environment or {})
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 400
    return sentence


def test_defaults_say_that_they_are_defaults(tmp_path: Path) -> None:
    config = load({"experiment": "gpt-crowd"}, {})
    assert config.described("coordinator") == "coordinator http://127.0.0.1:8000 (default)"
    assert config.described("experiment") == "experiment gpt-crowd (flag)"
    assert config.described("max_experts") == "max-experts auto (default)"
    assert config.key_file == tmp_path / "home-state" / "hive-agent" / "identity.key"
    assert config.experiment_dir == config.state_dir / "gpt-crowd"
    assert config.threads >= 1


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('threads = 3\nmax-experts = 5\ncoordinator = "https://file.example"\n')
    environment = {"HIVE_CONFIG": str(file), "HIVE_MAX_EXPERTS": "6", "HIVE_COORDINATOR": "https://variable.example"}
    config = load({"experiment": "x", "coordinator": "https://flag.example/"}, environment)
    assert config.described("coordinator") == "coordinator https://flag.example (flag)"
    assert config.described("max_experts") == "max-experts 6 (HIVE_MAX_EXPERTS)"
    assert config.described("threads") == f"threads 3 ({file})"
    assert config.described("log_format") == "log-format text (default)"


def test_every_option_from_the_file(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("text")
    file = tmp_path / "agent.toml"
    file.write_text(
        f'experiment = "x"\nbootstrap = ["{WS}", "{WS}"]\nlisten = "[::1]:0"\nrole = ["host", "trainer"]\nkey_file = "~/k"\n'
        f'data = "{data}"\npanel = false\nfor = 2.5\nlog_format = "json"\ncoordinator_key = "{PEER}"\nstate_dir = "{tmp_path}"\n'
    )
    config = load({"config": str(file)}, {})
    assert config.bootstrap == (WS,)
    assert config.listen == Address("::1", 0) and str(config.listen) == "[::1]:0"
    assert config.role == {"host", "trainer"}
    assert config.key_file == Path.home() / "k"
    assert (config.panel, config.for_s, config.log_format, config.coordinator_key) == (False, 2.5, "json", PEER)
    assert config.shown("role") == "host,trainer" and config.shown("panel") == "false" and config.shown("listen") == "[::1]:0"


def test_bootstrap_from_the_environment_is_a_list() -> None:
    other = WS.replace("7700", "7701")
    assert load({"experiment": "x"}, {"HIVE_BOOTSTRAP": f"{WS}, {other}"}).bootstrap == (WS, other)


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("experiment", ["", "Big", "-x", "a" * 64, "a/b", "../x"]),
        (
            "coordinator",
            [
                "",
                "hive.example.org",
                "ftp://x",
                "http://",
                "http://x:99999",
                "http://u:p@x",
                "http://x?y",
                "http://x y",
                "h" * 301,
            ],
        ),
        ("coordinator_key", ["", "x", PEER[:-1], PEER.replace(PEER[0], "1")]),
        ("bootstrap", ["x", f"http://h:1/{PEER}", f"ws://h/{PEER}", f"ws://h:0/{PEER}", f"ws://h:65536/{PEER}", "ws://h:1/abc"]),
        ("listen", ["", "7700", "host", "host:", "host:65536", "host:-1", "a b:1"]),
        ("role", ["", "boss", "trainer,boss", "auto,trainer"]),
        ("threads", ["0", "257", "-1", "1.5", "1e3", "many", "9" * 400]),
        ("max_experts", ["-1", "65537", "few"]),
        ("for", ["0", "-5", "nan", "inf", "1e9", "999999999"]),
        ("log_format", ["xml", ""]),
        ("panel", ["maybe"]),
        ("state_dir", [" ", "a\0b"]),
        ("data", ["/no/such/file"]),
    ],
)
def test_absurd_values_are_refused_by_name(option: str, bad: list[str]) -> None:
    for text in bad:
        assert "--" + option.replace("_", "-") in refused({option: [text] if option == "bootstrap" else text})


@pytest.mark.parametrize(
    ("option", "good"),
    [
        ("threads", "256"),
        ("max_experts", "65536"),
        ("max_experts", "auto"),
        ("listen", "0.0.0.0:65535"),
        ("experiment", "a" * 63),
        ("for", "1"),
    ],
)
def test_values_at_the_limit_are_taken(option: str, good: str) -> None:
    load({"experiment": "x", option: good}, {})


def test_the_source_of_a_bad_value_is_named(tmp_path: Path) -> None:
    assert "HIVE_THREADS must be a whole number from 1 to 256, not 'x'" in refused({}, {"HIVE_THREADS": "x"})
    file = tmp_path / "agent.toml"
    file.write_text("threads = -1")
    assert f"threads in {file} must be" in refused({"config": str(file)})
    file.write_text("threads = [1]")
    assert "is a list" in refused({"config": str(file)})
    file.write_text("threads = {a = 1}")
    assert "is a dict" in refused({"config": str(file)})


def test_unknown_names_get_a_suggestion(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("thread = 1")
    assert "did you mean threads?" in refused({"config": str(file)})
    file.write_text("zzz = 1")
    assert "known are experiment" in refused({"config": str(file)})
    assert "did you mean HIVE_COORDINATOR?" in refused({}, {"HIVE_COORDINTOR": "http://x"})
    load({"experiment": "x"}, {"HIVE_SECRET_KEY": "of another program"})


def test_config_files_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    assert "cannot read" in refused({"config": str(file)})
    file.write_text("= 1")
    assert "not valid TOML" in refused({"config": str(file)})
    file.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in refused({"config": str(file)})
    file.write_text("#" * CONFIG_BYTES_MAX)
    load({"experiment": "x", "config": str(file)}, {})
    file.write_text("#" * (CONFIG_BYTES_MAX + 1))
    assert "larger than" in refused({"config": str(file)})


def test_default_config_file_is_read_if_there(tmp_path: Path) -> None:
    path = module.default_config_file()
    path.parent.mkdir(parents=True)
    path.write_text("threads = 7")
    assert load({"experiment": "x"}, {}).threads == 7


def test_bootstraps_are_bounded() -> None:
    addresses = [WS.replace("7700", str(1000 + i)) for i in range(BOOTSTRAPS_MAX + 1)]
    assert len(load({"experiment": "x", "bootstrap": addresses[:-1]}, {}).bootstrap) == BOOTSTRAPS_MAX
    assert "at most 64" in refused({"bootstrap": addresses})


def test_an_experiment_must_be_named() -> None:
    with pytest.raises(ConfigError, match="which experiment"):
        load({}, {})
    assert load({}, {}, needs_experiment=False).experiment == ""
