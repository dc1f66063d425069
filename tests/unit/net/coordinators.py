"""A small server that keeps to the contract of the coordinator's WebSockets, and what an agent shows it."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from http import HTTPStatus

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from agent.identity import Identity, PeerId
from agent.net.coordinator_socket import Badge, Patience
from agent.reports import HELLO_PURPOSE, Ack, Batch, Event, Hello, encode

SESSION = "0123456789abcdef"


def badge(identity: Identity, session: str = SESSION) -> Badge:
    return Badge(identity=identity, experiment="gpt-crowd", session=session, clock=lambda: 1_800_000_000.0)


def patience() -> Patience:
    return Patience(rng=random.Random(1), first_s=0.01, most_s=0.05)


class FakeCoordinator:
    """Both WebSockets. `acknowledge` and `closing` change what the telemetry side does."""

    def __init__(self) -> None:
        self.hellos: list[Hello] = []
        self.paths: list[str] = []
        self.announced: list[str] = []
        self.items: list[int] = []
        self.acknowledge = True
        self.refuse: HTTPStatus | None = None
        self.refusal = "not today\n"
        self.close_code = 0
        self.peers: dict[str, ServerConnection] = {}
        self.telemetry: set[ServerConnection] = set()
        self.changed = asyncio.Event()
        self.server: Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.server = await serve(self._serve, "127.0.0.1", self.port, process_request=self._admit, close_timeout=0.1)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                self.changed.clear()
                await self.changed.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        scheme, _, text = request.headers["Authorization"].partition(" ")
        assert scheme == "Hive"
        hello = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Hello)
        assert PeerId.parse(hello.peer).verify(HELLO_PURPOSE, hello.signed_bytes(), hello.signature)
        self.hellos.append(hello)
        self.paths.append(request.path)
        self.changed.set()
        return connection.respond(self.refuse, self.refusal) if self.refuse is not None else None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        hello = self.hellos[-1]
        try:
            if connection.request.path.startswith("/ws/telemetry/"):
                await self._take_items(connection)
            else:
                await self._pass_on(connection, hello.peer)
        except ConnectionClosed:
            pass
        finally:
            self.telemetry.discard(connection)
            self.peers = {p: c for p, c in self.peers.items() if c is not connection}
            self.changed.set()

    async def _take_items(self, connection: ServerConnection) -> None:
        self.telemetry.add(connection)
        self.changed.set()
        async for message in connection:
            assert isinstance(message, str)
            batch = msgspec.json.decode(message, type=Batch)
            if self.close_code:
                code, self.close_code = self.close_code, 0
                await connection.close(code, "cannot be read")
                return
            self.items += [i.sequence for i in batch.items]
            if self.acknowledge:
                await connection.send(encode(Ack(sequence=batch.items[-1].sequence)).decode())
            self.changed.set()

    async def _pass_on(self, connection: ServerConnection, peer: str) -> None:
        self.peers[peer] = connection
        await self._tell()
        async for message in connection:
            command = msgspec.json.decode(message)
            if command["type"] == "announce":
                self.announced.append(command["address"])
            elif (to := self.peers.get(command["to"])) is None:
                await connection.send(msgspec.json.encode({"type": "gone", "to": command["to"], "exchange": command["exchange"]}))
            else:
                passed = {"type": "message", "from": peer, "exchange": command["exchange"], "body": command["body"]}
                await to.send(msgspec.json.encode(passed).decode())
            self.changed.set()

    async def _tell(self) -> None:
        for connection in self.peers.values():
            await connection.send(msgspec.json.encode({"type": "waiting", "peers": list(self.peers)}).decode())
        self.changed.set()


def event(sequence: int) -> Event:
    return Event(sequence=sequence, at=0.0, name="joined")
