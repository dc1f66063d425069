"""Configuration of one agent: the only place that reads flags, environment and the config file.

Precedence is flag, then HIVE_* variable, then config file (TOML), then default; every value remembers where it came from.
One table, OPTIONS, makes the flags, the variables, the file's keys and `hive-agent config`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import platformdirs

from agent.errors import ConfigError
from agent.identity import PeerId

CONFIG_BYTES_MAX = 64 * 1024
BOOTSTRAPS_MAX = 64
URL_LENGTH_MAX = 300
THREADS_MAX = 256
EXPERTS_MAX = 65_536
SECONDS_MAX = 366 * 86_400
ROLES = ("trainer", "host")
AUTOMATIC = ("role", "max_experts")
"""Options for which None means that the agent decides."""
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

Role = Literal["trainer", "host"]


class Address(NamedTuple):
    """Where to listen; port 0 takes any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Option:
    """One setting. `parse` takes its text and raises ValueError with the end of a sentence: what it must be."""

    name: str
    parse: Callable[[str], Any]
    default: Callable[[], Any]
    metavar: str
    help: str
    repeatable: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "HIVE_" + self.name.upper()


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """What one agent was told. Made by `load`; tests may construct it directly."""

    experiment: str
    """Slug of the experiment to join."""
    coordinator: str
    """Origin of the site, `http://host:port`, with no slash at the end."""
    state_dir: Path
    key_file: Path
    coordinator_key: str | None = None
    """Pinned signing key, in the text form of a PeerId; None trusts the first one seen and then stays with it."""
    bootstrap: tuple[str, ...] = ()
    """Addresses of bootstrap peers to try besides the manifest's, `ws://host:port/PEERID`."""
    listen: Address | None = None
    """Accept first contact here: the bootstrap role."""
    role: frozenset[Role] | None = None
    """None chooses by hardware."""
    threads: int = 1
    """Threads that compute."""
    max_experts: int | None = None
    """Most experts to host; None decides by hardware."""
    data: Path | None = None
    """A local text file, for experiments that train on one."""
    channel: Literal["fast", "stock"] = "fast"
    """Whose SCTP carries the data channels: Hive's own, or aiortc's."""
    log_format: Literal["text", "json"] = "text"
    panel: bool = True
    """Show the live panel when standard output is a terminal."""
    for_s: float | None = None
    """Leave in good order after this many seconds."""
    token: str = field(default="", repr=False)
    """HIVE_TOKEN, a secret: from the environment only, and shown nowhere."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Option name → where its value came from: `flag`, `HIVE_X`, a file's path, or `default`."""

    @property
    def experiment_dir(self) -> Path:
        """What this agent keeps of the experiment: cached manifest and peers, records, status."""
        return self.state_dir / self.experiment

    def shown(self, name: str) -> str:
        """An option's value as a person would write it."""
        value = getattr(self, FIELDS.get(name, name))
        if value is None:
            return "auto" if name in AUTOMATIC else "none"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, frozenset) or (isinstance(value, tuple) and not isinstance(value, Address)):
            return ",".join(sorted(value)) or "none"
        return str(value) or "none"

    def described(self, name: str) -> str:
        """A value with its source, for example `coordinator http://127.0.0.1:8000 (default)`."""
        return f"{name.replace('_', '-')} {self.shown(name)} ({self.sources.get(name, 'default')})"


def _experiment(text: str) -> str:
    if not _SLUG.fullmatch(text):
        raise ValueError("must be an experiment's short name: small letters, digits and hyphens, at most 63")
    return text


def _coordinator(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(text) > URL_LENGTH_MAX or parts.query or parts.fragment or parts.username or re.search(r"\s", text):
        raise ValueError("must be the address of a site, such as https://hive.example.org")
    return text.rstrip("/")


def _peer_key(text: str) -> str:
    try:
        return str(PeerId.parse(text))
    except ValueError:
        raise ValueError("must be a key as the experiment's page shows it: 52 letters a-z and digits 2-7") from None


def _bootstrap(text: str) -> str:
    match = re.fullmatch(r"wss?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})/([a-z2-7]{52})", text)
    if not match or len(text) > URL_LENGTH_MAX or not 1 <= int(match[2]) <= 65_535:
        raise ValueError("must be a bootstrap peer's address, ws://HOST:PORT/PEERID, as that peer prints it when it starts")
    _peer_key(match[3])
    return text


def _listen(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})", text)
    if not match or int(match[3]) > 65_535:
        raise ValueError("must be HOST:PORT, with a port from 0 to 65535 (0 takes a free one), such as 0.0.0.0:7700")
    return Address(match[1] or match[2], int(match[3]))


def _role(text: str) -> frozenset[str] | None:
    words = {word.strip() for word in text.split(",")}
    if words == {"auto"}:
        return None
    if not words <= set(ROLES):
        raise ValueError(f"must be auto, or some of {', '.join(ROLES)} with commas between")
    return frozenset(words)


def whole(lowest: int, highest: int, *, auto: bool = False) -> Callable[[str], int | None]:
    def parse(text: str) -> int | None:
        if auto and text == "auto":
            return None
        if not re.fullmatch(r"\d{1,9}", text) or not lowest <= int(text) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}" + (", or auto" if auto else ""))
        return int(text)

    return parse


def _seconds(text: str) -> float | None:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text) or not 1 <= float(text) <= SECONDS_MAX:
        raise ValueError(f"must be a number of seconds from 1 to {SECONDS_MAX}")
    return float(text)


def as_path(text: str) -> Path:
    """Reads a path, `~` understood, as an absolute one."""
    if not text.strip() or "\0" in text:
        raise ValueError("must be a path")
    return Path(text).expanduser().absolute()


def _log_format(text: str) -> str:
    if text not in ("text", "json"):
        raise ValueError("must be text or json")
    return text


def _channel(text: str) -> str:
    if text not in ("fast", "stock"):
        raise ValueError("must be fast or stock")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError("must be true or false")
    return text.lower() in ("1", "true", "yes", "on")


def _usable_cpus() -> int:
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cpus, THREADS_MAX)


def _nothing() -> None:
    return None


OPTIONS = (
    Option(name="experiment", parse=_experiment, default=_nothing, metavar="NAME", help="the experiment to join"),
    Option(
        name="coordinator",
        parse=_coordinator,
        default=lambda: "http://127.0.0.1:8000",
        metavar="URL",
        help="the site that introduces and observes (http://127.0.0.1:8000)",
    ),
    Option(
        name="coordinator_key",
        parse=_peer_key,
        default=_nothing,
        metavar="KEY",
        help="trust only manifests signed with this key (default: the first one seen)",
    ),
    Option(
        name="bootstrap",
        parse=_bootstrap,
        default=tuple,
        metavar="ws://HOST:PORT/PEERID",
        help="a peer to enter by, besides the manifest's; may be given several times",
        repeatable=True,
    ),
    Option(
        name="listen", parse=_listen, default=_nothing, metavar="HOST:PORT", help="accept first contact here (bootstrap role)"
    ),
    Option(name="role", parse=_role, default=_nothing, metavar="ROLES", help="auto, or some of trainer,host (auto: by hardware)"),
    Option(
        name="state_dir",
        parse=as_path,
        default=lambda: platformdirs.user_state_path("hive-agent"),
        metavar="DIR",
        help="where identity, caches and records are kept",
    ),
    Option(name="key_file", parse=as_path, default=_nothing, metavar="FILE", help="the identity (STATE-DIR/identity.key)"),
    Option(
        name="threads",
        parse=whole(1, THREADS_MAX),
        default=_usable_cpus,
        metavar="N",
        help="threads that compute (all processors)",
    ),
    Option(
        name="max_experts",
        parse=whole(0, EXPERTS_MAX, auto=True),
        default=_nothing,
        metavar="N",
        help="most experts to host (auto: by hardware)",
    ),
    Option(name="data", parse=as_path, default=_nothing, metavar="FILE", help="a text file, if the experiment trains on one"),
    Option(
        name="channel",
        parse=_channel,
        default=lambda: "fast",
        metavar="fast|stock",
        help="data channels by Hive's SCTP or by aiortc's (fast)",
    ),
    Option(name="log_format", parse=_log_format, default=lambda: "text", metavar="text|json", help="how log lines look (text)"),
    Option(name="panel", parse=_switch, default=lambda: True, metavar="true|false", help="the live panel on a terminal (true)"),
    Option(name="for", parse=_seconds, default=_nothing, metavar="SECONDS", help="leave in good order after this time"),
)
FIELDS = {"for": "for_s"}
"""Options whose field of AgentConfig has another name."""
_BY_NAME = {option.name: option for option in OPTIONS}


def default_config_file() -> Path:
    return platformdirs.user_config_path("hive-agent") / "agent.toml"


def load(flags: Mapping[str, Any], environment: Mapping[str, str], *, needs_experiment: bool = True) -> AgentConfig:
    """Settle every option.

    `flags` maps option names, and `config` for the file, to their texts (lists of texts for repeatable ones); absent
    or None means not given. Without `needs_experiment`, an experiment that nobody names is the empty string.
    Raises ConfigError with one sentence that names the value and where it came from.
    """
    _refuse_misspelt_variables(environment)
    path, document = _read_file(flags.get("config"), environment)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for option in OPTIONS:
        if flags.get(option.name) is not None:
            given, source, called = flags[option.name], "flag", option.flag
        elif environment.get(option.variable):
            text = environment[option.variable]
            given = [part.strip() for part in text.split(",")] if option.repeatable else text
            source = called = option.variable
        elif option.name in document:
            given, source, called = document[option.name], str(path), f"{option.name} in {path}"
        else:
            values[option.name], sources[option.name] = option.default(), "default"
            continue
        values[option.name], sources[option.name] = _parsed(option, given, called), source
    values["token"] = _token(environment)
    return _assembled(values, sources, needs_experiment)


def _token(environment: Mapping[str, str]) -> str:
    token = environment.get("HIVE_TOKEN", "").strip()
    if token and not re.fullmatch(r"hive_[a-z0-9]{1,40}_[a-z0-9]{1,100}", token):
        raise ConfigError("HIVE_TOKEN is not a token as the account's page shows it once: hive_…_…")
    return token


def _assembled(values: dict[str, Any], sources: dict[str, str], needs_experiment: bool) -> AgentConfig:
    if values["experiment"] is None:
        if needs_experiment:
            raise ConfigError("which experiment? Name it, for example: hive-agent join gpt-crowd")
        values["experiment"] = ""
    if values["key_file"] is None:
        values["key_file"] = values["state_dir"] / "identity.key"
    if values["data"] is not None and not values["data"].is_file():
        raise ConfigError(f"there is no file {values['data']}, which --data names")
    return AgentConfig(**{FIELDS.get(name, name): value for name, value in values.items()}, sources=sources)


def _parsed(option: Option, given: Any, called: str) -> Any:
    if option.repeatable:
        texts = given if isinstance(given, list | tuple) else [given]
        if len(texts) > BOOTSTRAPS_MAX:
            raise ConfigError(f"{called} has {len(texts)} values; at most {BOOTSTRAPS_MAX} are allowed")
        return tuple(dict.fromkeys(_parsed_one(option, text, called) for text in texts))
    return _parsed_one(option, given, called)


def _parsed_one(option: Option, given: Any, called: str) -> Any:
    if isinstance(given, bool):
        text = "true" if given else "false"
    elif isinstance(given, str | int | float):
        text = str(given)
    elif isinstance(given, list) and all(isinstance(word, str) for word in given):
        text = ",".join(given)
    else:
        raise ConfigError(f"{called} is a {type(given).__name__}, which it cannot be")
    try:
        return option.parse(text)
    except ValueError as e:
        raise ConfigError(f"{called} {e}, not {text[:80]!r}") from None


def _read_file(flag: Any, environment: Mapping[str, str]) -> tuple[Path, dict[str, Any]]:
    named = flag or environment.get("HIVE_CONFIG")
    path = as_path(named) if named else default_config_file()
    if not named and not path.exists():
        return path, {}
    try:
        with path.open("rb") as file:
            body = file.read(CONFIG_BYTES_MAX + 1)
        if len(body) > CONFIG_BYTES_MAX:
            raise ConfigError(f"the config file {path} is larger than {CONFIG_BYTES_MAX} bytes")
        document = tomllib.loads(body.decode())
    except OSError as e:
        raise ConfigError(f"cannot read the config file {path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"the config file {path} is not valid TOML: {e}") from e
    document = {key.replace("-", "_"): value for key, value in document.items()}
    for key in document:
        if key not in _BY_NAME:
            raise ConfigError(f"the config file {path} has an unknown key {key[:60]!r}{suggestion(key, _BY_NAME)}")
    return path, document


def _refuse_misspelt_variables(environment: Mapping[str, str]) -> None:
    """HIVE_* variables of other programs are left alone, but one that is nearly ours is a slip."""
    ours = {option.variable for option in OPTIONS} | {"HIVE_CONFIG", "HIVE_TOKEN"}
    for variable in environment:
        if variable.startswith("HIVE_") and variable not in ours and (close := difflib.get_close_matches(variable, ours, 1, 0.9)):
            raise ConfigError(f"the variable {variable} is not known; did you mean {close[0]}? (Unset it if not.)")


def suggestion(word: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """The end of a sentence about an unknown word."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
