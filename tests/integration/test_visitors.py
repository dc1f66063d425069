"""Visitors, as processes, to a crowd that trains: what they get of its model, and that they leave no trace."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import modelfile
from agent.scoring import score
from agent.training import load_data, make_batches
from tests.integration.crowd import EXPERIMENT, Agent, Ended, Site, agent_command, processes_of, run_to_end

pytestmark = [pytest.mark.demo, pytest.mark.slow]


@dataclass
class Crowd:
    site: Site
    home: Path
    agents: list[Agent]
    too_early: Ended | None = None
    """A visit when nobody was there yet."""

    def peers(self) -> set[str]:
        return {json.loads((agent.home / "status.json").read_text())["peer"] for agent in self.agents}

    def visit(self, verb: str, *words: str) -> Ended:
        where = ("--coordinator", self.site.url, "--state-dir", str(self.home), "--threads", "1")
        return run_to_end(agent_command(verb, EXPERIMENT, *where, *words))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Alice and Bob host all experts, and have trained with them."""
    directory = tmp_path_factory.mktemp("visited")
    site = Site(directory / "site")
    crowd = Crowd(site, directory / "visitor", [])
    agents = crowd.agents
    try:
        crowd.too_early = crowd.visit("evaluate", "--json")
        agents.append(Agent(directory / "alice", site.url, "--listen", "127.0.0.1:0", "--max-experts", "16"))
        agents[0].look_until(lambda: bool(agents[0].address), "alice listens")
        agents.append(Agent(directory / "bob", site.url, "--max-experts", "16"))
        for agent in agents:
            agent.until(lambda r: r.experts_alive == 32 and r.tokens > 0, "it trains with all experts")
        agents[0].until_trains(40_000)
        yield crowd
    finally:
        for agent in agents:
            agent.close()
        site.close()
    assert processes_of(directory) == []


def test_where_nobody_is_there_is_no_model(crowd: Crowd) -> None:
    ended = crowd.too_early
    assert ended is not None and ended.returncode == 15 and ended.stdout == ""
    assert "nobody takes part in gpt-crowd now" in ended.stderr.splitlines()[-1]


def test_evaluate_says_what_the_crowd_has_learnt(crowd: Crowd) -> None:
    ended = crowd.visit("evaluate", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["experiment"] == EXPERIMENT and found["step"] > 0 and found["units"] == "tokens"
    assert 1.0 < found["loss"] < 5.4, "an untrained model's is ln 256 = 5.55"
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert 0.05 < found["accuracy"] < 1 and found["held_out"] >= 4096
    assert found["experts"] == 32 and found["experts_alive"] >= 30 and 8 <= found["experts_answered"] <= 32, found


def test_generate_continues_a_prompt_and_ends(crowd: Crowd) -> None:
    ended = crowd.visit("generate", "--prompt", "def main(", "--length", "60", "--seed", "7")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("def main(") and ended.stdout.endswith("\n")
    assert 30 <= len(ended.stdout) - len("def main(\n") <= 60


def test_export_takes_the_model_home(crowd: Crowd) -> None:
    """What is read back is worth about what `evaluate` says: the crowd goes on learning between the two."""
    out = crowd.home / "model.safetensors"
    ended = crowd.visit("export", "--out", str(out), "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    saved = modelfile.load(out)
    assert told["experts"] + len(told["missing"]) == 32 and told["experts"] == len(saved.experts) >= 30, told
    assert saved.step == told["step"] > 0 and told["manifest_sha256"] == modelfile.digest(saved.manifest)
    here = score(saved.model(), make_batches(saved.manifest, load_data(saved.manifest), peer="").validation())
    there = json.loads(crowd.visit("evaluate", "--json").stdout)
    assert here is not None and here.loss == pytest.approx(there["loss"], abs=0.3) and here.targets == there["held_out"]
    again = crowd.visit("export", "--out", str(out))
    assert again.returncode == 4 and "--force replaces it" in again.stderr.splitlines()[-1]


def test_visitors_leave_no_trace_and_disturb_nobody(crowd: Crowd) -> None:
    """Last. The site knows two agents; the crowd has recorded no more than that somebody came and went."""
    assert not (crowd.home / EXPERIMENT / "records.jsonl").exists()
    for what in ("peers", "contributions"):
        with urllib.request.urlopen(f"{crowd.site.url}/api/v1/experiments/{EXPERIMENT}/{what}") as response:
            told = json.load(response)
        assert {item["peer"] for item in told} == crowd.peers(), what
    for agent in crowd.agents:
        agent.until_trains(1)
        assert "Traceback" not in agent.said and not agent.events("error")
