"""Entry of `hive-agent`: finds the verb, runs it, and turns errors into one sentence and an exit code.

Verbs are imported only when asked for, so that `hive-agent version` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from agent import errors
from agent.cli.options import Parser
from agent.config import suggestion
from agent.errors import ConfigError, HiveError

VERBS = {
    "join": "train in an experiment until stopped",
    "evaluate": "the crowd's model on held-out data: loss and perplexity, or accuracy",
    "generate": "text from the crowd's model",
    "export": "the crowd's model as one file",
    "status": "what a running agent does now",
    "finish": "let a running agent leave in good order",
    "stop": "stop a running agent at once",
    "login": "sign this machine in to your account, by a code",
    "logout": "forget the account on this machine",
    "doctor": "check clock, disk, device and network, with a fix for each problem",
    "identity": "this agent's peer id",
    "config": "every setting, its value and where it came from",
    "version": "versions of the agent, its protocol and its parts",
}
EXIT_INTERRUPTED = 130


def exit_codes() -> list[tuple[int, str, str]]:
    """(code, error's name, what it means) for every error that ends the process with a number of its own."""
    rows = [(0, "", "left in good order")]
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, HiveError) and "exit_code" in vars(kind):
            meaning = "anything else that is wrong; the last line says what" if kind is HiveError else kind.__doc__ or ""
            rows.append((kind.exit_code, kind.__name__, meaning.strip().splitlines()[0]))
    return [*sorted(rows), (EXIT_INTERRUPTED, "", "stopped by a second Ctrl-C or by a signal, without leaving in good order")]


def overview() -> str:
    verbs = "\n".join(f"  {name:<10}{summary}" for name, summary in VERBS.items())
    codes = "\n".join(f"  {code:<5}{meaning}" for code, _, meaning in exit_codes())
    return (
        "usage: hive-agent VERB [options]\n"
        "       hive-agent --experiment NAME [options]     short for: hive-agent join NAME [options]\n\n"
        f"{verbs}\n\n"
        "Each verb has its own --help with an example. Settings are taken from flags, then HIVE_* variables,\n"
        "then the config file, then defaults; `hive-agent config` shows them all.\n\n"
        f"exit codes\n{codes}\n\n"
        "example: hive-agent --experiment gpt-crowd --coordinator https://hive.example.org\n"
    )


def dispatch(argv: Sequence[str]) -> int:
    """Run one command line. Raises HiveError for whatever ends it."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
        return 0
    if words[0] == "--version":
        words[0] = "version"
    if words[0].startswith("-"):
        words.insert(0, "join")
    verb, *rest = words
    if verb not in VERBS:
        raise ConfigError(f"there is no verb {verb[:40]!r}{suggestion(verb, VERBS)}")
    module: ModuleType = importlib.import_module(f"agent.cli.{verb}")
    parser = Parser(
        prog=f"hive-agent {verb}",
        description=VERBS[verb].capitalize() + ".",
        epilog=f"example: {module.EXAMPLE}",
        allow_abbrev=False,
    )
    module.arguments(parser)
    return int(module.run(parser.parse_args(rest)))


def main(argv: Sequence[str] | None = None) -> int:
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except HiveError as e:
        print(f"hive-agent: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        return 1


if __name__ == "__main__":
    sys.exit(main())
