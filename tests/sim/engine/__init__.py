"""A deterministic discrete-event simulator that drives the agent's own sans-IO machines, thousands to a process.

    world = World(seed=7)                          # one heap, a virtual clock, randomness forked from the seed per concern
    peers = world.grow(200)                        # each joins through a random earlier one, by the protocol itself
    world.put(peers[3], "name", b"value")          # operations run the clock until they are done ...
    records = world.get(peers[9], "name")
    world.start(peers[5], lambda op: events.Get(op, keys), on_done)      # ... or are started, and end in a callback
    world.run(30.0)                                # virtual seconds
    world.links.lost = 0.01                        # the storm: see links.Links, World.partition, crash, restart, half_open, stall
    world.trace.hexdigest()                        # running hash of everything delivered: equal for equal seeds

    schedule.py   the heap and the clock            links.py    how links behave, and what is wrong with them now
    chance.py     randomness per concern            world.py    peers, and the effects of their machines
    records.py    stand-ins for signatures          story.py    the causal history of one operation
    survey.py     what is true of the whole overlay command.py  ./hive sim NAME: options, output, reproduction

A simulation is a module of tests.sim with `main()`; `./hive sim some-name` runs tests/sim/some_name.py. See dht_lookup.py.
"""

from tests.sim.engine.links import Links
from tests.sim.engine.records import cheap_verify, make_record
from tests.sim.engine.schedule import START, Schedule
from tests.sim.engine.world import SimPeer, World

__all__ = ["START", "Links", "Schedule", "SimPeer", "World", "cheap_verify", "make_record"]
