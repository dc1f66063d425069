"""Peers that join the overlay over the real protocol and call one another for experts: load, then a storm, then peace.

Every link has the handshake and the connection machine of agent/wire at both ends, and carries the DHT's messages beside calls.
Several callers share each callee; tensors have up to a megabyte; every call has a deadline, some are given up, and more is asked
than callees and links can take. In the storm links stall, close, are narrow or half open, connections fail, peers are slow,
parted from the others, or crash and come back with and without their disk.

Checked: every call ends exactly once, in time, with the right answer or a named error; small calls overtake tensors; what a
connection holds stays within its limits; soon after the storm all calls succeed; in the end nothing is left on the books of any
connection, and every credit has come back; the overlay is one, and its nodes wait for nothing.
"""

from __future__ import annotations

import sys
from random import Random

from agent.identity import PeerId
from agent.wire.config import KIB, MIB, WireConfig
from tests.sim.dht_lookup import grow
from tests.sim.engine.calling import ANSWERED, CANCELLED, CRASHED, Call, Calls, leaks
from tests.sim.engine.chance import fork
from tests.sim.engine.command import Run, Share, main
from tests.sim.engine.storm import Storm, Weather
from tests.sim.engine.survey import components, leftovers, strangers
from tests.sim.engine.wired import WiredPeer, WiredWorld
from tests.sim.engine.wires import LINK_MESSAGE_BYTES_MAX
from tests.sim.engine.workload import spread
from tests.sim.engine.world import SimPeer

# As in production, but so small that the limits are met: one connection holds a few tensors of a caller.
WIRE = WireConfig(
    message_bytes_max=MIB + KIB,
    request_bytes_max=3 * MIB // 2,
    response_bytes_max=3 * MIB // 2,
    window_bytes=MIB,
    outbound_bytes_max=3 * MIB,
    inbound_calls_max=4,
    outbound_calls_max=8,
)
ROOM_BYTES = MIB // 4
NAMED = {
    ANSWERED, CANCELLED, CRASHED, "CallTimeout", "LinkClosed", "NotReachable", "LocalError", "HandshakeRejected",
    "CallRefused overloaded", "CallRefused deadline", "CallRefused cancelled",
}  # fmt: skip
SIZES = (4 << 10, 1 << 20)  # of tensors, bytes; as many between 4 and 8 KiB as between 512 KiB and 1 MiB
BATCHES_AT_ONCE, EXPERTS_PER_BATCH = 3, 3
THINK_S = (0.1, 0.6)
TIMEOUTS_S = (1.0, 4.0, 10.0)
GIVEN_UP = 0.08  # share of calls that their callers cancel
HOSTS = 0.25  # of the peers
BYTES_PER_S = 4e6  # of a link in one direction
LOAD_S = 20.0
SETTLE_S = 20.0
RECOVER_S = 90.0  # after the storm, until everybody has had an answer from all whom it calls
OVERLAY_S = 300.0
OVERTAKE_MIN = 0.9
ANSWERED_MIN = 0.9  # of the calls that nobody gave up, in the load before the storm


class Workload:
    """Who calls whom, all the time: each peer has batches in flight, each batch several experts and a word in between."""

    def __init__(self, world: WiredWorld, calls: Calls, rng: Random) -> None:
        self.world = world
        self.calls = calls
        self.rng = rng
        self.hosts: list[PeerId] = rng.sample(world.alive(), max(2, int(HOSTS * len(world.alive()))))
        self.running = True
        for peer in world.alive():
            self._begin(peer)

    def _begin(self, peer: PeerId) -> None:
        for _ in range(BATCHES_AT_ONCE):
            self.world.at(self.world.now + self.rng.random(), self._batch, self.world.wired(peer))

    def _batch(self, me: WiredPeer) -> None:
        if not (self.running and me.alive):
            return
        rng, chosen = self.rng, [h for h in self.rng.sample(self.hosts, min(EXPERTS_PER_BATCH, len(self.hosts))) if h != me.peer]
        waiting = 2 * len(chosen)

        def ended(call: Call) -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                low, high = THINK_S
                self.world.at(self.world.now + low + (high - low) * rng.random(), self._batch, me)

        for host in chosen:
            size = int(SIZES[0] * (SIZES[1] / SIZES[0]) ** rng.random())
            call = self.calls.begin(me.peer, host, size, rng.choice(TIMEOUTS_S), ended)
            if rng.random() < GIVEN_UP:
                self.world.at(self.world.now + rng.random(), self.calls.cancel, call)
            self.world.at(self.world.now + 0.2 * rng.random(), self._say_hello, me, host, ended)

    def _say_hello(self, me: WiredPeer, host: PeerId, ended: object) -> None:
        if me.alive:
            self.calls.begin(me.peer, host, 0, TIMEOUTS_S[-1], ended)  # type: ignore[arg-type]

    def crashed(self, peer: SimPeer) -> None:
        assert isinstance(peer, WiredPeer)
        self.calls.crashed(peer)

    def returned(self, old: PeerId, new: PeerId) -> None:
        """It calls and hosts again; if it is somebody new, others learn that."""
        self.hosts = [new if host == old else host for host in self.hosts]
        self._begin(new)


def scenario(run: Run) -> None:
    """See the module."""
    world = run.add(WiredWorld(run.seed, wire=WIRE, room_bytes=ROOM_BYTES))
    grow(run, world, settle_s=SETTLE_S, gap_s=0.3)
    world.tell_entrances(max(3, run.peers // 10))
    world.links.bytes_per_s = BYTES_PER_S
    rng = fork(run.seed, "calls")
    calls = Calls(world, rng)
    workload = Workload(world, calls, rng)
    load(run, world, calls)
    storm(run, world, workload)
    recover(run, world, workload)
    workload.running = False
    world.run_until(lambda: not calls.open, within_s=60.0)
    rest(run, world, calls)


def load(run: Run, world: WiredWorld, calls: Calls) -> None:
    """Much is asked, and nothing is wrong."""
    world.run(LOAD_S)
    note(run, calls, "load")
    overtook, beside = calls.overtook
    run.note("small_calls_that_overtook", overtook / max(1, beside))
    run.note("small_calls_beside_large", beside)
    run.check(overtook >= OVERTAKE_MIN * beside > 0, f"only {overtook} of {beside} small calls overtook large ones")
    ended = sum(n for how, n in calls.outcomes.items() if how != CANCELLED)
    run.check(calls.outcomes[ANSWERED] >= ANSWERED_MIN * ended, f"of {ended} calls {calls.outcomes[ANSWERED]} were answered")
    run.say(f"{sum(calls.outcomes.values())} calls without faults")


def storm(run: Run, world: WiredWorld, workload: Workload) -> None:
    """Everything goes wrong, and calls go on."""
    seconds = float(run.options["storm"])
    weather = Weather(fault_every_s=20.0 / run.peers, narrow_bytes_per_s=100_000.0, stall_s=(0.5, 15.0))
    bad = Storm(world, fork(run.seed, "storm"), weather)
    bad.on_crash.append(workload.crashed)
    bad.on_return.append(workload.returned)
    bad.blow(seconds)
    world.links.lost = run.options["lost"]
    world.run(seconds)
    world.links.lost = 0.0
    bad.pass_()
    run.note("faults", dict(sorted(bad.faults.items())))
    note(run, workload.calls, "storm")
    run.say("the storm is over")


def note(run: Run, calls: Calls, phase: str) -> None:
    """What came of the calls of a phase."""
    run.note(f"{phase}_outcomes", dict(sorted(calls.outcomes.items())))
    run.note(f"{phase}_small_s", spread(calls.times["small"]))
    run.note(f"{phase}_large_s", spread(calls.times["large"]))
    strange = [how for how in calls.outcomes if how not in NAMED]
    run.check(not strange, f"calls ended with {strange}")
    if phase != "load":
        return
    calls.outcomes.clear()
    for times in calls.times.values():
        times.clear()


def recover(run: Run, world: WiredWorld, workload: Workload) -> None:
    """Until everybody has had an answer from those it calls."""
    began, calls = world.now, workload.calls
    pairs = [(p, h) for p in world.alive() for h in workload.rng.sample(workload.hosts, min(3, len(workload.hosts))) if h != p]
    missing = dict.fromkeys(pairs, "")

    def attempt(pair: tuple[PeerId, PeerId]) -> None:
        def ended(call: Call) -> None:
            if call.ended == ANSWERED:
                del missing[pair]
            else:
                missing[pair] = call.ended
                world.at(world.now + 1.0, attempt, pair)

        if world.now < began + RECOVER_S:
            calls.begin(*pair, 64 << 10, 5.0, ended)

    for pair in pairs:
        attempt(pair)
    while missing and world.now < began + RECOVER_S:
        world.run(1.0)
    run.note("calls_succeed_after_s", world.now - began if not missing else None)
    run.check(
        not missing,
        f"{len(missing)} of {len(pairs)} pairs have no answer {RECOVER_S:.0f} s after the storm: {list(missing.values())[:5]}",
    )
    run.say("calls succeed again")


def rest(run: Run, world: WiredWorld, calls: Calls) -> None:
    """Nobody calls any more: what is left?"""
    began = world.now
    world.run(30.0)
    left = leaks(world)
    run.note("leaks", left[:5])
    run.check(not left, f"{len(left)} connections have something left, such as: {left[:2]}")
    run.check(not calls.waiting(), f"{calls.waiting()} requests are still being worked on")
    run.check(not calls.faults, f"faults: {calls.faults[:3]}")
    run.check(not world.violations, f"the protocol or its promises were broken: {world.violations[:3]}")
    run.note("peaks", dict(sorted(calls.peaks.items())))
    for name, most in bounds().items():
        run.check(calls.peaks[name] <= most, f"a connection held {calls.peaks[name]} of {name}, more than {most}")
    run.check(calls.peaks["inbound_calls"] == WIRE.inbound_calls_max, "no callee was ever asked for as much as it takes")
    one = False
    while world.now < began + OVERLAY_S and not one:
        world.run(5.0)
        one = len(components(world)) == 1 and strangers(world, world.config.replicas) == 0
    run.note("one_overlay_after_s", world.now - began if one else None)
    lost = strangers(world, world.config.replicas)
    run.check(one, f"the overlay is in parts of {components(world)[:4]}, {lost} peers do not know those closest to them")
    nodes = leftovers(world)
    run.note("left_over", nodes)
    run.check(not nodes, f"nodes have something left over: {nodes}")
    run.note("calls", calls.number)
    run.note("handshakes", world.handshakes)
    run.note("frames", {"control": world.frames[0], "bulk": world.frames[1]})
    run.note("closed_for", dict(sorted(world.closed_for.items())))


def bounds() -> dict[str, int]:
    """What one connection may hold at most."""
    return {
        "inbound_calls": WIRE.inbound_calls_max,
        "outbound_calls": WIRE.outbound_calls_max,
        "request_bytes": WIRE.request_bytes_max,
        "response_bytes": WIRE.response_bytes_max,
        "outbound_bytes": WIRE.outbound_bytes_max,
        "link_bytes": ROOM_BYTES + WIRE.control_overdraft_bytes + 2 * LINK_MESSAGE_BYTES_MAX,
    }


if __name__ == "__main__":
    options = [
        ("storm", 120, "virtual seconds of storm"),
        ("lost", Share(0.005), "share of messages that a link has to send again"),
    ]
    sys.exit(main("calls", scenario, peers=24, options=options))
