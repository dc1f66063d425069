"""Two phases: a storm of everything that can go wrong with links and peers, then peace, after which all must be right again.

In the storm links stall, close, or stay open at one end only; bandwidth is short, messages are lost, most connections fail,
peers are slow, crash and come back with and without their disk, and some are parted from the others; records are written and
read meanwhile. Afterwards the overlay must be one, with everybody connected to those closest to it; records that a live peer
holds must be readable at once, with every replica in place, and those that only their owner still has once it has written them
again; and no node may be left with requests, calls or dials that nobody waits for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from agent.dht.records import Record
from tests.sim.dht_lookup import fill, grow
from tests.sim.dht_split import outdated
from tests.sim.engine import World
from tests.sim.engine.chance import fork
from tests.sim.engine.command import Run, Share, main
from tests.sim.engine.storm import Storm, Weather
from tests.sim.engine.survey import Ring, components, leftovers, strangers
from tests.sim.engine.wired import WiredWorld
from tests.sim.engine.workload import Library
from tests.sim.engine.world import SimPeer

RECORDS_MAX = 400
BOOTSTRAPS = 0.05  # of all peers, at least 3
STEP_S, READS_PER_STEP = 1.0, 2
ONE_S = 300.0  # within which the overlay is one again
REPLICAS_S = 180.0  # after that, until every replica is in place
READ_OVER_S = 20.0


def scenario(run: Run) -> None:
    """See the module."""
    world = run.add(WiredWorld(run.seed)) if run.options["wired"] else run.world()
    grow(run, world)
    world.tell_entrances(max(3, int(BOOTSTRAPS * run.peers)))
    library = Library(world)
    fill(run, library, min(RECORDS_MAX, run.peers))
    writers = {record.key: world.peers[record.owner] for record in library.written.values()}
    storm(run, world, library, writers)
    held = [r for r in library.written.values() if is_held(world, r)]
    heal(run, world)
    judge_held(run, world, library, held)
    judge_owned(run, world, library, writers)
    left = leftovers(world)
    run.note("left_over", left)
    run.check(not left, f"something is left over: {left}")


def storm(run: Run, world: World, library: Library, writers: dict[bytes, SimPeer]) -> None:
    """Faults, and meanwhile writes and reads by whoever is alive. `writers`: which process wrote each record last."""
    rng = fork(run.seed, "storm")
    seconds = 60.0 * run.options["minutes"]
    bad = Storm(world, rng, Weather(fault_every_s=60.0 / (run.options["faults"] * run.peers)))
    bad.blow(seconds)
    world.links.lost = run.options["lost"]
    names = {world.key(f"record{i}"): f"record{i}" for i in range(len(library.written))}
    end = world.now + seconds
    while world.now < end:
        key = rng.choice(list(library.written))
        owner = world.peers[library.written[key].owner]
        if owner.alive:  # perhaps it has crashed since it wrote last, and is back
            library.write(names[key], owner.peer)
            writers[key] = owner
        for _ in range(READS_PER_STEP):
            library.read(rng.choice(world.alive()), rng.choice(list(library.written)), kind="storm/")
        world.run(STEP_S)
    world.links.lost = 0.0
    bad.pass_()
    run.note("faults", dict(sorted(bad.faults.items())))
    run.note("parts_at_the_end_of_the_storm", components(world)[:4])
    run.say("the storm is over")


def is_held(world: World, record: Record) -> bool:
    return any(record in p.node.core.store.get(record.key, world.now) for p in world.peers.values() if p.alive)


def heal(run: Run, world: World) -> None:
    """How long it takes until the overlay is whole."""
    began = world.now
    one = False
    while world.now < began + ONE_S and not one:
        world.run(STEP_S)
        one = len(components(world)) == 1 and strangers(world, world.config.replicas) == 0
    run.note("one_overlay_after_s", world.now - began if one else None)
    lost = strangers(world, world.config.replicas)
    run.check(one, f"{lost} peers do not know those closest to them after {ONE_S:.0f} s, in parts of {components(world)[:4]}")


def judge_held(run: Run, world: World, library: Library, held: list[Record]) -> None:
    """Records that a live peer held when the storm was over."""
    began, ring = world.now, Ring(world)
    missing = sum(outdated(world, r, ring) for r in held)
    while missing and world.now < began + REPLICAS_S:
        world.run(STEP_S)
        missing = sum(outdated(world, r, ring) for r in held)
    run.note("replicas_in_place_after_s", world.now - began if not missing else None)
    run.check(not missing, f"{missing} replicas lack the newest record after {REPLICAS_S:.0f} s")
    read_once(world, library, [r for r in held if library.written[r.key] is r], "held/")
    run.note("held", len(held))
    run.note("readable_held", library.share("right", kind="held/"))
    run.check(library.share("right", kind="held/") == 1.0, f"records with a live holder are not readable: {library.failed}")


def judge_owned(run: Run, world: World, library: Library, writers: dict[bytes, SimPeer]) -> None:
    """Records whose owner has lived since it wrote them: it writes them again."""
    world.run(1.3 * world.config.republish_s)
    owned = [r for r in library.written.values() if writers[r.key].alive]
    read_once(world, library, owned, "owned/")
    run.note("owned", len(owned))
    run.note("readable_owned", library.share("right", kind="owned/"))
    run.note("outcomes", dict(sorted(library.reads.items())))
    run.note("failed", library.failed)
    wrong = library.share("right", kind="owned/") < 1.0
    run.check(not (owned and wrong), f"records of live owners are not readable: {library.failed}")


def read_once(world: World, library: Library, records: Iterable[Record], kind: str) -> None:
    """Each is read once, by a random peer."""
    peers, records = world.alive(), list(records)
    library.failed.clear()
    for record in records:
        library.read(world.rng.choice(peers), record.key, kind=kind)
        world.run(READ_OVER_S / len(records))
    library.finish()


if __name__ == "__main__":
    options = [
        ("minutes", 5, "virtual minutes of storm"),
        ("faults", 0.5, "faults per peer and minute"),
        ("lost", Share(0.01), "share of messages lost in the storm; with wires, of those that have to be sent again"),
        ("wired", 0, "1: with the handshake and the connection machine of agent/wire on every link, for some hundred peers"),
    ]
    sys.exit(main("dht-storm", scenario, peers=300, options=options))
