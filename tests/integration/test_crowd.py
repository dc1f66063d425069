"""Agents as real processes that come without the site, and leave in every way. The tests share one crowd, and keep it alive.

Alice and Bob host sixteen of the 32 experts each at most, so that a third agent finds something to do when one of them goes.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.crowd import EXPERIMENT, Agent, Site, processes_of

pytestmark = pytest.mark.demo

HALF = 16
LEAVING_S = 30.0
"""Leaving in good order ends the batches in flight (20 s at most) and gives up leases."""
AT_ONCE_S = 10.0


@dataclass
class Crowd:
    """The site, and whoever was started. `site` is dead after the first test that needs it to be."""

    directory: Path
    site: Site
    agents: dict[str, Agent] = field(default_factory=dict)

    def start(self, name: str, *flags: str) -> Agent:
        """Start it, anew if it ran before: it then remembers what it knew."""
        if name in self.agents:
            self.agents.pop(name).close()
        elif "alice" in self.agents and not self.site.child.running:  # no site to ask: it knows the manifest from before
            known = self.directory / name / "experiments"
            shutil.copytree(self.directory / "alice" / "experiments", known, dirs_exist_ok=True)
        self.agents[name] = agent = Agent(self.directory / name, self.site.url, *flags)
        return agent

    def kill_the_site(self) -> None:
        if self.site.child.running:
            self.site.send(signal.SIGKILL)
            self.site.wait()

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()
        self.site.close()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    directory = tmp_path_factory.mktemp("crowd")
    crowd = Crowd(directory, Site(directory / "site"))
    try:
        alice = crowd.start("alice", "--listen", "127.0.0.1:0", "--max-experts", str(HALF))
        alice.look_until(lambda: bool(alice.address), "alice listens")
        crowd.start("bob", "--max-experts", str(HALF))
        visit(crowd, "carol")
        for agent in crowd.agents.values():
            agent.until(lambda r: r.experts_alive == 32 and r.tokens > 0, "it trains with all experts")
        yield crowd
    finally:
        crowd.close()
    assert processes_of(directory) == []


def visit(crowd: Crowd, name: str) -> None:
    """It runs until it has trained, and leaves: what it knew of the crowd is on its disk now."""
    agent = crowd.start(name, "--max-experts", "0")
    agent.until(lambda r: r.tokens > 0, "it trains")
    agent.look_until((agent.home / "peers.json").exists, "it remembers addresses")
    agent.send(signal.SIGINT)
    assert agent.wait(LEAVING_S) == 0, agent.said
    agent.close()
    del crowd.agents[name]


def forget(crowd: Crowd, name: str, *, peers: bool) -> None:
    """Take away what an agent remembers of others: the coordinator's list of addresses, and with `peers` its own."""
    (kept,) = (crowd.directory / name / "experiments").glob("*.json")
    body = json.loads(kept.read_text())
    assert body["manifest"]["signature"]
    kept.write_text(json.dumps({**body, "bootstrap": []}))
    if peers:
        (crowd.directory / name / EXPERIMENT / "peers.json").unlink()


def test_one_with_a_cached_manifest_joins_by_bootstrap_without_the_site(crowd: Crowd) -> None:
    crowd.kill_the_site()
    forget(crowd, "carol", peers=True)
    carol = crowd.start("carol", "--max-experts", "0", "--bootstrap", crowd.agents["alice"].address)
    carol.until_trains(2048)
    assert carol.latest is not None and len(carol.latest.connections) == 2
    assert carol.latest.bytes_coordinator < 10_000  # it tried
    (joined,) = carol.events("joined")
    assert joined.detail["founded"] is False
    assert "Going on with the manifest that it gave before" in carol.said
    for name in ("alice", "bob"):
        crowd.agents[name].until_trains(1)


def test_one_that_remembers_peers_comes_back_without_the_site(crowd: Crowd) -> None:
    crowd.kill_the_site()
    carol = crowd.agents["carol"]
    carol.look_until((carol.home / "peers.json").exists, "carol remembers addresses")
    before = carol.latest
    assert before is not None
    carol.send(signal.SIGKILL)
    carol.wait()
    forget(crowd, "carol", peers=False)
    carol = crowd.start("carol", "--max-experts", "0")
    carol.until_trains(2048)
    assert carol.latest is not None and carol.latest.step > before.step  # her data goes on where it was


def test_leaving_in_good_order_hands_its_experts_on_soon(crowd: Crowd) -> None:
    dave = crowd.start("dave", "--bootstrap", crowd.agents["alice"].address)
    dave.until(lambda r: r.tokens > 0 and r.experts_alive == 32, "it trains with all experts")
    assert dave.hosts == set()  # all are hosted, and what has learned stays where it is
    bob = crowd.agents["bob"]
    given_up = bob.hosts
    assert len(given_up) == HALF
    bob.send(signal.SIGINT)
    assert bob.wait(LEAVING_S) == 0, bob.said
    (left,) = bob.events("left")
    assert {e.detail["uid"] for e in bob.events("expert-lost")} >= given_up
    assert {e.detail["reason"] for e in bob.events("expert-lost") if e.detail["uid"] in given_up} == {"left"}
    assert bob.latest is not None and bob.latest.stage == "stopped" and bob.latest.connections == ()
    dave.until(lambda r: given_up <= {e.uid for e in r.experts}, "dave hosts what bob gave up")
    last_claim = max(e.at for e in dave.events("expert-claimed") if e.detail["uid"] in given_up)
    assert last_claim - left.at < 8.0, "that is how long a killed host's leases last at least"
    dave.until(lambda r: r.experts_alive == 32, "all are alive again")
    dave.until_trains(1024)
    for name in ("alice", "dave"):
        crowd.agents[name].until_trains(1)
    assert all(r.loss is None or r.loss == r.loss for r in dave.reports)


def stop(agent: Agent) -> None:
    agent.send(signal.SIGTERM)


def interrupt_twice(agent: Agent) -> None:
    """The second Ctrl-C comes while the agent is leaving."""
    agent.send(signal.SIGINT)
    agent.look_until(lambda: "leaving in good order" in agent.said, "it leaves")
    agent.send(signal.SIGINT)


@pytest.mark.parametrize(("name", "leave", "codes"), [("carol", interrupt_twice, {130, 0}), ("dave", stop, {130})])
def test_stopping_at_once(crowd: Crowd, name: str, leave: Callable[[Agent], None], codes: set[int]) -> None:
    """Whoever hosts nothing may have left in good order (0) before the second Ctrl-C comes."""
    agent = crowd.agents.get(name) or crowd.start(name, "--bootstrap", crowd.agents["alice"].address)
    agent.until(lambda r: r.tokens > 0, "it trains")
    leave(agent)
    assert agent.wait(AT_ONCE_S) in codes, agent.said
    assert agent.events("left") and agent.latest is not None and agent.latest.stage == "stopped"
    crowd.agents["alice"].until_trains(1)


def test_nobody_complains(crowd: Crowd) -> None:
    """Last: what the survivors and those that left said in all that."""
    for name, agent in crowd.agents.items():
        assert "Traceback" not in agent.said, name
        assert not agent.events("error"), name
