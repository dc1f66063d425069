"""The shape that DESIGN.md sections 1 and 2 and the house rules give the code, held by reading it (no import is run).

Every rule is a function from one module's path and syntax tree to a list of complaints, and is shown a bad and a good sample.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Imports point down: a module may import its own package, and whatever has a smaller number.
RANKS = {
    **dict.fromkeys(("errors", "machine", "identity", "grid", "tensors", "manifest", "reports", "admission"), 0),
    "wire": 1,
    "dht": 2,
    "models": 3,
    "data": 3,
    "net": 4,
    "experts": 5,
    "averaging": 5,
    "moe": 6,
    "scoring": 6,
    "trainer": 7,
    "telemetry": 7,
    "receipts": 7,
    "revisions": 7,
    "samples": 7,
    "joining": 7,
    "credentials": 7,
    "twins": 7,
    "connecting": 8,
    "training": 8,
    "reporter": 9,
    "visiting": 9,
    "modelfile": 7,
    "observation": 0,
    "observer": 8,
    "config": 1,
    "peer": 10,
    "cli": 11,
}
LEAF_ORDER = ("errors", "machine", "grid", "identity", "tensors", "reports", "manifest", "admission", "observation")
FOR_THE_COORDINATOR = (
    "agent",
    "agent.admission",
    "agent.errors",
    "agent.identity",
    "agent.grid",
    "agent.manifest",
    "agent.observation",
    "agent.reports",
    "agent.wire",
    "agent.models.presets",
    "agent.models.sizes",
)
NETWORK_LIBRARIES = {"aiortc", "aioice", "websockets", "httpx", "OpenSSL", "pylibsrtp"}
NOT_IN_A_CORE = {"asyncio", "time", "socket", "threading", "subprocess", "torch", "numpy"}
LINES_MAX, FUNCTION_LINES_MAX, PARAMETERS_MAX = 400, 60, 6
BROAD_EXCEPT_ALLOWED: dict[str, tuple[int, str]] = {
    "agent/trainer.py": (1, "root of the trainer's threads: logged, and raised again by whoever runs the trainer"),
    "agent/peer.py": (1, "takes what a task group wrapped out of its wrapping, and raises it"),
    "agent/net/network.py": (1, "root of a notice's callback: logged; the connection goes on"),
    "agent/net/connection.py": (1, "root of a served call: logged, and the caller is told that it failed"),
}
"""Path → how many, and why: roots of tasks, where whatever went wrong is logged and reported."""

Rule = Callable[[str, ast.Module], list[str]]


def imports(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """Every imported dotted name with its line; `from a import b` gives `a.b`, so that submodules are seen."""
    package = Path(path).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *([node.module] if node.module else [])))
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def one_way(path: str, tree: ast.Module) -> list[str]:
    """Inside `agent`, imports point down the list of RANKS, and leaves import leaves in LEAF_ORDER."""
    parts = Path(path).with_suffix("").parts
    if parts[0] != "agent" or parts == ("agent", "__init__"):
        return []
    own = parts[1]
    if own not in RANKS:
        return [f"{path}: agent.{own} has no place in the order of packages; give it one in tests/test_architecture.py"]
    problems = []
    for line, name in imports(tree, path):
        target = name.split(".")
        if target[0] in ("coordinator", "deploy", "tests", "django"):
            problems.append(f"{path}:{line}: the agent imports {target[0]}")
        if target[0] != "agent" or len(target) < 2 or target[1] not in RANKS or target[1] == own:
            continue
        leaves = own in LEAF_ORDER and target[1] in LEAF_ORDER
        down = LEAF_ORDER.index(own) > LEAF_ORDER.index(target[1]) if leaves else RANKS[own] > RANKS[target[1]]
        if not down:
            problems.append(f"{path}:{line}: {own} imports {target[1]}, which does not lie below it")
    return problems


def coordinator_imports_leaves(path: str, tree: ast.Module) -> list[str]:
    """The coordinator uses the agent's schemas, never what trains."""
    if not path.startswith("coordinator/"):
        return []
    return [
        f"{path}:{line}: the coordinator imports {name}"
        for line, name in imports(tree, path)
        if within(name, "torch")
        or (
            within(name, "agent")
            and name not in ("agent.__version__", "agent.PROTOCOL_VERSION")
            and not any(name == allowed or (allowed != "agent" and within(name, allowed)) for allowed in FOR_THE_COORDINATOR)
        )
    ]


def network_in_net_only(path: str, tree: ast.Module) -> list[str]:
    """Only agent.net knows which libraries carry the bytes."""
    if not path.startswith("agent/") or path.startswith("agent/net/"):
        return []
    return [
        f"{path}:{line}: imports {name}, which only agent.net may"
        for line, name in imports(tree, path)
        if name.split(".")[0] in NETWORK_LIBRARIES
    ]


def cores_do_no_io(path: str, tree: ast.Module) -> list[str]:
    """wire and dht are sans-IO: no clock, no loop, no threads, no tensors."""
    if not path.startswith(("agent/wire/", "agent/dht/")):
        return []
    return [
        f"{path}:{line}: a core imports {name}"
        for line, name in imports(tree, path)
        if name.split(".")[0] in NOT_IN_A_CORE or within(name, "agent.tensors")
    ]


def schemas_are_light(path: str, tree: ast.Module) -> list[str]:
    """What the coordinator shares with the agent pulls in neither torch nor Django."""
    shared = (
        "agent/admission.py",
        "agent/errors.py",
        "agent/identity.py",
        "agent/grid.py",
        "agent/manifest.py",
        "agent/reports.py",
        "agent/models/__init__.py",
    )
    if path not in (*shared, "agent/models/presets.py", "agent/models/sizes.py", "agent/__init__.py"):
        return []
    return [
        f"{path}:{line}: imports {name}"
        for line, name in imports(tree, path)
        if name.split(".")[0] in ("torch", "django") or within(name, "agent.tensors")
    ]


def small_functions(path: str, tree: ast.Module) -> list[str]:
    return [
        f"{path}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines, the most is {FUNCTION_LINES_MAX}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]


def few_parameters(path: str, tree: ast.Module) -> list[str]:
    """A constructor with more than six parameters lacks a concept. (Frozen configurations generate theirs.)"""
    problems = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs) - 1
            if count > PARAMETERS_MAX:
                problems.append(f"{path}:{node.lineno}: a constructor with {count} parameters, the most is {PARAMETERS_MAX}")
    return problems


def no_broad_except(path: str, tree: ast.Module) -> list[str]:
    """Broad handlers hide bugs. One that ends with a bare `raise` only cleans up, and is fine."""
    problems = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(n is None or (isinstance(n, ast.Name) and n.id in ("Exception", "BaseException")) for n in named)
        last = node.body[-1]
        if broad and not (isinstance(last, ast.Raise) and last.exc is None):
            problems.append(
                f"{path}:{node.lineno}: a broad except; name what can go wrong, or put the path on the allow list with a reason"
            )
    return problems if len(problems) > BROAD_EXCEPT_ALLOWED.get(path, (0, ""))[0] else []


def no_sleeping_tests(path: str, tree: ast.Module) -> list[str]:
    """A test advances its clock or waits on the event itself. `sleep(0)` only lets others run."""
    if not path.startswith("tests/") or path.startswith(("tests/bench/", "tests/sim/")):
        return []
    return [
        f"{path}:{node.lineno}: a test sleeps"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "sleep"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("time", "asyncio")
        and not (node.args and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    ]


RULES: list[Rule] = [
    one_way,
    coordinator_imports_leaves,
    network_in_net_only,
    cores_do_no_io,
    schemas_are_light,
    small_functions,
    few_parameters,
    no_broad_except,
    no_sleeping_tests,
]


def sources() -> list[Path]:
    folders = ("agent", "coordinator", "deploy", "tests")
    found = [p for f in folders for p in (ROOT / f).rglob("*.py") if "migrations" not in p.parts]
    return sorted([ROOT / "hive", *found])


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text(), filename=str(p)) for p in sources()}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps(rule: Rule, trees: dict[str, ast.Module]) -> None:
    problems = [problem for path, tree in trees.items() for problem in rule(path, tree)]
    assert not problems, "\n" + "\n".join(problems)


def test_files_are_short() -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text().splitlines())) > LINES_MAX}
    assert not long, f"more than {LINES_MAX} lines: {long}"


def test_allow_list_is_current(trees: dict[str, ast.Module]) -> None:
    assert set(BROAD_EXCEPT_ALLOWED) <= set(trees), "the allow list names a file that is gone"


def function_of(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


def constructor_of(parameters: int) -> str:
    return f"class A:\n    def __init__(self, {', '.join(f'p{i}' for i in range(parameters))}): pass"


SAMPLES = [
    (one_way, "agent/wire/a.py", "from agent.dht import keys", "from agent.errors import HiveError"),
    (one_way, "agent/experts/a.py", "from agent.moe.layer import x", "from agent.net.network import Network"),
    (one_way, "agent/experts/a.py", "from agent import peer", "from agent.experts import b"),
    (one_way, "agent/averaging/a.py", "from agent.experts import b", "import agent.net.overlay"),
    (one_way, "agent/errors.py", "from agent.grid import Grid", "import enum"),
    (one_way, "agent/peer.py", "import agent.cli.main", "from agent.config import AgentConfig"),
    (one_way, "agent/net/a.py", "def f():\n    from ..trainer import Trainer", "from ..dht import node"),
    (one_way, "agent/net/a.py", "import coordinator.settings", "import coordinate"),
    (one_way, "agent/surprise.py", "import os", None),
    (
        coordinator_imports_leaves,
        "coordinator/a.py",
        "from agent.net.network import Network",
        "from agent.manifest import Manifest",
    ),
    (coordinator_imports_leaves, "coordinator/a.py", "from agent import peer", "from agent import manifest, __version__"),
    (coordinator_imports_leaves, "coordinator/a.py", "import agent.models.gpt", "from agent.models.sizes import parameters"),
    (coordinator_imports_leaves, "coordinator/a.py", "import torch.nn", "import django"),
    (network_in_net_only, "agent/cli/a.py", "import websockets.client", "import asyncio"),
    (network_in_net_only, "agent/experts/a.py", "from aiortc import RTCIceTransport", "from agent.net.network import Network"),
    (network_in_net_only, "agent/peer.py", "import aiortc", None),
    (cores_do_no_io, "agent/wire/a.py", "import asyncio", "import random"),
    (cores_do_no_io, "agent/dht/a.py", "from time import monotonic", "import heapq"),
    (cores_do_no_io, "agent/dht/a.py", "from agent.tensors import pack", "from agent.identity import PeerId"),
    (schemas_are_light, "agent/manifest.py", "import torch", "import msgspec"),
    (schemas_are_light, "agent/models/sizes.py", "from agent.tensors import DTYPES", "import math"),
    (small_functions, "agent/a.py", function_of(FUNCTION_LINES_MAX + 1), function_of(FUNCTION_LINES_MAX)),
    (few_parameters, "agent/a.py", constructor_of(PARAMETERS_MAX + 1), constructor_of(PARAMETERS_MAX)),
    (no_broad_except, "agent/a.py", "try: f()\nexcept Exception: pass", "try: f()\nexcept OSError: pass"),
    (no_broad_except, "agent/a.py", "try: f()\nexcept: pass", "try: f()\nexcept BaseException:\n    g()\n    raise"),
    (
        no_broad_except,
        "agent/a.py",
        "try: f()\nexcept (OSError, Exception): pass",
        "try: f()\nexcept (OSError, ValueError): pass",
    ),
    (no_sleeping_tests, "tests/unit/a.py", "import time\ntime.sleep(1)", "import asyncio\nasync def f(): await asyncio.sleep(0)"),
    (no_sleeping_tests, "tests/unit/a.py", "import asyncio\nasync def f(): await asyncio.sleep(0.1)", "clock.sleep(1)"),
]


@pytest.mark.parametrize(("rule", "path", "bad", "good"), SAMPLES)
def test_rule_can_fail(rule: Rule, path: str, bad: str, good: str | None) -> None:
    assert rule(path, ast.parse(bad))
    if good is not None:
        assert not rule(path, ast.parse(good))


def test_every_rule_has_a_sample() -> None:
    assert {rule for rule, *_ in SAMPLES} == set(RULES)
