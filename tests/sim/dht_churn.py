"""Records and lookups while peers come and go: a fifth of them killed at once, then steady churn, and messages lost throughout.

Records are written once, by peers that may themselves leave; what keeps them is repair. Each minute of the steady churn 1 % of
the peers leave, half of them without a word, and as many come. Reads go on all the time. Some peers have an address of their own
(the bootstrap role), and every peer has cached a few of these when it came, as agents do: nothing else leads a few peers whose
neighbours all died back to the others.
"""

from __future__ import annotations

import sys

from agent.identity import PeerId
from tests.sim.dht_lookup import fill, grow
from tests.sim.engine import World
from tests.sim.engine.command import Run, main
from tests.sim.engine.survey import components, strangers
from tests.sim.engine.workload import Library, spread

RECORDS_MAX = 1000
BOOTSTRAPS = 0.02  # of all peers
KILLED = 0.20
LEAVING_PER_MINUTE = 0.01
LOST = 0.01  # of all messages
LOOKUPS_PER_MINUTE = 200
READABLE_MIN, LOOKUPS_MIN = 0.999, 0.995


def scenario(run: Run) -> None:
    """See the module."""
    world = run.world()
    grow(run, world)
    world.tell_entrances(max(2, int(BOOTSTRAPS * run.peers)))
    library = Library(world)
    fill(run, library, min(RECORDS_MAX, run.peers))
    world.links.lost = LOST
    catastrophe(run, world, library)
    for minute in range(run.options["minutes"]):
        churn(world, library, run.peers)
        if minute % 10 == 9:
            run.say(f"minute {minute + 1}")
    library.finish()
    heal(run, world, library)
    judge(run, library)


def catastrophe(run: Run, world: World, library: Library) -> None:
    """Many die at once, and their neighbours take some seconds to notice."""
    for peer in world.rng.sample(world.alive(), int(KILLED * run.peers)):
        world.kill(peer, noticed_after_s=None)
    read(world, library, "catastrophe/", LOOKUPS_PER_MINUTE, over_s=60.0)
    run.say("a fifth of the peers have died")


def churn(world: World, library: Library, peers: int) -> None:
    """A minute of it."""
    each = max(1, round(LEAVING_PER_MINUTE * peers))
    for i in range(each):
        at = world.now + 60.0 * world.rng.random()
        world.at(at, leave, world, i % 2 == 0)
        world.at(world.now + 60.0 * world.rng.random(), world.join)
    began = world.now
    read(world, library, "churn/", LOOKUPS_PER_MINUTE, over_s=60.0)
    appoint(world, [peer for peer in world.alive() if world.peers[peer].born_at >= began])


def appoint(world: World, newcomers: list[PeerId]) -> None:
    """Of those who came, some have an address of their own, in place of those who left; old caches keep the old ones."""
    gone = [place for place, peer in enumerate(world.entrances) if not world.peers[peer].alive]
    for place, peer in zip(gone, world.rng.sample(newcomers, min(len(newcomers), len(gone))), strict=False):
        world.entrances[place] = peer


def leave(world: World, silently: bool) -> None:
    peer = world.rng.choice(world.alive())
    world.kill(peer, noticed_after_s=None if silently else 0.0)


def read(world: World, library: Library, kind: str, count: int, *, over_s: float) -> None:
    """Start reads by random peers that have found their place, evenly over the time."""
    keys = list(library.written)
    for _ in range(count):
        readers = [p for p in world.alive() if world.peers[p].settled_at is not None]
        library.read(world.rng.choice(readers), world.rng.choice(keys), kind=kind)
        world.run(over_s / count)


def heal(run: Run, world: World, library: Library) -> None:
    """Peace; then every record is read once."""
    world.links.lost = 0.0
    world.run(120.0)
    peers = world.alive()
    for key in library.written:
        library.read(world.rng.choice(peers), key, kind="after/")
        world.run(0.01)
    library.finish()
    run.note("alive", len(peers))
    run.note("parts", components(world)[:4])
    run.note("without_their_replicas", strangers(world, world.config.replicas))


def judge(run: Run, library: Library) -> None:
    run.note("outcomes", dict(sorted(library.reads.items())))
    run.note("failed", library.failed)
    run.note("lookup_s", spread(library.times))
    run.note("lookups_in_catastrophe", library.share("right", kind="catastrophe/"))
    lookups, readable = library.share("right", kind="churn/"), library.share("right", kind="after/")
    run.note("lookups", lookups)
    run.note("readable", readable)
    run.check(lookups >= LOOKUPS_MIN, f"{lookups:.4f} of the lookups succeed, not {LOOKUPS_MIN}")
    run.check(readable >= READABLE_MIN, f"{readable:.4f} of the records are readable, not {READABLE_MIN}")


if __name__ == "__main__":
    sys.exit(main("dht-churn", scenario, peers=1000, options=[("minutes", 60, "virtual minutes of steady churn")]))
