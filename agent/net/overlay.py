"""The overlay as an agent uses it: drives a DhtNode over a Network, and lets the Network dial through the overlay.

Records are signed and numbered here. Offers to peers are routed over connections that are open already, so after the first
contact no server is needed to reach anyone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from agent.dht import census, events
from agent.dht.config import DhtConfig
from agent.dht.keys import KeySpace
from agent.dht.node import DhtNode
from agent.dht.records import SUBKEY_CHARS_MAX, Record, SignatureCheck, sign
from agent.dht.statements import IdentitySeal
from agent.errors import CallRefused, CallTimeout, HiveError, LinkClosed, LocalError, NotReachable, RecordError, RemoteError
from agent.identity import Identity, PeerId
from agent.net.alarm import Alarm
from agent.net.bootstrap import BootstrapSignaler
from agent.net.membership import Contact, ContactBook, Membership
from agent.net.network import Network

logger = logging.getLogger(__name__)

METHOD = "dht"
SIGNAL = "signal"
SETTLE_S = 10.0
STALL_S, DRAIN_S = 0.3, 0.1  # if a deadline is noticed later than that, this process was held up: first read what came meanwhile
DEFAULTS = DhtConfig()
BOOTSTRAP_NAME = "bootstrap"  # a record: subkey PeerId, value its address

RouteHandler = Callable[[PeerId, bytes], Awaitable[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A value to store under (name, subkey) for `ttl_s` seconds."""

    name: str
    value: bytes
    ttl_s: float
    subkey: str = ""


class SteadyClock:
    """Unix time that never goes backwards. If the system's clock is set back, it goes on from where it was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reading = self._now = clock()

    def __call__(self) -> float:
        reading = self._clock()
        passed, self._reading = max(0.0, reading - self._reading), reading
        self._now = reading if reading >= self._now else self._now + passed
        return self._now


class OverlaySignaler:
    """Carries sealed offers over the overlay."""

    def __init__(self, overlay: Overlay, timeout_s: float) -> None:
        self._overlay = overlay
        self._timeout_s = timeout_s

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        try:
            return await self._overlay.route(peer, SIGNAL, sealed_offer, timeout_s=self._timeout_s)
        except NotReachable:
            raise
        except RemoteError as e:
            raise NotReachable(f"{peer.short} did not take our offer: {e}") from e


class Overlay:
    """One peer's overlay. Everything belongs to one event loop; construct it there."""

    def __init__(
        self,
        network: Network,
        identity: Identity,
        *,
        experiment: str,
        rng: random.Random,
        config: DhtConfig = DEFAULTS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if identity.peer_id != network.peer_id:
            raise ValueError("the overlay signs with the network's identity")
        self.book = ContactBook()
        self._network = network
        self._identity = identity
        self._experiment = experiment
        self._config = config
        self._clock = SteadyClock(clock)
        self._space = KeySpace()
        self._node = DhtNode(
            network.peer_id, config, verify=SignatureCheck(), seal=IdentitySeal(identity), rng=rng, space=self._space
        )
        self._membership = Membership(network, rng)
        self._signaler = OverlaySignaler(self, config.dial_timeout_s)
        self._effects: deque[events.Effect] = deque()
        self._performing = False
        self._alarm = Alarm(self._wake)
        self._draining = False
        self._ops: dict[int, asyncio.Future[Any]] = {}  # operations_max, by the node
        self._last_op = 0
        self._sequence = 0
        self._tasks: set[asyncio.Task[None]] = set()  # dials_max + deliveries_max, by the node
        self._handlers: dict[str, RouteHandler] = {SIGNAL: self._answer_offer, census.KIND: self._answer_census}
        self._settled = asyncio.Event()
        self._closed = False
        self._node.begin(self._clock())
        network.on_notify(METHOD, self._received)
        network.add_listener(self._peer_opened, self._peer_closed)
        network.dialer = self._dial
        for peer in network.peers():
            self._peer_opened(peer)

    # -- joining -----------------------------------------------------------------------------------------------------

    async def join(self, contacts: Sequence[Contact]) -> None:
        """Connect to the overlay through any of `contacts`, and find our place in it. The first peer of an experiment has none.

        Afterwards the overlay keeps itself connected, and tries `contacts` again whenever it has lost every connection.
        Raises JoinError if none of them can be reached.
        """
        for peer, signaler in contacts:
            address = getattr(signaler, "address", None)
            if isinstance(address, str):
                self._remember(peer, address)
        await self._membership.join(contacts)
        if contacts:
            try:
                await asyncio.wait_for(self._settled.wait(), SETTLE_S)
            except TimeoutError:
                logger.info("connected, and still looking for our place in the overlay")

    def heard_of(self, peers: Sequence[PeerId]) -> None:
        """Tell of peers that may be alive, for example from a cache; they are connected to if they are wanted."""
        self._feed(events.Heard([p for p in peers if p != self._network.peer_id]))

    async def announce(self, address: str, *, ttl_s: float = 600.0) -> int:
        """Publish our bootstrap address (bootstrap role); again before `ttl_s` is over. How many replicas stored it."""
        self.book.remember(self._network.peer_id, address)
        return await self.put(BOOTSTRAP_NAME, address.encode(), ttl_s=ttl_s, subkey=str(self._network.peer_id))

    async def bootstraps(self) -> list[tuple[PeerId, str]]:
        """Bootstrap addresses that live peers announce, and those met before: what to cache for a later `join`."""
        for record in await self.get(BOOTSTRAP_NAME):
            try:
                self._remember(record.owner, record.value.decode())
            except UnicodeDecodeError:
                logger.info("%s announces an address that is no text", record.owner.short)
        return [(peer, address) for peer, address in self.book.entries() if peer != self._network.peer_id]

    @property
    def peer_id(self) -> PeerId:
        """Ours."""
        return self._network.peer_id

    @property
    def neighbours(self) -> list[PeerId]:
        """Connected peers, closest first."""
        return self._node.neighbours

    # -- records -----------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> list[Record]:
        """The live, verified records under `name`, the newest of each (subkey, owner).

        Raises CallTimeout if nobody answered: then it is not known whether there are any.
        """
        return (await self.get_many([name]))[name]

    async def get_many(self, names: Sequence[str], *, eager: bool = False) -> dict[str, list[Record]]:
        """Many names at once. A name for which nobody answered is missing; if that is all of them, raises CallTimeout.

        `eager`: take the first answer for each name instead of waiting for other replicas, which may know more.
        """
        keys = {name: self._space.named(self._experiment, name) for name in names}
        found: dict[bytes, list[Record]] = await self._run(lambda op: events.Get(op, list(keys.values()), eager))
        result = {name: found[key] for name, key in keys.items() if key in found}
        if keys and not result:
            raise CallTimeout(f"no peer of the overlay answered for {next(iter(keys))!r}")
        return result

    async def put(self, name: str, value: bytes, *, ttl_s: float, subkey: str = "") -> int:
        """Store a value signed by us; how many replicas keep it. 0 if none could be reached, or all are at a quota.

        Raises RecordError if the value, the subkey or the time is beyond what records may have.
        """
        return (await self.put_many([Entry(name=name, value=value, ttl_s=ttl_s, subkey=subkey)]))[0]

    async def put_many(self, entries: Sequence[Entry]) -> list[int]:
        """Many at once; how many replicas keep each."""
        records = [self._signed(entry) for entry in entries]
        counts: list[int] = await self._run(lambda op: events.Put(op, records))
        return counts

    def _signed(self, entry: Entry) -> Record:
        limits = self._config.limits
        if len(entry.value) > limits.value_bytes_max or len(entry.subkey) > SUBKEY_CHARS_MAX:
            raise RecordError(
                f"a value has at most {limits.value_bytes_max} bytes, a subkey at most {SUBKEY_CHARS_MAX} characters"
            )
        if not 0 < entry.ttl_s <= limits.ttl_max_s:
            raise RecordError(f"a record lives up to {limits.ttl_max_s:.0f} s, not {entry.ttl_s}")
        now = self._clock()
        # Later records of ours are higher, also after a restart.
        self._sequence = max(self._sequence + 1, int(now * 1000))
        key = self._space.named(self._experiment, entry.name)
        return sign(
            self._identity, Record(key, entry.subkey, self._identity.peer_id, self._sequence, now + entry.ttl_s, entry.value)
        )

    # -- messages to one peer ----------------------------------------------------------------------------------------

    async def route(self, peer: PeerId, kind: str, body: bytes, *, timeout_s: float) -> bytes:
        """Bring `body` (at most 14 KiB) to exactly that peer, over connections that are open; its handler's answer.

        Raises NotReachable if it is not in the overlay, CallRefused if it refuses, CallTimeout, LinkClosed after `close`.
        """
        answer: bytes = await self._run(lambda op: events.Route(op, peer, kind, body, timeout_s))
        return answer

    def on_route(self, kind: str, handler: RouteHandler) -> None:
        """Serve routed messages. The origin that the handler gets is what the message claims. It raises CallRefused to refuse."""
        if kind in self._handlers:
            raise ValueError(f"{kind} has a handler already")
        self._handlers[kind] = handler

    async def close(self) -> None:
        """Stop. The network stays open; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._network.dialer = None
        self._alarm.cancel()
        for future in self._ops.values():
            if not future.done():
                future.set_exception(LinkClosed("the overlay was closed"))
        self._ops.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._membership.close()

    # -- driving the node --------------------------------------------------------------------------------------------

    async def _run(self, make: Callable[[int], events.Event]) -> Any:
        if self._closed:
            raise LinkClosed("the overlay was closed")
        self._last_op += 1
        op = self._last_op
        future = self._ops[op] = asyncio.get_running_loop().create_future()
        try:
            self._feed(make(op))
            return await future
        finally:
            self._ops.pop(op, None)

    def _feed(self, event: events.Event) -> None:
        if not self._closed:
            self._perform(self._node.handle(event, self._clock()))

    def _wake(self) -> None:
        """A deadline of the node. After a stall of this process, neighbours seem silent whose answers lie unread here."""
        deadline = self._node.next_deadline()
        if not self._draining and deadline is not None and self._clock() - deadline > STALL_S:
            self._alarm.set(asyncio.get_running_loop().time() + DRAIN_S)
            self._draining = True
            return
        self._draining = False
        self._perform(self._node.tick(self._clock()))

    def _perform(self, effects: list[events.Effect]) -> None:
        """Effects may cause events, which come in here again: they wait for their turn."""
        self._effects.extend(effects)
        if self._performing:
            return
        self._performing = True
        try:
            while self._effects:
                self._perform_one(self._effects.popleft())
        finally:
            self._performing = False
        self._arm()

    def _perform_one(self, effect: events.Effect) -> None:
        match effect:
            case events.Send(peer, data):
                self._network.notify(peer, METHOD, data)
            case events.Connect(peer):
                self._start(self._connect(peer))
            case events.Contact(peer):
                self._start(self._contact(peer))
            case events.Disconnect(peer, reason):
                self._network.disconnect(peer, reason)
            case events.Deliver():
                self._start(self._deliver(effect))
            case events.Done(op, result):
                future = self._ops.get(op)
                if future is not None and not future.done():
                    if isinstance(result, HiveError):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
            case events.Settled():
                self._settled.set()

    def _arm(self) -> None:
        deadline = self._node.next_deadline()
        if self._closed or self._draining or deadline is None:
            return
        self._alarm.set(asyncio.get_running_loop().time() + max(0.0, deadline - self._clock()))

    def _received(self, peer: PeerId, header: bytes) -> None:
        """Raises ProtocolViolation, for which the network closes that connection."""
        self._feed(events.Received(peer, header))

    def _peer_opened(self, peer: PeerId) -> None:
        self._membership.peers_changed()
        self._feed(events.PeerOpened(peer, self._network.subnet(peer)))

    def _peer_closed(self, peer: PeerId, reason: str) -> None:
        self._membership.peers_changed()
        self._feed(events.PeerClosed(peer))

    async def _dial(self, peer: PeerId) -> None:
        """The network wants a connection for a call."""
        await self._network.dial(peer, self._signaler, timeout_s=self._config.dial_timeout_s)

    async def _connect(self, peer: PeerId) -> None:
        """The node wants a connection."""
        try:
            await self._dial(peer)
        except (RemoteError, LocalError) as e:
            logger.debug("no connection to %s: %s", peer.short, e)
            self._feed(events.ConnectFailed(peer))

    async def _contact(self, peer: PeerId) -> None:
        """The node wants a connection that the overlay cannot bring about: the peer may be in another part of it."""
        address = dict(self.book.entries()).get(peer)
        try:
            if address is None:
                raise NotReachable("its address has been forgotten")
            await self._network.dial(peer, BootstrapSignaler(address), timeout_s=self._config.dial_timeout_s)
        except (RemoteError, LocalError) as e:
            logger.debug("no first contact with %s: %s", peer.short, e)
            self._feed(events.ConnectFailed(peer))

    def _remember(self, peer: PeerId, address: str) -> None:
        """Note a bootstrap address, and tell the node who can be reached without it."""
        self.book.remember(peer, address)
        self._feed(events.Entrances([known for known, _ in self.book.entries()]))

    async def _deliver(self, message: events.Deliver) -> None:
        ok, answer = False, b"its handler failed"
        try:
            handler = self._handlers.get(message.kind)
            if handler is None:
                raise CallRefused("no-handler", f"nothing here serves {message.kind!r}")
            answer = await handler(message.origin, message.body)
            ok = True
        except RemoteError as e:
            answer = str(e)[:200].encode()
        finally:
            self._feed(events.Reply(message.delivery, ok, answer))

    async def _answer_offer(self, origin: PeerId, sealed_offer: bytes) -> bytes:
        return await self._network.answer(sealed_offer)

    async def _answer_census(self, origin: PeerId, nonce: bytes) -> bytes:
        return census.answer(
            self._node.core, self._clock(), origin, nonce, lambda said: self._identity.sign(census.PURPOSE, said)
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the overlay failed", exc_info=error)
