"""How an agent presents itself to the coordinator's WebSockets, and how it stays connected to them."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from agent import __version__
from agent.errors import ConfigError
from agent.identity import Identity
from agent.net.bootstrap import is_local
from agent.reports import HELLO_PURPOSE, MESSAGE_BYTES_MAX, Hello, encode

logger = logging.getLogger(__name__)

RETRY_MIN_S, RETRY_MAX_S = 1.0, 30.0
STEADY_S = 10.0
"""A connection that held for so long starts the back-off afresh."""
REFUSAL_BYTES_MAX = 4096
REPLACED = 4409
"""The coordinator's close code when another connection of the same peer took over."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """Who speaks, in which experiment, since when. `session` is 16 hex digits, new for each process."""

    identity: Identity
    experiment: str
    session: str
    clock: Callable[[], float] = time.time
    admission: Callable[[], bytes] = bytes
    """The coordinator's newest certificate for us; empty if we have none."""

    def authorization(self) -> str:
        """The value of the Authorization header, good for five minutes."""
        hello = Hello(
            peer=str(self.identity.peer_id),
            experiment=self.experiment,
            session=self.session,
            at=int(self.clock()),
            version=__version__,
        )
        signature = self.identity.sign(HELLO_PURPOSE, hello.signed_bytes())
        signed = msgspec.structs.replace(hello, signature=signature, admission=self.admission())
        return "Hive " + base64.urlsafe_b64encode(encode(signed)).decode().rstrip("=")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """The pause between attempts: doubled each time, half of it random, so that a thousand agents do not return at once."""

    rng: random.Random
    first_s: float = RETRY_MIN_S
    most_s: float = RETRY_MAX_S

    def pause_s(self, failures: int) -> float:
        """After so many failures in a row (1, 2, …), seconds."""
        whole = min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 16))
        return whole * (0.5 + 0.5 * self.rng.random())


class CoordinatorSocket:
    """One WebSocket to the coordinator, opened again whenever it ends, until `close`.

    `serve(connection)` has it while it is open; when it returns or the connection ends, the next attempt follows.
    `url` is the coordinator's (`http://…` or `https://…`), `path` the WebSocket's below it.
    """

    def __init__(
        self, url: str, path: str, badge: Badge, patience: Patience, serve: Callable[[ClientConnection], Awaitable[None]]
    ) -> None:
        self.url = websocket_url(url, path)
        self.connected = False
        self.why = "not tried yet"
        """Why it is not connected, when it is not."""
        self.refused_code = 0
        """The close code with which the coordinator ended the connection before this one; 0 if it did not."""
        self.replaced = 0
        """How often another connection of the same peer took over."""
        self.bytes_sent = 0
        self.bytes_received = 0
        self._badge = badge
        self._patience = patience
        self._serve = serve
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Close and stay closed; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def send(self, connection: ClientConnection, message: bytes) -> None:
        """Send one text message, counted."""
        self.bytes_sent += len(message)
        await connection.send(message, text=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                await self._once()
                self.refused_code, self.why = 0, "the coordinator closed the connection"
            except (OSError, TimeoutError, WebSocketException, ImportError) as e:
                self._failed(e)
            failures = 1 if loop.time() - began > STEADY_S and self.refused_code != REPLACED else failures + 1
            await asyncio.sleep(self._patience.pause_s(failures))

    async def _once(self) -> None:
        parts = urlsplit(self.url)
        try:
            async with connect(
                self.url,
                additional_headers={"Authorization": self._badge.authorization()},
                compression=None,
                max_size=2 * MESSAGE_BYTES_MAX,
                close_timeout=1,
                user_agent_header=f"hive-agent/{__version__}",
                proxy=None if is_local(parts.hostname or "") else True,
                logger=logging.getLogger(f"{__name__}.websockets"),
            ) as connection:
                self.connected, self.why = True, ""
                logger.info("connected to %s", self.url)
                await self._serve(connection)
        finally:
            self.connected = False

    def _failed(self, error: BaseException) -> None:
        closed = error.rcvd if isinstance(error, ConnectionClosed) else None
        self.refused_code = closed.code if closed is not None else 0
        self.replaced += self.refused_code == REPLACED
        if isinstance(error, ConnectionClosed):
            why = (closed.reason if closed is not None else "") or "the connection ended"
        elif isinstance(error, InvalidStatus):
            why = f"HTTP status {error.response.status_code} {_sentence(bytes(error.response.body or b''))}".strip()
        elif isinstance(error, OSError) and error.strerror:
            why = error.strerror
        else:
            why = str(error)[:300] or type(error).__name__
        if why != self.why:
            logger.info("%s is not connected: %s", self.url, why)
        self.why = why


def _sentence(body: bytes) -> str:
    """What a refusal says: its `detail` if it is the coordinator's JSON, otherwise its beginning."""
    try:
        detail = msgspec.json.decode(body[:REFUSAL_BYTES_MAX], type=dict[str, Any]).get("detail")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        detail = None
    return (detail if isinstance(detail, str) else body.decode(errors="replace"))[:300]


def websocket_url(url: str, path: str) -> str:
    """`ws(s)://…/path` below the coordinator's `http(s)://…`. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as e:
        raise ConfigError(f"{url[:120]!r} is not the address of a coordinator: {e}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"{url[:120]!r} is not the address of a coordinator (http://… or https://…)")
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/{path.lstrip('/')}"
