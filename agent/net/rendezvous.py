"""The coordinator's rendezvous: peers that wait there pass each other sealed offers, for first contact only.

Stay connected as long as strangers should be able to find this agent; once it is in the overlay it can do without.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.errors import NotReachable, RemoteError
from agent.identity import PeerId
from agent.net.coordinator_socket import Badge, CoordinatorSocket, Patience
from agent.net.network import Network
from agent.net.offers import SEALED_BYTES_MAX
from agent.reports import PeerText

logger = logging.getLogger(__name__)

WAITING_MAX = 64
EXCHANGES_MAX = 64
"""Offers of ours that await an answer."""
ANSWERS_MAX = 16
"""Offers of others that are being answered; more are dropped, and their senders try again."""

_Exchange = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
_Body = Annotated[bytes, Meta(max_length=SEALED_BYTES_MAX)]


class _Waiting(msgspec.Struct, tag="waiting", tag_field="type"):
    peers: Annotated[list[PeerText], Meta(max_length=WAITING_MAX)]


class _Message(msgspec.Struct, tag="message", tag_field="type"):
    sender: PeerText = msgspec.field(name="from")
    exchange: _Exchange
    body: _Body


class _Gone(msgspec.Struct, tag="gone", tag_field="type"):
    to: PeerText
    exchange: _Exchange


class _Send(msgspec.Struct, tag="send", tag_field="type"):
    to: str
    exchange: str
    body: bytes


class _Announce(msgspec.Struct, tag="announce", tag_field="type"):
    address: str


_Inbound = msgspec.json.Decoder(_Waiting | _Message | _Gone)


class Rendezvous:
    """See the module; a `network.Signaler`. `url` is the coordinator's, `http://…` or `https://…`."""

    def __init__(self, network: Network, url: str, badge: Badge, patience: Patience, *, announce: str = "") -> None:
        """`announce` is this agent's own bootstrap address, if it has one."""
        self.socket = CoordinatorSocket(url, f"/ws/rendezvous/{badge.experiment}/", badge, patience, self._serve)
        self._network = network
        self._announce = announce
        self._waiting: list[PeerId] = []
        self._told = asyncio.Event()
        self._connection: ClientConnection | None = None
        self._exchanges: dict[str, tuple[PeerId, asyncio.Future[bytes]]] = {}  # EXCHANGES_MAX
        self._answers: set[asyncio.Task[None]] = set()  # ANSWERS_MAX

    def start(self) -> None:
        self.socket.start()

    async def close(self) -> None:
        """Leave the rendezvous; idempotent."""
        await self.socket.close()
        if self._answers:
            for task in self._answers:
                task.cancel()
            await asyncio.wait(self._answers)

    @property
    def connected(self) -> bool:
        """Whether the coordinator is reachable and has told who waits."""
        return self.socket.connected and self._told.is_set()

    @property
    def replaced(self) -> int:
        """How often another connection of this agent's key took over: another agent has the same one."""
        return self.socket.replaced

    @property
    def bytes_total(self) -> int:
        """Both ways."""
        return self.socket.bytes_sent + self.socket.bytes_received

    def waiting(self) -> list[PeerId]:
        """Who waits there too, as last told; a random choice if there are many. Never this agent itself."""
        return list(self._waiting)

    async def told(self, timeout_s: float) -> bool:
        """Wait until the coordinator has told who waits; False if it did not within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._told.wait()
        except TimeoutError:
            return False
        return True

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        """Pass an offer to a peer that waits there, and wait for its answer. Raises NotReachable."""
        if self._connection is None:
            raise NotReachable(f"the rendezvous is not connected: {self.socket.why}")
        if len(self._exchanges) >= EXCHANGES_MAX:
            raise NotReachable("too many offers are waiting for answers at the rendezvous")
        exchange = secrets.token_hex(16)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._exchanges[exchange] = peer, answer
        try:
            await self._send(self._connection, _Send(to=str(peer), exchange=exchange, body=sealed_offer))
            return await answer
        except ConnectionClosed:
            raise NotReachable("the connection to the rendezvous ended") from None
        finally:
            del self._exchanges[exchange]

    async def _serve(self, connection: ClientConnection) -> None:
        self._connection = connection
        try:
            if self._announce:
                await self._send(connection, _Announce(address=self._announce))
            async for message in connection:
                data = message.encode() if isinstance(message, str) else message
                self.socket.bytes_received += len(data)
                self._received(connection, data)
        finally:
            self._connection = None
            self._told.clear()
            self._waiting = []
            for _, answer in self._exchanges.values():
                if not answer.done():
                    answer.set_exception(NotReachable("the connection to the rendezvous ended"))

    def _received(self, connection: ClientConnection, data: bytes) -> None:
        try:
            message = _Inbound.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            logger.warning("the rendezvous sent what is not understood: %s", e)
            return
        if isinstance(message, _Waiting):
            self._waiting = [p for p in map(_peer, message.peers) if p is not None and p != self._network.peer_id]
            self._told.set()
            return
        peer, answer = self._exchanges.get(message.exchange, (None, None))
        if isinstance(message, _Gone):
            if answer is not None and not answer.done():
                answer.set_exception(NotReachable("the peer does not wait at the rendezvous any more"))
        elif answer is not None and peer is not None and message.sender == str(peer):
            if not answer.done():
                answer.set_result(message.body)
        elif len(self._answers) < ANSWERS_MAX:
            task = asyncio.get_running_loop().create_task(self._answer(connection, message))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, connection: ClientConnection, message: _Message) -> None:
        try:
            answer = await self._network.answer(message.body)
            await self._send(connection, _Send(to=message.sender, exchange=message.exchange, body=answer))
        except RemoteError as e:
            logger.info("an offer at the rendezvous was refused: %s", e)
        except ConnectionClosed:
            logger.info("the rendezvous was gone before an offer could be answered")

    async def _send(self, connection: ClientConnection, message: _Send | _Announce) -> None:
        await self.socket.send(connection, msgspec.json.encode(message))


def _peer(text: str) -> PeerId | None:
    try:
        return PeerId.parse(text)
    except ValueError:
        return None
