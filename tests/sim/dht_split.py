"""Two halves of the network do not reach each other for ten minutes; then they do, and are to be one overlay again.

During the split each half goes on, and owners in both write newer records. Some peers have an address of their own (the bootstrap
role), and every peer has cached a few of these, as agents do: nothing else can lead from one half into the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from agent.dht.records import Record
from agent.identity import PeerId
from tests.sim.dht_lookup import fill, grow
from tests.sim.engine import World
from tests.sim.engine.command import Run, main
from tests.sim.engine.survey import Ring, components, strangers
from tests.sim.engine.workload import Library

RECORDS_MAX = 400
BOOTSTRAPS = 0.02  # of all peers
SPLIT_S = 600.0
HEAL_S = 300.0
STEP_S = 5.0


def scenario(run: Run) -> None:
    """See the module."""
    world = run.world()
    grow(run, world)
    world.tell_entrances(max(2, int(BOOTSTRAPS * run.peers)))
    library = Library(world)
    fill(run, library, min(RECORDS_MAX, run.peers))
    split(run, world, library)
    reunite(run, world, library)


def split(run: Run, world: World, library: Library) -> None:
    """Ten minutes apart, in which every other record is written anew."""
    half = {peer: world.rng.randrange(2) for peer in world.peers}
    world.partition(half.__getitem__)
    world.run(SPLIT_S / 2)
    for i, record in enumerate(list(library.written.values())):
        if i % 2 == 0:
            library.write(f"record{i}", record.owner)
    library.finish()
    world.run(SPLIT_S / 2)
    parts = components(world)
    run.note("parts_during_the_split", parts[:4])
    run.check(len(parts) >= 2, "the overlay was not split")
    read_all(world, library, "split/", lambda owner, reader: half[owner] == half[reader])
    run.say("the halves have gone their own ways")


def reunite(run: Run, world: World, library: Library) -> None:
    """How long it takes until everybody is connected to the peers that are closest to it, of both halves."""
    world.heal()
    began = world.now
    least = world.config.replicas
    one = False
    while world.now < began + HEAL_S and not one:
        world.run(STEP_S)
        one = len(components(world)) == 1 and strangers(world, least) == 0
    run.note("one_overlay_after_s", world.now - began if one else None)
    run.note("without_their_replicas_after", strangers(world, least))
    run.check(one, f"{strangers(world, least)} peers do not know their closest peers after {HEAL_S:.0f} s")
    world.run(max(0.0, began + HEAL_S - world.now))
    run.note("came_over", sum(p.node._reunion.crossed > 0 for p in world.peers.values()))
    ring = Ring(world)
    stale = sum(outdated(world, record, ring) for record in library.written.values())
    run.note("replicas_without_the_newest", stale)
    run.check(stale == 0, f"{stale} replicas lack the newest record")
    read_all(world, library, "after/", lambda owner, reader: True)
    run.note("outcomes", dict(sorted(library.reads.items())))
    run.note("failed", library.failed)
    run.check(library.share("right", kind="after/") == 1.0, "not everybody reads the newest records")


def outdated(world: World, record: Record, ring: Ring | None = None) -> int:
    """Of the peers closest to a record, how many do not hold it."""
    closest = (ring or Ring(world)).closest(world.space.decode(record.key), world.config.replicas)
    return sum(record not in world.peers[peer].node.core.store.get(record.key, world.now) for peer in closest)


def read_all(world: World, library: Library, kind: str, fits: Callable[[PeerId, PeerId], bool]) -> None:
    """Read every record from a random peer that fits its owner."""
    peers = world.alive()
    for key, record in library.written.items():
        reader = world.rng.choice(peers)
        while not fits(record.owner, reader):
            reader = world.rng.choice(peers)
        library.read(reader, key, kind=kind)
        world.run(0.01)
    library.finish()


if __name__ == "__main__":
    sys.exit(main("dht-split", scenario, peers=1000))
