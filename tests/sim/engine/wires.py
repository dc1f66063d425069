"""One end of a simulated link between two peers: the handshake and the connection machine of agent/wire, driven as
agent/net/connection.py drives them, on the simulation's clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from agent.errors import HandshakeRejected, HiveError, LinkClosed, ProtocolViolation, RemoteError
from agent.identity import Identity, PeerId
from agent.wire.config import WireConfig
from agent.wire.connection import Buffer, Connection, Event, Lane
from agent.wire.handshake import Channel, Handshake, Terms
from tests.sim.engine.pipes import Pipe

if TYPE_CHECKING:
    from tests.sim.engine.wired import WiredPeer

LINK_MESSAGE_BYTES_MAX = 64 * 1024
HANDSHAKE_S = 10.0
CLOSING = b""  # what travels when an end closes its link in good order


class Owner(Protocol):
    """The world, as its links' ends see it."""

    now: float
    wire: WireConfig
    room_bytes: int

    def at(self, when: float, act: object, *arguments: object) -> None: ...

    def end_opened(self, end: WireEnd) -> None: ...

    def end_closed(self, end: WireEnd, error: HiveError) -> None: ...

    def end_should_know(self, end: WireEnd, notice_s: float) -> None: ...

    def end_told(self, end: WireEnd, happened: Sequence[Event]) -> None: ...

    def frame_came(self, end: WireEnd, lane: Lane, data: bytes) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Identification:
    """What an end shakes hands with."""

    identity: Identity
    nonce: bytes
    local_fingerprint: bytes
    remote_fingerprint: bytes


class WireEnd:
    """See the module. `age` is that of the offer: of two links between the same peers the newer stays."""

    def __init__(self, owner: Owner, me: WiredPeer, other: PeerId, age: tuple[float, int], *, initiator: bool) -> None:
        self.me = me
        self.other = other
        self.age = age
        self.initiator = initiator
        self.opened = False
        self.closed: HiveError | None = None
        self.connection: Connection | None = None
        self.failed: Callable[[], None] = lambda: None  # whom to tell if the handshake does not succeed
        self.out: Pipe
        self.far: WireEnd
        self._owner = owner
        self._handshake: Handshake
        self._wakes_at = float("inf")

    def start(self, said: Identification, experiment: str) -> None:
        """Begin to shake hands, when both ends and both pipes are there."""
        channel = Channel(
            local_fingerprint=said.local_fingerprint, remote_fingerprint=said.remote_fingerprint, initiator=self.initiator
        )
        deadline = self._owner.now + HANDSHAKE_S
        terms = Terms(experiment=experiment)
        self._handshake = Handshake(
            said.identity, terms, channel, nonce=said.nonce, deadline=deadline, expected=self.other if self.initiator else None
        )
        self.out.send(Lane.CONTROL, self._handshake.start())
        self._owner.at(deadline, self._handshake_late)

    # -- what the peer does with it ----------------------------------------------------------------------------------

    def request(self, method: str, header: bytes, buffers: Sequence[Buffer], timeout_s: float) -> int:
        """As Connection.request; LinkClosed if there is none."""
        if self.connection is None or self.closed is not None:
            raise LinkClosed("the connection is not open")
        number = self.connection.request(method, header, buffers, now=self._owner.now, timeout_s=timeout_s)
        self.pump()
        return number

    def cancel(self, number: int) -> None:
        assert self.connection is not None
        self.connection.cancel(number, now=self._owner.now)
        self.pump()

    def respond(self, number: int, header: bytes, buffers: Sequence[Buffer]) -> None:
        assert self.connection is not None
        self.connection.respond(number, header, buffers, now=self._owner.now)
        self.pump()

    def refuse(self, number: int, code: str) -> None:
        assert self.connection is not None
        self.connection.refuse(number, code, now=self._owner.now)
        self.pump()

    def notify(self, method: str, header: bytes) -> bool:
        if self.connection is None or self.closed is not None:
            return False
        sent = self.connection.notify(method, header, now=self._owner.now)
        self.pump()
        return sent

    def close(self, reason: str) -> None:
        """End the link in good order; the other end hears of it, if anything gets through."""
        if self.closed is None:
            self.out.send(Lane.CONTROL, CLOSING)
            self.end(LinkClosed(reason))

    def fail(self, error: RemoteError) -> None:
        """End it because of what the other end did, or did not do."""
        if self.closed is None:
            self.out.send(Lane.CONTROL, CLOSING)
            self.end(error)

    def vanish(self) -> None:
        """This end is gone, and says nothing: its peer has stopped, or its link has."""
        self.out.severed = True
        self.end(LinkClosed("gone"))
        config = self._owner.wire
        notice_s = (config.pings_unanswered_max + 2) * config.ping_period_s
        self._owner.at(self._owner.now + notice_s, self._owner.end_should_know, self.far, notice_s)

    def end(self, error: HiveError) -> None:
        if self.closed is not None:
            return
        self.closed = error
        if self.connection is not None and self.me.alive:
            self._owner.end_told(self, self.connection.close(error))
        self._owner.end_closed(self, error)

    # -- the link ----------------------------------------------------------------------------------------------------

    def take(self, lane: Lane, data: bytes) -> None:
        """A message has arrived."""
        if self.closed is not None:
            return
        if data == CLOSING:
            self.end(LinkClosed("the other end closed the connection"))
            return
        self._owner.frame_came(self, lane, data)
        try:
            if self.connection is None:
                self._shake(lane, data)
            else:
                happened = self.connection.receive(lane, memoryview(data), self._owner.now)
                self._owner.end_told(self, happened)
        except RemoteError as e:
            self.fail(e)
            return
        self.pump()

    def _shake(self, lane: Lane, data: bytes) -> None:
        if lane is not Lane.CONTROL:
            raise HandshakeRejected("the peer sent data before its handshake was done")
        for message in self._handshake.receive(memoryview(data)):
            self.out.send(Lane.CONTROL, message)
        if self._handshake.peer is not None:
            if self._handshake.peer != self.other:
                raise ProtocolViolation("the handshake ended with somebody else")
            config = replace(self._owner.wire, link_message_bytes_max=LINK_MESSAGE_BYTES_MAX)
            self.connection = Connection(config, initiator=self.initiator)
            self.opened = True
            self._owner.end_opened(self)

    def _handshake_late(self) -> None:
        if not self.opened and self.closed is None:
            self.fail(HandshakeRejected("the peer did not finish the handshake in time"))

    def pump(self) -> None:
        """Send what there is room for, and set the timer."""
        if self.connection is None or self.closed is not None:
            return
        for lane, data in self.connection.transmit(self._owner.now, self._owner.room_bytes - self.out.buffered_bytes):
            self.out.send(Lane(lane), bytes(data))
        deadline = self.connection.next_deadline()
        if deadline is not None and deadline < self._wakes_at:
            self._wakes_at = max(deadline, self._owner.now)
            self._owner.at(self._wakes_at, self._wake, self._wakes_at)

    def _wake(self, when: float) -> None:
        if when != self._wakes_at or self.connection is None or self.closed is not None:
            return
        self._wakes_at = float("inf")
        try:
            self._owner.end_told(self, self.connection.tick(self._owner.now))
        except RemoteError as e:
            self.fail(e)
            return
        self.pump()
