"""Lookups in a large overlay without faults.

Peers join through the protocol itself, each through a random earlier one; some store records; then random peers read random
records. Reported: success, hops to the peer that answered first, virtual time, messages per lookup, memory per peer.
"""

from __future__ import annotations

import sys
from statistics import median

from tests.sim.engine import World
from tests.sim.engine.command import Run, main
from tests.sim.engine.survey import components, resident_bytes, strangers
from tests.sim.engine.workload import Hops, Library, spread

JOIN_GAP_S = 0.02  # between two newcomers
SETTLE_S = 60.0
RECORDS_MAX = 1000
GAP_S = 0.01  # between the starts of two operations
QUIET_S = 20.0  # over which the overlay's own messages are counted


def scenario(run: Run) -> None:
    """See the module."""
    world = run.world()
    before = resident_bytes()
    grow(run, world)
    run.note("memory_per_peer_kb", (resident_bytes() - before) / run.peers / 1000)
    library = Library(world)
    fill(run, library, min(RECORDS_MAX, run.peers))
    read(run, library, run.options["lookups"])


def grow(run: Run, world: World, *, settle_s: float = SETTLE_S, gap_s: float = JOIN_GAP_S) -> None:
    """All peers join through the protocol, and settle."""
    for n in range(0, run.peers, 1000):
        world.grow(min(1000, run.peers - n), gap_s=gap_s)
        run.say(f"{len(world.peers)} peers have come")
    world.run(settle_s)
    settled = [p.settled_at - p.born_at for p in world.peers.values() if p.settled_at is not None]
    run.note("settle_s_median", median(settled))
    run.note("join_messages_per_peer", world.delivered / run.peers)
    run.note("links_per_peer", sum(len(p.links) for p in world.peers.values()) / run.peers)
    run.note("links_most", max(len(p.links) for p in world.peers.values()))
    run.note("without_their_replicas", strangers(world, min(world.config.replicas, run.peers - 1)))
    run.check(len(settled) == run.peers, f"{run.peers - len(settled)} peers have not found their place")
    run.check(len(components(world)) == 1, "the overlay is not one")
    run.say("they have settled")


def fill(run: Run, library: Library, count: int) -> None:
    """Random peers write a record each."""
    world = library.world
    peers = world.alive()
    for i in range(count):
        library.write(f"record{i}", world.rng.choice(peers))
        world.run(GAP_S)
    library.finish()
    run.note("records", count)
    run.note("replicas_least", min(library.stored.values()))
    run.check(min(library.stored.values()) >= 1, "a record was stored nowhere")
    run.say(f"{count} records are written")


def read(run: Run, library: Library, lookups: int) -> None:
    """Random peers read random records."""
    world = library.world
    delivered = world.delivered
    world.run(QUIET_S)
    idle_per_s = (world.delivered - delivered) / QUIET_S
    peers, keys = world.alive(), list(library.written)
    hops = Hops(world)
    delivered, began = world.delivered, world.now
    for _ in range(lookups):
        library.read(world.rng.choice(peers), world.rng.choice(keys))
        world.run(GAP_S)
    library.finish()
    messages = world.delivered - delivered - idle_per_s * (world.now - began)
    run.note("lookups", lookups)
    run.note("success", library.share("right"))
    run.note("outcomes", dict(library.reads))
    run.note("failed", library.failed)
    run.note("hops", spread([float(h) for h in hops.found]))
    run.note("lookup_s", spread(library.times))
    run.note("messages_per_lookup", messages / lookups)
    run.note("idle_messages_per_peer_per_s", idle_per_s / len(peers))
    run.check(library.share("right") == 1.0, f"{library.failed} did not bring the record")
    if run.peers <= 10_000:
        run.check(median(hops.found) <= 5, f"the median of hops is {median(hops.found)}")


if __name__ == "__main__":
    sys.exit(main("dht-lookup", scenario, peers=1000, options=[("lookups", 5000, "how many lookups")]))
