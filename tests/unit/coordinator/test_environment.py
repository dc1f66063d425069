"""Variables that do not fit end the start with a sentence that names them, says what fits, and keeps secrets."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from agent.config import OPTIONS
from coordinator.environment import BROKERS, DATABASES, NAMES, Environment


def refusal(call: str, *arguments: object, **variables: str) -> str:
    with pytest.raises(ImproperlyConfigured) as refused:
        getattr(Environment(variables), call)(*arguments)
    return str(refused.value)


def test_what_is_not_set_is_the_default() -> None:
    env = Environment({"HIVE_EMPTY": "  "})
    assert env.text("HIVE_EMPTY", "x") == "x" and env.flag("HIVE_EMPTY", True) is True
    assert env.whole("A", 3, 1, 5) == 3 and env.level("A", "INFO") == "INFO" and env.words("A") == []
    assert env.origin("A") == env.secret("A") == env.url("A", BROKERS) == "" and env.hosts("A", ["h"]) == ["h"]


def test_what_fits_is_taken() -> None:
    env = Environment(
        {
            "F": "On",
            "N": "7",
            "L": "debug",
            "W": " a, b,,",
            "H": "hive.example,[::1]",
            "P": "10.0.0.0/8,::1",
            "O": "https://h.example/",
        }
    )
    assert env.flag("F", False) is True and env.whole("N", 1, 1, 9) == 7 and env.level("L", "INFO") == "DEBUG"
    assert env.words("W") == ["a", "b"] and env.hosts("H", []) == ["hive.example", "[::1]"]
    assert env.networks("P", []) == ["10.0.0.0/8", "::1"] and env.origin("O") == "https://h.example"


@pytest.mark.parametrize("text", ["ture", "2", "tru e"])
def test_a_flag(text: str) -> None:
    assert "must be true or false" in refusal("flag", "HIVE_X", False, HIVE_X=text)


@pytest.mark.parametrize("text", ["x", "0", "10", "1.5", "1e3", "٣", "-", "--1", "9" * 30])
def test_a_number(text: str) -> None:
    assert "from 1 to 9" in refusal("whole", "HIVE_X", 1, 1, 9, HIVE_X=text)


@pytest.mark.parametrize(
    "text", ["hive.example", "ftp://h", "https://", "https://h/x", "https://h?x", "https://u@h", "https://h:x", "https://["]
)
def test_an_origin(text: str) -> None:
    assert "must be like https://hive.example" in refusal("origin", "HIVE_X", HIVE_X=text)
    assert "must be like https://hive.example" in refusal("origins", "HIVE_X", HIVE_X=f"https://good.example,{text}")


@pytest.mark.parametrize("text", ["*", "https://hive.example", "hive.example:8000", "a/b"])
def test_a_host(text: str) -> None:
    assert "is not a host name" in refusal("hosts", "HIVE_X", [], HIVE_X=text)


@pytest.mark.parametrize("text", ["*", "proxy", "10.0.0.0/33"])
def test_a_network(text: str) -> None:
    assert "neither an IP address nor a network" in refusal("networks", "HIVE_X", [], HIVE_X=text)


@pytest.mark.parametrize("text", ["short", "a" * 60])
def test_a_secret_is_long_and_is_not_repeated(text: str) -> None:
    said = refusal("secret", "HIVE_X", HIVE_X=text)
    assert "at least 50 unpredictable characters" in said and text not in said


@pytest.mark.parametrize(
    ("schemes", "text"), [(DATABASES, "mysql://u:hidden@h/d"), (BROKERS, "localhost:6379"), (BROKERS, "http://[")]
)
def test_an_address_with_another_scheme_is_not_repeated(schemes: tuple[str, ...], text: str) -> None:
    said = refusal("url", "HIVE_X", schemes, HIVE_X=text)
    assert said.startswith("HIVE_X must begin with") and "hidden" not in said


def test_a_level() -> None:
    assert "DEBUG, INFO" in refusal("level", "HIVE_X", "INFO", HIVE_X="loud")


def test_a_misspelt_name() -> None:
    assert refusal("refuse_misspelt", HIVE_ALOWED_HOSTS="x").endswith("Did you mean HIVE_ALLOWED_HOSTS?")


def test_names_of_agents_are_not_misspelt_ones_of_ours() -> None:
    theirs = {option.variable for option in OPTIONS} | {
        "HIVE_TOKEN",
        "HIVE_CONFIG",
        "HIVE_CHROMIUM",
        "HIVE_SERVICES",
        "HIVE_COORDINATOR",
    }
    Environment(dict.fromkeys({*theirs, *NAMES, "PATH"}, "x")).refuse_misspelt()
