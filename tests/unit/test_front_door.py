"""./hive with a stand-in for pip and venv: what it installs when, what it says, and that it may be interrupted."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE_PYTHON = """#!/bin/sh
# stands in for .venv/bin/python: `-c` succeeds, `-m pip` does what the test says, anything else says what it was asked
case "$1 $2" in
    "-c "*) exit 0;;
    "-m pip") shift 2; echo "$@" >> "$HIVE_TEST/pip-calls"; [ -x "$HIVE_TEST/pip" ] || exit 0; exec "$HIVE_TEST/pip" "$@";;
    *) echo "$@"; exit 7;;
esac
"""


class Clone:
    """A copy of what ./hive needs, with a fake environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.marks = root / "marks"
        self.marks.mkdir(parents=True)
        for name in ("hive", "constraints.txt", *(p.name for p in ROOT.glob("requirements*.txt"))):
            shutil.copy(ROOT / name, root / name)
        self.fake_venv()
        self.environment = {"HIVE_TEST": str(self.marks), "PATH": "/usr/bin:/bin", "HIVE_CHROMIUM": "/bin/true"}

    def command(self, name: str, script: str) -> None:
        """A command that, alone, makes up PATH from now on; there is no browser then."""
        folder = self.root / "commands"
        folder.mkdir()
        (folder / name).write_text("#!/bin/sh\n" + script)
        (folder / name).chmod(0o755)
        self.environment = {"HIVE_TEST": str(self.marks), "PATH": str(folder)}

    def fake_venv(self) -> None:
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)

    def pip(self, script: str) -> None:
        """What pip does from now on."""
        path = self.marks / "pip"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)

    @property
    def pip_calls(self) -> list[str]:
        path = self.marks / "pip-calls"
        return path.read_text().splitlines() if path.exists() else []

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(self.root / "hive"), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "clone")


def test_help_needs_nothing(clone: Clone) -> None:
    shutil.rmtree(clone.root / ".venv")
    code, out, err = clone.run()
    assert code == 0 and err == ""
    for verb in ("demo", "serve", "test", "check", "bench", "sim"):
        assert f"  {verb} " in out
    assert clone.run("help") == clone.run("--help") == (0, out, "")
    assert not (clone.root / ".venv").exists()


def test_unknown_verb(clone: Clone) -> None:
    code, out, err = clone.run("dmeo")
    assert code == 2 and out == "" and "there is no command 'dmeo'" in err


@pytest.mark.parametrize(
    ("words", "becomes", "level"),
    [
        (("demo", "--agents", "2"), "-m deploy.demo --agents 2", "requirements.txt"),
        (("serve", "--port", "1"), "-m coordinator.serve --port 1", "requirements.txt"),
        (("test", "tests/unit", "-k", "a b"), "-m pytest tests/unit -k a b", "requirements-dev.txt"),
        (("test", "-m", "slow"), "-m pytest -m slow", "requirements-dev.txt"),  # one after another: they want the whole machine
        (("test", "-n", "0"), "-m pytest -n 0", "requirements-dev.txt"),
        (("check",), "-m deploy.check", "requirements-dev.txt"),
    ],
)
def test_a_verb_installs_and_becomes_its_module(clone: Clone, words: tuple[str, ...], becomes: str, level: str) -> None:
    code, out, err = clone.run(*words)
    assert (code, out) == (7, becomes + "\n"), "exit code and output are the module's own"
    assert clone.pip_calls == [f"--disable-pip-version-check --no-input install -r {clone.root / level}"]
    assert "installing" in err


def test_installs_once_until_the_pins_change(clone: Clone) -> None:
    clone.run("serve")
    assert clone.run("serve")[2] == ""
    assert len(clone.pip_calls) == 1
    with (clone.root / "constraints.txt").open("a") as file:
        file.write("left-pad==1.0\n")
    clone.run("serve")
    assert len(clone.pip_calls) == 2


def test_the_larger_installation_serves_the_smaller_verbs(clone: Clone) -> None:
    clone.run("check")
    clone.run("serve")
    assert len(clone.pip_calls) == 1
    clone.run("test", "x")
    assert len(clone.pip_calls) == 1


@pytest.mark.parametrize(
    ("said", "sentence", "code"),
    [
        ("ERROR: Could not find a version that satisfies the requirement x==9", "Could not find a version", 6),
        ("WARNING: NewConnectionError: Temporary failure in name resolution", "cannot be reached", 6),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "Free some disk space", 4),
        ("", "it said nothing", 6),
    ],
)
def test_a_failed_installation_is_one_sentence(clone: Clone, said: str, sentence: str, code: int) -> None:
    clone.pip(f"echo '{said}'; exit 1")
    ended, out, err = clone.run("serve")
    assert ended == code and out == ""
    assert sentence in err.splitlines()[-1] and "Traceback" not in err
    clone.pip("exit 0")
    assert clone.run("serve")[0] == 7, "the next try installs again"


def test_an_interrupted_installation_is_made_again(clone: Clone) -> None:
    started = clone.marks / "started"
    os.mkfifo(started)
    clone.pip(f"echo x > {started}; exec tail -f /dev/null")
    process = clone.start("serve")
    started.read_text()  # returns when pip has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "run the same command again" in err and "Traceback" not in err
    clone.pip("exit 0")
    assert clone.run("serve")[0] == 7
    assert len(clone.pip_calls) == 2


def test_two_at_once_wait_for_each_other(clone: Clone) -> None:
    started, go = clone.marks / "started", clone.marks / "go"
    os.mkfifo(started)
    os.mkfifo(go)
    clone.pip(f"echo x > {started}; read x < {go}; exit 0")
    first = clone.start("serve")
    started.read_text()
    second = clone.start("serve")
    assert second.stderr is not None
    assert "another ./hive is installing" in second.stderr.readline()
    go.write_text("x\n")
    for process in (first, second):
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out) == (7, "-m coordinator.serve\n")
    assert len(clone.pip_calls) == 1


def test_a_killed_hive_leaves_no_second_pip_beside_its_own(clone: Clone) -> None:
    """pip inherits the lock: while it lives, nobody installs."""
    started, go = clone.marks / "started", clone.marks / "go"
    os.mkfifo(started)
    os.mkfifo(go)
    clone.pip(f"echo x > {started}; read x < {go}; exit 0")
    first = clone.start("serve")
    started.read_text()
    first.kill()
    first.communicate()
    clone.pip("exit 0")
    second = clone.start("serve")
    assert second.stderr is not None
    assert "another ./hive is installing" in second.stderr.readline()
    go.write_text("x\n")
    assert second.communicate(timeout=60)[0] == "-m coordinator.serve\n"
    assert len(clone.pip_calls) == 2


def test_a_broken_environment_is_made_again(clone: Clone) -> None:
    """The environment's Python is gone (an upgrade of the system's, say), though the stamp is current."""
    clone.run("serve")
    python = clone.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/no/such/python")
    (clone.root / "requirements.txt").write_text("")  # the real installation that follows has nothing to fetch
    code, _, err = clone.run("serve")
    assert "making" in err and code == 1, "the real Python then finds no coordinator in this clone"


def test_a_file_of_the_clone_is_missing(clone: Clone) -> None:
    (clone.root / "constraints.txt").unlink()
    code, _, err = clone.run("serve")
    assert code == 2 and "git checkout -- constraints.txt" in err


def test_a_read_only_clone(clone: Clone) -> None:
    (clone.root / "var").write_text("a file where a directory belongs")
    code, _, err = clone.run("serve")
    assert code == 4 and "cannot be used" in err and "Traceback" not in err


def test_benchmarks_are_listed_and_found(clone: Clone) -> None:
    assert clone.run("bench") == (0, "there is no benchmark in this version\n", "")
    folder = clone.root / "tests" / "bench"
    folder.mkdir(parents=True)
    for name in ("channel.py", "_private.py", "test_x.py"):
        (folder / name).write_text('"""How fast.\n\nAnd more."""\n')
    assert clone.run("bench")[:2] == clone.run("bench", "--help")[:2] == (0, "channel       How fast.\n")
    assert clone.run("bench", "--json")[0] == 2
    assert clone.run("bench", "chanel")[0] == 2
    assert clone.run("bench", "channel", "--json")[:2] == (7, "-m tests.bench.channel --json\n")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")


@needs_root
def test_a_browser_is_installed_for_the_browser_tests(clone: Clone) -> None:
    browser = clone.root / "commands" / "chromium"
    clone.command("apt-get", f'[ "$1" = update ] || {{ echo > {browser}; /bin/chmod 755 {browser}; }}')
    code, _, err = clone.run("test", "tests/unit")
    assert code == 7 and "chromium" not in err, "these tests need none"
    assert "installing chromium" in clone.run("test")[2]
    assert browser.exists()
    assert "chromium" not in clone.run("test")[2]


@needs_root
def test_a_browser_that_cannot_be_installed_is_said(clone: Clone) -> None:
    clone.command("apt-get", "echo E: Unable to locate package chromium; exit 100")
    code, _, err = clone.run("test", "tests/browser")
    assert code == 7 and "could not be installed (E: Unable to locate package chromium.)" in err


@needs_root
def test_services_are_installed_for_the_tests_of_production(clone: Clone) -> None:
    folder, called = clone.root / "commands", clone.marks / "apt"
    make = " ".join(f"echo > {folder / name}; /bin/chmod 755 {folder / name};" for name in ("redis-server", "initdb"))
    clone.command("apt-get", f'echo "$@" >> {called}; [ "$1" = update ] || {{ {make} }}')
    assert clone.run("test", "tests/unit")[0] == 7 and not called.exists(), "these tests need none"
    assert "installing redis-server" in clone.run("test", "tests/integration")[2]
    assert "redis-server" in called.read_text()
    calls = called.read_text()
    clone.run("test", "tests/integration")
    assert called.read_text() == calls, "nothing is missing any more"


def test_without_apt_it_says_how_to_get_chromium(clone: Clone) -> None:
    clone.command("true", "")
    assert "set HIVE_CHROMIUM to its path" in clone.run("test")[2]


def test_an_old_python_gets_a_clear_sentence(clone: Clone) -> None:
    script = "import sys, runpy; sys.version_info = (3, 9, 1); runpy.run_path(sys.argv[1], run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", script, str(clone.root / "hive")], env={"PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("hive: Python 3.11 or newer is needed; this is 3.9.")


@pytest.fixture
def hive() -> Iterator[object]:
    loader = importlib.machinery.SourceFileLoader("hive_front_door", str(ROOT / "hive"))
    spec = importlib.util.spec_from_loader("hive_front_door", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = kept
    yield module


def test_the_stamp_covers_every_requirement_file(hive: object) -> None:
    levels = hive.PARTS  # type: ignore[attr-defined]
    named = {p.name for p in ROOT.glob("requirements*.txt")} | {"constraints.txt"}
    assert set(levels["requirements-dev.txt"]) == named
    assert set(levels["requirements.txt"]) == named - {"requirements-dev.txt"}


def test_a_stamp_that_is_not_one_counts_as_none(clone: Clone) -> None:
    (clone.root / ".venv" / "hive-stamp.json").write_text("[1")
    clone.run("serve")
    (clone.root / ".venv" / "hive-stamp.json").write_text("[1]")
    clone.run("serve")
    assert len(clone.pip_calls) == 2
    assert set(json.loads((clone.root / ".venv" / "hive-stamp.json").read_text())) == {"requirements.txt"}
