"""A deterministic discrete-event simulator that drives the agent's own sans-IO machines, thousands to a process.

    world = World(seed=7)                          # one heap, a virtual clock, randomness forked from the seed per concern
    peers = world.grow(200)                        # each joins through a random earlier one, by the protocol itself
    world.put(peers[3], "name", b"value")          # operations run the clock until they are done ...
    records = world.get(peers[9], "name")
    world.start(peers[5], lambda op: events.Get(op, keys), on_done)      # ... or are started, and end in a callback
    world.run(30.0)                                # virtual seconds
    world.links.lost = 0.01                        # see links.Links, World.partition, kill, restart, half_open, stall
    Storm(world, rng).blow(60.0)                   # ... or all of it, until storm.pass_()
    world.trace.hexdigest()                        # running hash of everything delivered: equal for equal seeds

    schedule.py   the heap and the clock            links.py    how links behave, and what is wrong with them now
    chance.py     randomness per concern            world.py    peers, and the effects of their machines
    records.py    stand-ins for signatures          story.py    the causal history of one operation
    survey.py     what is true of the whole overlay command.py  ./hive sim NAME: options, output, reproduction
    storm.py      everything that can go wrong      workload.py records, and readers who know what they should find

A `wired.WiredWorld` has the protocol of agent/wire on every link, under the DHT's messages and the calls of peers:

    wired.py      the world of such links           wires.py    one end: handshake and connection machine
    pipes.py      one direction of a link           calling.py  peers that call one another, and what came of each call

A simulation is a module of tests.sim with `main()`; `./hive sim some-name` runs tests/sim/some_name.py. See dht_lookup.py.
"""

from tests.sim.engine.links import Links
from tests.sim.engine.records import CheapSeal, cheap_verify, make_record
from tests.sim.engine.schedule import START, Schedule
from tests.sim.engine.world import SimPeer, World

__all__ = ["START", "CheapSeal", "Links", "Schedule", "SimPeer", "World", "cheap_verify", "make_record"]
