"""Small runs of every simulation; the large ones are `./hive sim NAME`, their results in docs/results.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sim import calls, dht_churn, dht_hostile, dht_lookup, dht_split, dht_storm
from tests.sim.engine.command import Run

ROOT = Path(__file__).resolve().parents[2]


def passed(run: Run) -> dict[str, Any]:
    assert not run.failures
    return run.facts


@pytest.mark.parametrize("seed", [1, 2])
def test_lookups_without_faults_all_succeed(seed: int) -> None:
    run = Run(peers=150, seed=seed, options={"lookups": 1000})
    dht_lookup.scenario(run)
    facts = passed(run)
    assert facts["success"] == 1.0 and facts["hops"]["median"] <= 3


def test_records_survive_a_catastrophe_and_churn() -> None:
    run = Run(peers=150, seed=1, options={"minutes": 4})
    dht_churn.scenario(run)
    facts = passed(run)
    assert facts["readable"] >= 0.999 and facts["lookups"] >= 0.995


def test_a_split_overlay_becomes_one_again() -> None:
    run = Run(peers=80, seed=1)
    dht_split.scenario(run)
    facts = passed(run)
    assert facts["one_overlay_after_s"] <= 300 and facts["replicas_without_the_newest"] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_liars_cannot_make_anyone_accept_a_forged_or_a_replaced_record(seed: int) -> None:
    run = Run(peers=120, seed=seed, options={"liars": 0.1, "together": 0, "lookups": 250})
    dht_hostile.scenario(run)
    facts = passed(run)
    assert facts["lookups"] >= 0.99 and set(facts["outcomes"]) <= {"right", "silent"}


@pytest.mark.parametrize(("seed", "peers", "wired"), [(1, 60, 0), (7, 60, 0), (8, 60, 0), (1, 14, 1)])
def test_after_a_storm_the_overlay_is_whole_and_holds_its_records(seed: int, peers: int, wired: int) -> None:
    run = Run(peers=peers, seed=seed, options={"minutes": 3, "faults": 2.0, "lost": 0.02, "wired": wired})
    dht_storm.scenario(run)
    facts = passed(run)
    assert facts["readable_held"] == 1.0 and not facts["left_over"]
    kinds = "stall half_open cut slow narrow fail partition crash back_with_disk back_without_disk"
    assert set(facts["faults"]) == set(kinds.split())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calls_end_exactly_once_through_a_storm_and_leave_nothing(seed: int) -> None:
    run = Run(peers=12, seed=seed, options={"storm": 40, "lost": 0.005})
    calls.scenario(run)
    facts = passed(run)
    assert facts["calls_succeed_after_s"] <= calls.RECOVER_S and not facts["leaks"]
    assert {"answered", "cancelled", "CallTimeout", "CallRefused overloaded"} <= set(facts["load_outcomes"])
    assert {"LinkClosed", "NotReachable", "caller crashed"} <= set(facts["storm_outcomes"])


def sim(name: str, *words: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.sim.{name}", *words]
    return subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dht_lookup", ("--peers", "40", "--lookups", "100")),
        ("dht_storm", ("--peers", "30", "--minutes", "1")),
        ("calls", ("--peers", "8", "--storm", "15")),
    ],
)
def test_the_same_seed_gives_the_same_hash_in_two_processes(name: str, words: tuple[str, ...]) -> None:
    first, second = (json.loads(sim(name, *words, "--seed", "3", "--json", hash_seed=s).stdout) for s in ("1", "2"))
    timing = ("cpu_s", "wall_s", "resident_mb", "memory_per_peer_kb")
    assert {k: v for k, v in first.items() if k not in timing} == {k: v for k, v in second.items() if k not in timing}
    other = json.loads(sim(name, *words, "--seed", "4", "--json").stdout)
    assert other["hash"] != first["hash"]


def test_the_story_of_an_operation_is_told() -> None:
    number = "150"
    told = sim("dht_lookup", "--peers", "40", "--seed", "3", "--lookups", "60", "--story", number).stderr
    assert f"begins operation {number}" in told and f"operation {number} ends" in told


def test_a_failed_run_prints_the_line_that_reproduces_it(capsys: pytest.CaptureFixture[str]) -> None:
    from tests.sim.engine import command

    def scenario(run: Run) -> None:
        run.world().add()
        run.check(False, "this does not hold")

    assert command.main("some-name", scenario, peers=5, options=[("liars", 0.1, "share")], argv=["--seed", "9"]) == 1
    told = capsys.readouterr().err
    assert "this does not hold" in told and "./hive sim some-name --peers 5 --seed 9 --liars=0.1" in told


@pytest.mark.parametrize(
    ("module", "words", "sentence"),
    [
        ("dht_lookup", ["--peers", "1"], "at least 2 peers make an overlay"),
        ("dht_lookup", ["--lookups", "0"], "a number at least 1 is wanted, not '0'"),
        ("dht_hostile", ["--liars", "2"], "a number from 0 to 1 is wanted, not '2'"),
        ("dht_hostile", ["--together", "-1"], "a number at least 0 is wanted, not '-1'"),
        ("dht_storm", ["--faults", "nan"], "a number at least 0 is wanted, not 'nan'"),
        ("dht_churn", ["--minutes", "many"], "a number at least 1 is wanted, not 'many'"),
        ("beam", ["--grid", "99x99"], "2 to 64 each, as in 32x32, not '99x99'"),
    ],
)
def test_what_no_simulation_can_do_is_said_in_a_sentence(module: str, words: list[str], sentence: str) -> None:
    refused = subprocess.run([sys.executable, "-m", f"tests.sim.{module}", *words], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and sentence in refused.stderr and "Traceback" not in refused.stderr
