"""Flags shared by the verbs, made from the table of options in agent/config.py."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from agent.config import OPTIONS, AgentConfig, default_config_file, load, suggestion
from agent.errors import ConfigError

WHERE = ("experiment", "state_dir")
"""Options that find a running agent."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are one sentence and end like every other mistake in a setting."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            flags = tuple(flag for action in self._actions for flag in action.option_strings)
            word = unknown[1].partition("=")[0]
            hint = suggestion(word, flags) if word.startswith("-") else ""
            raise ConfigError(f"{word!r} is not understood here{hint if 'mean' in hint else f'; see {self.prog} --help'}")
        raise ConfigError(f"{message}; see {self.prog} --help")


def add_settings(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add a flag for each named option (all of them by default), `--config`, and the experiment as a plain word."""
    parser.add_argument("name", nargs="?", metavar="EXPERIMENT", help="the same as --experiment")
    parser.add_argument("--config", metavar="FILE", help=f"the config file ({default_config_file()})")
    for option in OPTIONS:
        if names is None or option.name in names:
            parser.add_argument(
                option.flag,
                dest=f"option_{option.name}",
                metavar=option.metavar,
                help=option.help,
                action="append" if option.repeatable else "store",
            )


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` as argparse wants it: its ValueError, the end of a sentence, is shown with what was given."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"{e}, not {text[:80]!r}") from None

    return read


def settle(args: argparse.Namespace, *, needs_experiment: bool = True) -> AgentConfig:
    """The configuration that flags, environment and file add up to. Raises ConfigError."""
    flags = {o.name: getattr(args, f"option_{o.name}", None) for o in OPTIONS}
    if args.name is not None:
        if flags["experiment"] not in (None, args.name):
            raise ConfigError(
                f"two experiments are named, {args.name[:63]!r} and {flags['experiment'][:63]!r}; an agent joins one"
            )
        flags["experiment"] = args.name
    if getattr(args, "no_panel", False):
        flags["panel"] = "false"
    return load({**flags, "config": args.config}, os.environ, needs_experiment=needs_experiment)
