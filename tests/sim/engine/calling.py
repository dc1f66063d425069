"""Peers that call one another for experts, and what is known of every call: who began it when, and how it ended.

A large call carries a tensor, which the callee keeps in a queue, works on, and sends back. A small one is answered at once; it
shares the connection with the large ones. What must never happen is noted in `faults`: an end that came twice, or after the call
was given up, or too late; an answer with other bytes; a request that is handled twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from agent.errors import CallRefused, HiveError
from agent.identity import PeerId
from agent.wire.connection import Cancelled, Event, Failed, Requested, Responded
from tests.sim.engine.wired import WiredPeer, WiredWorld
from tests.sim.engine.wires import WireEnd

EXPERT, PING = "expert", "ping"
QUEUE_MAX = 16  # requests that wait at one callee; more are refused, as agent/experts/batching.py does
WORK_S = (0.01, 0.06)  # on one request
REDIAL_S = 1.0  # NetworkConfig.redial_pause_s
LATE_S = 0.5  # after its deadline a call has ended, give or take what a slow peer needs
FAULTS_MAX = 20
TENSOR_BYTES_MAX = 2 << 20
ANSWERED, CANCELLED, CRASHED = "answered", "cancelled", "caller crashed"


class Said(msgspec.Struct, array_like=True):
    """The header of a request and of its answer."""

    number: int
    offset: int
    """Of the tensor's bytes in what all tensors are cut from."""


@dataclass(eq=False)
class Call:
    """One call, as its caller knows it."""

    number: int
    caller: WiredPeer
    callee: PeerId
    size: int
    began: float
    deadline: float
    ended: str = ""
    took_s: float = 0.0
    end: WireEnd | None = None
    wire_number: int = -1
    bulk: list[Call] = field(default_factory=list)
    """Large calls whose request was being sent on the same connection when it began."""
    came: bool = False
    """Its request has reached the callee, whole."""
    then: Callable[[Call], None] = lambda call: None

    @property
    def small(self) -> bool:
        return not self.size


class Callee:
    """Who answers at one peer: one request after the other."""

    def __init__(self, calls: Calls, me: WiredPeer) -> None:
        self._calls = calls
        self._me = me
        self.queue: deque[tuple[WireEnd, Requested]] = deque()
        self.working: tuple[WireEnd, Requested] | None = None

    def asked(self, end: WireEnd, request: Requested) -> None:
        if request.method == PING:
            end.respond(request.call, request.header, request.buffers)
        elif len(self.queue) >= QUEUE_MAX:
            end.refuse(request.call, "overloaded")
        else:
            self.queue.append((end, request))
            self._go()

    def cancelled(self, end: WireEnd, number: int) -> None:
        for entry in list(self.queue):
            if entry[0] is end and entry[1].call == number:
                self.queue.remove(entry)

    def _go(self) -> None:
        if self.working is None and self.queue:
            self.working = self.queue.popleft()
            low, high = WORK_S
            work_s = low + (high - low) * self._calls.rng.random() + 5.0 * self._me.slow_s
            self._calls.world.at(self._calls.world.now + work_s, self._done)

    def _done(self) -> None:
        assert self.working is not None
        (end, request), self.working = self.working, None
        if not self._me.alive:
            return
        if end.closed is None:
            end.respond(request.call, request.header, request.buffers)
        self._go()


class Calls:
    """See the module. `open` are those whose end is awaited."""

    def __init__(self, world: WiredWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.open: dict[int, Call] = {}
        self.times: dict[str, list[float]] = {"small": [], "large": []}
        self.overtook = [
            0,
            0,
        ]  # small requests that began beside large ones: how many came before one of these, and how many there were
        self.peaks: Counter[str] = Counter()
        self.number = 0  # calls begun
        self._bytes = memoryview(rng.randbytes(2 * TENSOR_BYTES_MAX))
        self._callees: dict[WiredPeer, Callee] = {}
        self._wired: dict[tuple[WireEnd, int], Call] = {}
        self._requested: set[tuple[WireEnd, int]] = set()
        self._reaching: dict[tuple[WiredPeer, PeerId], list[Call]] = {}
        self._unreachable: dict[tuple[WiredPeer, PeerId], float] = {}
        world.on_events.append(self._happened)
        world.on_opened.append(self._opened)

    # -- callers -----------------------------------------------------------------------------------------------------

    def begin(
        self, caller: PeerId, callee: PeerId, size: int, timeout_s: float, then: Callable[[Call], None] = lambda call: None
    ) -> Call:
        """Call for an expert with a tensor of `size` bytes, or just say hello with none. `then` gets the call in the end."""
        world = self.world
        self.number += 1
        call = Call(self.number, world.wired(caller), callee, size, world.now, world.now + timeout_s, then=then)
        self.open[call.number] = call
        world.at(call.deadline + LATE_S, self._too_late, call)
        end = call.caller.ends.get(callee)
        if end is not None:
            self._request(call, end)
        else:
            self._reach(call)
        return call

    def cancel(self, call: Call) -> None:
        """Give it up; nothing may come of it afterwards."""
        if call.ended:
            return
        if call.end is not None and call.end.closed is None:
            self._wired.pop((call.end, call.wire_number), None)
            call.end.cancel(call.wire_number)
        self._ended(call, CANCELLED)

    def crashed(self, peer: WiredPeer) -> None:
        """A peer stops: its own calls and what it was working on are gone with it."""
        for call in [c for c in self.open.values() if c.caller is peer]:
            self._ended(call, CRASHED)

    def _request(self, call: Call, end: WireEnd) -> None:
        left_s = call.deadline - self.world.now
        if left_s <= 0:
            self._ended(call, "NotReachable")
            return
        offset = self.rng.randrange(TENSOR_BYTES_MAX)
        header = msgspec.msgpack.encode(Said(call.number, offset))
        buffers = [self._bytes[offset : offset + call.size]] if call.size else []
        if call.small:
            call.bulk = [c for (e, _), c in self._wired.items() if e is end and not c.small and _is_moving(c)]
        try:
            number = end.request(PING if call.small else EXPERT, header, buffers, left_s)
        except HiveError as e:
            self._ended(call, _name(e))
            return
        call.end, call.wire_number = end, number
        if not call.ended:
            self._wired[end, number] = call

    def _reach(self, call: Call) -> None:
        """As Network._reach: connect through the overlay, all who wait for the same peer together."""
        world, place = self.world, (call.caller, call.callee)
        if world.now < self._unreachable.get(place, 0.0):
            self._ended(call, "NotReachable")
            return
        world.at(call.deadline, self._not_reached, call)
        waiting = self._reaching.get(place)
        if waiting is not None:
            waiting.append(call)
            return
        self._reaching[place] = [call]

        def failed() -> None:
            self._unreachable[place] = world.now + REDIAL_S
            for waiting in self._reaching.pop(place, []):
                self._ended(waiting, "NotReachable")

        world.reach(call.caller, call.callee, failed)

    def _not_reached(self, call: Call) -> None:
        if not call.ended and call.end is None:
            self._ended(call, "NotReachable")

    def _opened(self, end: WireEnd) -> None:
        for call in self._reaching.pop((end.me, end.other), []):
            if not call.ended:
                self._request(call, end)

    def _ended(self, call: Call, how: str) -> None:
        if call.ended:
            return
        call.ended = how
        call.took_s = self.world.now - call.began
        del self.open[call.number]
        self.outcomes[how] += 1
        if how == ANSWERED:
            self.times["small" if call.small else "large"].append(call.took_s)
        call.then(call)

    def _too_late(self, call: Call) -> None:
        if not call.ended and call.caller.alive:
            self.fault(f"call {call.number} had not ended {LATE_S} s after its deadline")

    def fault(self, sentence: str) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(f"{sentence} (at {self.world.now:.3f})")

    # -- what connections tell ---------------------------------------------------------------------------------------

    def _happened(self, end: WireEnd, event: Event) -> None:
        match event:
            case Requested():
                if (end, event.call) in self._requested:
                    self.fault(f"call {event.call} came to {end.me.peer.short} twice")
                self._requested.add((end, event.call))
                self._came(msgspec.msgpack.decode(event.header, type=Said).number)
                self._note_peaks(end)
                self._callee(end.me).asked(end, event)
            case Cancelled(number):
                self._callee(end.me).cancelled(end, number)
            case Responded(number, header, buffers):
                call = self._wired.pop((end, number), None)
                if call is None:
                    self.fault(f"an answer came to {end.me.peer.short} for call {number}, which had ended")
                    return
                said = msgspec.msgpack.decode(header, type=Said)
                expected = self._bytes[said.offset : said.offset + call.size]
                if said.number != call.number or b"".join(buffers) != expected:
                    self.fault(f"call {call.number} was answered with something else")
                self._ended(call, ANSWERED)
            case Failed(number, error):
                call = self._wired.pop((end, number), None)
                if call is None:
                    self.fault(f"call {number} of {end.me.peer.short} failed after it had ended")
                else:
                    self._ended(call, _name(error))

    def _came(self, number: int) -> None:
        call = self.open.get(number)
        if call is None:
            return
        call.came = True
        if call.bulk:
            self.overtook[1] += 1
            self.overtook[0] += any(not other.came for other in call.bulk)

    def _callee(self, peer: WiredPeer) -> Callee:
        found = self._callees.get(peer)
        if found is None:
            found = self._callees[peer] = Callee(self, peer)
        return found

    # -- what is held ------------------------------------------------------------------------------------------------

    def _note_peaks(self, end: WireEnd) -> None:
        """How much this connection holds of what its limits bound, and its link of what it was given."""
        connection = end.connection
        assert connection is not None
        callee, caller = connection._callee._calls.values(), connection._caller._calls.values()
        arriving = sum(c.arriving.total for c in caller if c.arriving is not None)
        for name, held in (
            ("inbound_calls", len(callee)),
            ("outbound_calls", connection.open_calls[0]),
            ("request_bytes", sum(c.taken_bytes for c in callee)),
            ("response_bytes", arriving),
            ("outbound_bytes", max(connection._outbox._unsent_bytes)),
            ("link_bytes", end.out.buffered_most),
        ):
            self.peaks[name] = max(self.peaks[name], held)

    def waiting(self) -> int:
        """Requests that live callees have not answered."""
        return sum(len(c.queue) + (c.working is not None) for peer, c in self._callees.items() if peer.alive)


def _is_moving(call: Call) -> bool:
    """Whether part of its request has still to be handed to the link, so that a message of no priority would wait for it."""
    assert call.end is not None and call.end.connection is not None
    return call.wire_number in call.end.connection._outbox._active


def _name(error: HiveError) -> str:
    return f"CallRefused {error.code}" if isinstance(error, CallRefused) else type(error).__name__


def leaks(world: WiredWorld) -> list[str]:
    """What open connections have not given back, in a world where no call is open and nothing is under way."""
    found: list[str] = []
    for peer in world.peers.values():
        if not peer.alive:
            continue
        for end in world.wired(peer.peer).ends.values():
            found += _leaks_of(end)
    return found


def _leaks_of(end: WireEnd) -> list[str]:
    ours, theirs = end.connection, end.far.connection
    name = f"{end.me.peer.short} to {end.other.short}"
    if ours is None or theirs is None or end.far.closed is not None:
        return [f"{name}: its other end is gone"]
    found = []
    if ours.open_calls != (0, 0) or ours._caller._calls or ours._callee._calls:
        found.append(f"{name}: {ours.open_calls} calls are open, {len(ours._caller._calls)} on the books")
    if not ours.idle or ours._outbox._unsent_bytes != [0, 0] or ours._outbox._notify_bytes:
        found.append(f"{name}: something waits to be sent")
    if len(ours._caller.deadlines) or len(ours._callee.deadlines):
        found.append(f"{name}: deadlines are left")
    allowance, ledger = ours._outbox.allowance, theirs._ledger
    for count in ("window", "calls", "request_bytes", "response_bytes"):
        account = getattr(ledger, count)
        if account.left != getattr(allowance, count) or account.left + account.owed != getattr(ledger.limits(), count):
            found.append(f"{name}: {count}: {getattr(allowance, count)} here, {account.left} and {account.owed} owed there")
    return found
