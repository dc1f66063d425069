"""`./hive check`: format, lint, types, architecture, built pages, pinned requirements. Exit code 0 if all of them pass."""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ("requirements-agent.txt", "requirements-coordinator.txt", "requirements-dev.txt")
PYTHON_FOLDERS = ("agent", "coordinator", "deploy", "tests")
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z0-9,_-]+\])?==(?P<version>[^\s;]+)(\s*;.*)?")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`problem` is None for a pass; `skipped` says why a check could not be made here."""

    problem: str | None = None
    skipped: str | None = None


def command(*arguments: str, cwd: Path = ROOT) -> Outcome:
    done = subprocess.run(arguments, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return Outcome(problem=(done.stdout + done.stderr).strip() or "failed" if done.returncode else None)


def module(name: str, *arguments: str) -> Outcome:
    return command(sys.executable, "-m", name, *arguments)


def ruff_format() -> Outcome:
    return module("ruff", "format", "--check", "--quiet", "--diff", "hive", *PYTHON_FOLDERS)


def ruff_lint() -> Outcome:
    return module("ruff", "check", "--quiet", "hive", *PYTHON_FOLDERS)


def types() -> Outcome:
    return module("mypy", "--no-error-summary")


def architecture() -> Outcome:
    return module("pytest", "-q", "tests/test_architecture.py")


def pages() -> Outcome:
    """The committed frontend/dist is what the sources build to. Needs Node, which only those who change the pages need."""
    if not (ROOT / "frontend" / "package.json").exists():
        return Outcome(skipped="there is no frontend/package.json")
    if not shutil.which("npm") or not shutil.which("node"):
        return Outcome(skipped="node and npm are not installed; only a change of the pages needs them")
    if not (ROOT / "frontend" / "node_modules").exists():
        installed = command("npm", "ci", "--no-audit", "--no-fund", cwd=ROOT / "frontend")
        if installed.problem:
            return installed
    return command("npm", "run", "--silent", "check", cwd=ROOT / "frontend")


def pins() -> Outcome:
    problems = pin_problems(
        {name: (ROOT / name).read_text() for name in (*REQUIREMENTS, "constraints.txt")},
        {normal(d.metadata["Name"]): d.version for d in importlib.metadata.distributions()},
    )
    return Outcome(problem="\n".join(problems) or None)


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pin_problems(files: dict[str, str], installed: dict[str, str]) -> list[str]:
    """What is wrong with the requirement files' texts, given what is installed (normal name → version).

    Every line is an exact pin, constraints.txt has every one of them with the same version, and what is installed agrees with it.
    """
    problems: list[str] = []
    constraints: dict[str, str] = {}
    for file, text in sorted(files.items(), key=lambda item: item[0] != "constraints.txt"):
        for line in (line.split(" #")[0].strip() for line in text.splitlines()):
            if not line or line.startswith(("#", "-r ", "-c ")):
                continue
            pin = _PIN.fullmatch(line)
            if not pin:
                problems.append(f"{file}: {line!r} is not pinned with ==")
            elif file == "constraints.txt":
                constraints[normal(pin["name"])] = pin["version"]
            elif constraints.get(normal(pin["name"])) != pin["version"]:
                there = constraints.get(normal(pin["name"]), "nothing")
                problems.append(f"{file}: {pin['name']} is pinned to {pin['version']}, constraints.txt says {there}")
    for name, version in sorted(installed.items()):
        if name in ("pip", "hive"):
            continue
        public = version.partition("+")[0]
        if name not in constraints:
            problems.append(f"{name} {public} is installed but not in constraints.txt")
        elif constraints[name] != public:
            problems.append(f"{name} {public} is installed, constraints.txt says {constraints[name]}")
    return problems


CHECKS: dict[str, Callable[[], Outcome]] = {
    "format": ruff_format,
    "lint": ruff_lint,
    "types": types,
    "architecture": architecture,
    "pages": pages,
    "pins": pins,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./hive check", description=__doc__)
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"which checks to make: {', '.join(CHECKS)}; default all")
    names = parser.parse_args().only or list(CHECKS)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        parser.error(f"there is no check {unknown[0]!r}; there are {', '.join(CHECKS)}")
    passed = failed = skipped = 0
    for name in names:
        started = time.monotonic()
        outcome = CHECKS[name]()
        word = "FAILED" if outcome.problem else f"skipped: {outcome.skipped}" if outcome.skipped else "ok"
        print(f"{name:<13} {word} ({time.monotonic() - started:.1f} s)", flush=True)
        if outcome.problem:
            print(outcome.problem, flush=True)
        failed += bool(outcome.problem)
        skipped += bool(outcome.skipped)
        passed += not outcome.problem and not outcome.skipped
    print(f"check: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
