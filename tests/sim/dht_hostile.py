"""A share of the peers lie: they drop requests, forge records, replay old ones, or answer with made-up neighbours.

They join as honest peers do, and begin to lie once everybody has found its place and a first version of every record is written;
so they have old versions to replay; with --together=1 they sign for one another (engine/lies.py). Then owners write newer ones,
and write again until they read them back, as agents that renew their leases do. Honest peers read, carefully, with production's
settings.
"""

from __future__ import annotations

import sys

from tests.sim.dht_lookup import fill, grow
from tests.sim.engine import World
from tests.sim.engine.chance import fork
from tests.sim.engine.command import Run, Share, main
from tests.sim.engine.lies import MANNERS, Liar
from tests.sim.engine.survey import components
from tests.sim.engine.workload import Library, spread

RECORDS_MAX = 500
GAP_S = 0.02
LOOKUPS_MIN = 0.99
REST_S = 60.0


def scenario(run: Run) -> None:
    """See the module."""
    world = run.world()
    grow(run, world)
    library = Library(world)
    library.confirm = True
    fill(run, library, min(RECORDS_MAX, run.peers))
    liars = corrupt(run, world)
    honest = [peer for peer in world.alive() if peer not in liars]
    world.run(REST_S)
    rewrite(run, library, liars)
    world.run(REST_S)
    keys = [key for key, record in library.written.items() if record.owner not in liars]
    for _ in range(run.options["lookups"]):
        library.read(world.rng.choice(honest), world.rng.choice(keys))
        world.run(GAP_S)
    library.finish()
    judge(run, world, library)


def corrupt(run: Run, world: World) -> set[object]:
    """A share of the peers begin to lie."""
    rng = fork(run.seed, "liars")
    liars = rng.sample(world.alive(), int(run.options["liars"] * run.peers))
    for i, peer in enumerate(liars):
        ring = liars if run.options["together"] else [peer]
        store = world.peers[peer].node.core.store
        held = [record for key in list(store.keys()) for record in store.get(key, world.now)]
        world.peers[peer].liar = Liar(MANNERS[i % len(MANNERS)], rng, ring, held)
    return set(liars)


def rewrite(run: Run, library: Library, liars: set[object]) -> None:
    """Honest owners write a newer version of everything."""
    for i, record in enumerate(list(library.written.values())):
        if record.owner not in liars:
            library.write(f"record{i}", record.owner, tries=30)
            library.world.run(GAP_S)
    library.finish(within_s=200.0)
    run.say("newer records are written")


def judge(run: Run, world: World, library: Library) -> None:
    lookups = library.share("right")
    run.note("lookups", lookups)
    run.note("outcomes", dict(sorted(library.reads.items())))
    run.note("tries_per_write", library.tries / len(library.written))
    run.note("failed", library.failed)
    run.note("lookup_s", spread(library.times))
    run.note("parts", components(world)[:3])
    run.check(library.reads["forged"] == 0, "a forged record was accepted")
    run.check(library.reads["older"] == 0, f"{library.reads['older']} lookups accepted a record that had been replaced")
    run.check(lookups >= LOOKUPS_MIN, f"{lookups:.4f} of the lookups succeed, not {LOOKUPS_MIN}")


OPTIONS = [
    ("liars", Share(0.10), "share of peers that lie"),
    ("together", 0, "1: liars sign for one another, which no check of a single signature finds out"),
    ("lookups", 2000, "how many lookups"),
]

if __name__ == "__main__":
    sys.exit(main("dht-hostile", scenario, peers=1000, options=OPTIONS))
