"""Beam search for experts by agents that know nothing of the grid, in a large overlay.

Peers join through the protocol; hosts publish leases and hints as the custodian does, and renew them; some crash. Then agents
that have never read a prefix search for the k best live experts of a batch, with the production search (moe/prefix_search.py) and
directory (experts/directory.py), which reads prefixes in bulk from the DHT. Each cold search is followed by one of the same agent
with another batch, for which what it has read is fresh. The truth is a brute-force search over the leases that have not expired.
Reported: how many of the experts are the same, virtual time, reads that follow one another, messages and bytes.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from agent.dht import events
from agent.dht.messages import Ack, Answer, Request, decode
from agent.dht.records import Record
from agent.experts import records
from agent.experts.directory import HINT_LEASES, Directory, DirectoryConfig
from agent.experts.records import Lease, PrefixHint, StoredRecord
from agent.grid import ExpertId, Grid
from agent.identity import PeerId
from agent.moe.gating import best_live, flat_number
from agent.moe.prefix_search import PrefixSearch
from tests.sim.dht_lookup import grow
from tests.sim.engine import World, make_record
from tests.sim.engine.chance import fork
from tests.sim.engine.command import Option, Run, main
from tests.sim.engine.workload import spread
from tests.sim.engine.world import KINDS

LEASE_S = 12.0
RENEW_S = LEASE_S / 3
LATENCY_S, JITTER_S = 0.050, 0.020
EXPERTS_PER_HOST = 2  # at least; more, if that would make hosts of more than a third of the peers
VACANT = 0.2  # share of the grid that nobody hosts
CRASHED = 0.05  # share of the hosts that crash before the searches
JOIN_GAP_S, SETTLE_S = 0.005, 45.0  # between two newcomers, and after the last
GAP_S = 0.25  # between two searches
SIDE_MAX = 64
PAPER_S = 0.764  # arXiv:2002.04013, beam search among 10,000 nodes
MESSAGES_MAX = 3000  # that one search may cause, in an overlay of any size
PUTS_AT_ONCE = 128


class Sides(str):
    """Rows x columns. Raises ArgumentTypeError for a grid that is none, or too large."""

    def __new__(cls, text: str) -> Sides:
        if not re.fullmatch(r"\d{1,2}x\d{1,2}", text) or not all(2 <= int(side) <= SIDE_MAX for side in text.split("x")):
            raise argparse.ArgumentTypeError(f"rows x columns are wanted, 2 to {SIDE_MAX} each, as in 32x32, not {text!r}")
        return super().__new__(cls, text)


class Hosts:
    """Who hosts what. `leases` is the truth: expert -> until when its newest lease lives."""

    def __init__(self, world: World, grid: Grid, rng: random.Random) -> None:
        self.world = world
        self.leases: dict[ExpertId, float] = {}
        self.of: dict[PeerId, list[ExpertId]] = {}
        self._sequence = 0
        experts = [uid for uid in grid if rng.random() >= VACANT]
        rng.shuffle(experts)
        each = max(EXPERTS_PER_HOST, -(-3 * len(experts) // len(world.alive())))
        peers = rng.sample(world.alive(), -(-len(experts) // each))
        for i, peer in enumerate(peers):
            self.of[peer] = experts[i * each : (i + 1) * each]
            world.at(world.now + rng.random() * RENEW_S, self._publish, peer, 0)

    def _publish(self, peer: PeerId, count: int) -> None:
        """What agent/experts/custodian.py publishes, as often as it does."""
        world = self.world
        if not world.peers[peer].alive:
            return
        self._sequence += 1
        entries: list[Record] = []
        for uid in self.of[peer]:
            lease = records.encode(Lease(str(uid), peer.raw, 1, count))
            entries.append(self._record(str(uid), "", peer, lease, LEASE_S))
            *upper, (name, coordinate) = uid.prefixes
            entries.append(self._record(name, str(coordinate), peer, lease, LEASE_S))
            if count % 3 == 0:
                hint = records.encode(PrefixHint(str(uid)))
                entries += [self._record(n, str(c), peer, hint, HINT_LEASES * LEASE_S) for n, c in upper]
        until = world.now + LEASE_S

        def stored(counts: Sequence[int]) -> None:
            by_name = {(e.key, e.subkey): count for e, count in zip(entries, counts, strict=True)}
            for uid in self.of[peer]:
                name, coordinate = uid.prefixes[-1]
                if by_name[world.key(name), str(coordinate)]:
                    self.leases[uid] = until

        world.start(peer, lambda op: events.Put(op, entries), stored)
        world.at(world.now + RENEW_S, self._publish, peer, count + 1)

    def _record(self, name: str, subkey: str, owner: PeerId, value: bytes, ttl_s: float) -> Record:
        world = self.world
        return make_record(world.key(name), owner, value, subkey=subkey, sequence=self._sequence, expires_at=world.now + ttl_s)

    def live(self, grid: Grid) -> Tensor:
        live_E = torch.zeros(len(grid), dtype=torch.bool)
        live_E[[flat_number(grid, uid) for uid, until in self.leases.items() if until > self.world.now]] = True
        return live_E


class Nobody:
    """The directory's reader; here prefixes are read by the world's operations instead."""

    async def get_many(self, names: Sequence[str], *, eager: bool = False) -> dict[str, list[StoredRecord]]:
        raise NotImplementedError


def _eager_get(keys: list[bytes], op: int) -> events.Get:
    return events.Get(op, keys, eager=True)


class Searcher:
    """One agent: what RemoteExperts.choose does, on the world's clock."""

    def __init__(self, world: World, peer: PeerId, grid: Grid) -> None:
        self.world = world
        self.peer = peer
        self.grid = grid
        config = DirectoryConfig(lease_s=LEASE_S, whole_max=1)
        self.directory = Directory(Nobody(), [grid], config, clock=lambda: world.now, unix=lambda: world.now)

    def choose(self, logits_UG: Tensor, k: int, on_done: Callable[[Tensor, PrefixSearch, int], None]) -> None:
        """`on_done` gets the choice, the search, and how many reads it took."""
        world, directory = self.world, self.directory
        search = PrefixSearch(self.grid, logits_UG, k)
        reads = 0

        def go_on() -> None:
            nonlocal reads
            while names := search.names():
                if unknown := directory.unknown(names):
                    reads += 1
                    keys = {name: world.key(name) for name in unknown}
                    world.start(self.peer, partial(_eager_get, list(keys.values())), came(keys))
                    return
                search.supply({name: directory.children(name) for name in names})
            on_done(search.best(), search, reads)

        def came(keys: dict[str, bytes]) -> Callable[[Any], None]:
            def done(found: dict[bytes, list[Record]]) -> None:
                directory.absorb_prefixes({name: found.get(key, []) for name, key in keys.items()})
                go_on()

            return done

        go_on()


class Tally:
    """What the searches of one kind have shown."""

    def __init__(self) -> None:
        self.same: list[float] = []
        self.located = 0
        self.chosen = 0
        self.times: list[float] = []
        self.reads: list[float] = []
        self.running = 0

    def note(self, run: Run, kind: str) -> None:
        run.note(f"{kind}_same_experts", sum(self.same) / len(self.same))
        run.note(f"{kind}_seconds", spread(self.times))
        run.note(f"{kind}_reads", spread(self.reads))
        run.note(f"{kind}_located", self.located / max(1, self.chosen))


def scenario(run: Run) -> None:
    """See the module."""
    rows, columns = (int(side) for side in run.options["grid"].split("x"))
    grid = Grid("ffn0", (rows, columns))
    world = run.world()
    grow(run, world, settle_s=SETTLE_S, gap_s=JOIN_GAP_S)
    world.links.latency_s, world.links.jitter_s = LATENCY_S, JITTER_S
    rng = fork(run.seed, "beam")
    hosts = Hosts(world, grid, rng)
    world.run(2.5 * RENEW_S)
    for peer in rng.sample(list(hosts.of), int(CRASHED * len(hosts.of))):
        world.kill(peer, noticed_after_s=None)
    world.run(2.0)
    run.note("live_experts", int(hosts.live(grid).sum()))
    run.say("leases are published")
    cold, warm = Tally(), Tally()
    meter = Meter(world)
    search_all(run, hosts, grid, cold, warm)
    meter.note(run, run.options["searches"])
    cold.note(run, "cold")
    warm.note(run, "warm")
    median_s = spread(cold.times)["median"]
    run.check(sum(cold.same) / len(cold.same) >= 0.99, "the searches found other experts than brute force")
    run.check(sum(warm.same) / len(warm.same) >= 0.99, "the searches that followed found other experts than brute force")
    run.check(median_s < PAPER_S, f"a search takes {median_s:.3f} s")
    run.check(run.facts["messages_per_search"] <= MESSAGES_MAX, "a search takes too many messages")


def search_all(run: Run, hosts: Hosts, grid: Grid, cold: Tally, warm: Tally) -> None:
    """Agents search, each twice, while hosts renew their leases."""
    world = hosts.world
    generator = torch.Generator().manual_seed(run.seed)
    idle = [p for p in world.alive() if p not in hosts.of]
    for peer in fork(run.seed, "searchers").sample(idle, run.options["searches"]):
        searcher = Searcher(world, peer, grid)

        def again(searcher: Searcher = searcher) -> None:
            search(run, hosts, searcher, warm, generator, lambda: None)

        search(run, hosts, searcher, cold, generator, again)
        world.run(GAP_S)
    world.run_until(lambda: not cold.running and not warm.running, within_s=60.0)


def search(
    run: Run, hosts: Hosts, searcher: Searcher, tally: Tally, generator: torch.Generator, then: Callable[[], None]
) -> None:
    """One search; judged when it ends."""
    world, grid, k = hosts.world, searcher.grid, run.options["k"]
    logits_UG = torch.randn(run.options["units"], sum(grid.shape), generator=generator)
    began = world.now
    tally.running += 1

    def done(chosen_UK: Tensor, found: PrefixSearch, reads: int) -> None:
        tally.running -= 1
        truth_UK = best_live(logits_UG, grid.shape, k, hosts.live(grid))
        same = (chosen_UK[:, :, None] == truth_UK[:, None, :]).any(dim=2)
        tally.same.append(float(same.float().mean()))
        tally.times.append(world.now - began)
        tally.reads.append(float(reads))
        uids = [ExpertId(grid.layer, divmod(int(n), grid.shape[1])) for n in chosen_UK.flatten() if n >= 0]
        tally.chosen += len(uids)
        tally.located += sum(searcher.directory.locate(uid) is not None for uid in uids)
        then()

    searcher.choose(logits_UG, k, done)


class Meter:
    """Messages and bytes that belong to reads: requests and answers with the tokens of searches, on every link."""

    def __init__(self, world: World) -> None:
        self.messages = self.bytes = self.received = 0
        self._hops: set[tuple[PeerId, PeerId, int]] = set()
        self._tokens: set[bytes] = set()
        self._origins: set[PeerId] = set()
        world.on_start.append(self._started)
        world.on_delivered.append(self._delivered)

    def _started(self, peer: Any, op: int, event: events.Event, effects: Sequence[events.Effect]) -> None:
        if isinstance(event, events.Get):
            sent = [decode(e.data) for e in effects if isinstance(e, events.Send)]
            self._tokens |= {m.token for m in sent if isinstance(m, Request)}
            self._origins.add(peer.peer)

    def _delivered(self, source: PeerId, target: PeerId, data: bytes) -> None:
        if KINDS[data[1]] not in ("Request", "Ack", "Answer"):
            return
        message = decode(data)
        if isinstance(message, Request):
            if message.token not in self._tokens:
                return
            self._hops.add((source, target, message.hop))
        elif isinstance(message, Ack | Answer) and (target, source, message.hop) not in self._hops:
            return
        self.messages += 1
        self.bytes += len(data)
        if target in self._origins and not isinstance(message, Request):
            self.received += len(data)

    def note(self, run: Run, searches: int) -> None:
        run.note("messages_per_search", self.messages / searches)
        run.note("kilobytes_per_search_all_links", self.bytes / searches / 1e3)
        run.note("kilobytes_per_search_at_the_agent", self.received / searches / 1e3)


if __name__ == "__main__":
    options: list[Option] = [
        ("grid", Sides("32x32"), "rows and columns of experts"),
        ("k", 4, "experts per row"),
        ("units", 16, "rows of a batch that are routed"),
        ("searches", 200, "agents that search"),
    ]
    sys.exit(main("beam", scenario, peers=1000, options=options))
