"""First contact with a peer that has a reachable address: it takes sealed offers on a WebSocket of its own.

`ws://host:port/PEERID`: the caller sends one binary message, the sealed offer, and gets one back, the sealed answer; or a
close code with a reason. Everybody may call, so everything is bounded: sockets, sessions, size, time, and rate per address.
"""

from __future__ import annotations

import asyncio
import errno
import http
import ipaddress
import logging
from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.http11 import Request, Response

from agent.errors import AddressInUse, ConfigError, LocalError, NotReachable, RemoteError
from agent.identity import PeerId
from agent.net.ice import host_addresses
from agent.net.network import Network
from agent.net.offers import SEALED_BYTES_MAX

REFUSED, TOO_SLOW, MALFORMED, GOING_AWAY = 4403, 4408, 4400, 1001
REASON_BYTES_MAX = 120
"""RFC 6455, section 5.5: a close reason has at most 123 bytes."""


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """Limits of the server."""

    sessions_max: int = 64
    """Connections at one time, those that have not said anything yet included."""
    offers_per_s: float = 2.0
    """Sustained rate of offers from one address (IPv6: one /64 network)."""
    offers_burst: int = 40
    """How many may come at once from one address: agents behind one NAT, or a whole demo."""
    addresses_max: int = 4096
    """Addresses whose rate is remembered; the one longest unseen is forgotten first."""
    offer_timeout_s: float = 5.0
    """From the opening of the connection to the offer."""
    answer_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.sessions_max, self.offers_burst, self.addresses_max) < 1 or self.offers_per_s <= 0:
            raise ConfigError("the bootstrap server's limits must be positive")
        if min(self.offer_timeout_s, self.answer_timeout_s) <= 0:
            raise ConfigError("the bootstrap server's times must be positive")


class Rates:
    """A token bucket per address, for a bounded number of addresses."""

    def __init__(self, config: BootstrapConfig) -> None:
        self._config = config
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Whether one more offer from `address` is within its rate. `now` in seconds of any steady clock."""
        burst = float(self._config.offers_burst)
        level, at = self._buckets.pop(address, (burst, now))
        level = min(burst, level + (now - at) * self._config.offers_per_s)
        allowed = level >= 1
        self._buckets[address] = (level - 1 if allowed else level, now)
        if len(self._buckets) > self._config.addresses_max:
            self._buckets.popitem(last=False)
        return allowed


class BootstrapServer:
    """Answers offers for `network` on a port of this machine."""

    def __init__(self, network: Network, host: str, port: int, config: BootstrapConfig | None = None) -> None:
        self._network = network
        self._host = host
        self._port = port
        self._config = config or BootstrapConfig()
        self._rates = Rates(self._config)
        self._server: Server | None = None
        self._answering: set[asyncio.Task[bytes]] = set()  # sessions_max
        self.offers_answered = 0
        self.offers_refused = 0

    async def start(self) -> None:
        """Listen. Raises AddressInUse if the port is taken, LocalError if it cannot be had for another reason."""
        try:
            self._server = await serve(
                self._serve,
                self._host,
                self._port,
                process_request=self._admit,
                create_connection=self._connection_type(),
                compression=None,
                max_size=SEALED_BYTES_MAX,
                max_queue=1,
                open_timeout=self._config.offer_timeout_s,
                ping_interval=None,
                close_timeout=1,
                server_header=None,
                logger=logging.getLogger(f"{__name__}.websockets"),
            )
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"port {self._port} on {self._host} is taken by another program. Choose another with --listen, or 0 for any."
                ) from None
            raise LocalError(f"cannot listen on {self._host}:{self._port}: {e.strerror or e}") from None

    @property
    def port(self) -> int:
        """The port that is listened on, also when 0 was asked for."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def address(self, host: str | None = None) -> str:
        """What others use, with `host` as they see this machine; by default what we listen on, or one of our addresses."""
        if host is None:
            host = host_addresses("auto")[0] if self._host in ("0.0.0.0", "::", "") else self._host
        return format_address(host, self.port, self._network.peer_id)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._answering:
                task.cancel()
            await self._server.wait_closed()

    def _connection_type(self) -> type[ServerConnection]:
        sessions_max = self._config.sessions_max

        class Bounded(ServerConnection):
            """Hangs up at once when there are as many as there may be, before anything is read."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                if len(self.server.handler_tasks) > sessions_max:
                    self.transport.abort()

        return Bounded

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path != f"/{self._network.peer_id}":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "another peer is at this address\n")
        remote = connection.remote_address
        if remote is None or not self._rates.take(_source(str(remote[0])), asyncio.get_running_loop().time()):
            self.offers_refused += 1
            return connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "too many offers from this address; wait a moment\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        code, reason = 1000, ""
        try:
            async with asyncio.timeout(self._config.offer_timeout_s):
                offer = await connection.recv()
            if isinstance(offer, str):
                code, reason = MALFORMED, "an offer is a binary message"
            elif (answer := await self._answer(offer)) is None:
                code, reason = GOING_AWAY, "this peer is closing"
            else:
                await connection.send(answer)
                self.offers_answered += 1
        except TimeoutError:
            code, reason = TOO_SLOW, "that took too long"
        except RemoteError as e:
            code, reason = REFUSED, str(e)
        except ConnectionClosed:
            return
        if code != 1000:
            self.offers_refused += 1
        await connection.close(code, reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore"))

    async def _answer(self, offer: bytes) -> bytes | None:
        """The network's answer, in a task that `close` can end; then it is None. Raises RemoteError, TimeoutError."""
        task = asyncio.get_running_loop().create_task(self._network.answer(offer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        try:
            async with asyncio.timeout(self._config.answer_timeout_s):
                await asyncio.wait({task})
        finally:
            task.cancel()
        return None if task.cancelled() else task.result()


class BootstrapSignaler:
    """Reaches the one peer whose address it was given. See `network.Signaler`."""

    def __init__(self, address: str) -> None:
        self.peer, self._url, self._host = parse_address(address)
        self.address = address

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        """Raises NotReachable with what stood in the way."""
        if peer != self.peer:
            raise NotReachable(f"{self.address} is the address of another peer than {peer.short}")
        try:
            async with connect(
                self._url,
                compression=None,
                max_size=SEALED_BYTES_MAX,
                ping_interval=None,
                close_timeout=1,
                user_agent_header=None,
                proxy=None if is_local(self._host) else True,
            ) as connection:
                await connection.send(sealed_offer)
                answer = await connection.recv()
        except ConnectionClosed as e:
            why = e.rcvd.reason if e.rcvd is not None and e.rcvd.reason else "it hung up"
            raise NotReachable(f"the bootstrap peer at {self.address} refused: {why}") from None
        except InvalidStatus as e:
            raise NotReachable(f"the bootstrap peer at {self.address} refused: {_body(e.response)}") from None
        except (OSError, TimeoutError, InvalidHandshake, WebSocketException, ImportError) as e:
            raise NotReachable(f"the bootstrap peer at {self.address} cannot be reached: {_why(e)}") from None
        if isinstance(answer, str):
            raise NotReachable(f"what answers at {self.address} is not a Hive peer")
        return answer


def format_address(host: str, port: int, peer: PeerId) -> str:
    """`ws://host:port/PEERID`, with brackets around an IPv6 address."""
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}/{peer}"


def parse_address(address: str) -> tuple[PeerId, str, str]:
    """The peer, the URL and the host of `ws://host:port/PEERID` or `wss://…`. Raises ConfigError with a sentence."""
    wrong = f"{address[:120]!r} is not a bootstrap address (ws://host:port/PEERID)"
    try:
        url = urlsplit(address)
        host, _ = url.hostname, url.port
        peer = PeerId.parse(url.path.lstrip("/"))
    except ValueError as e:
        raise ConfigError(f"{wrong}: {e}") from None
    if url.scheme not in ("ws", "wss") or not host or url.query or url.fragment or len(address) > 300 or "@" in url.netloc:
        raise ConfigError(wrong)
    return peer, address, host


def is_local(host: str) -> bool:
    """Whether a proxy could not possibly help to reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _source(address: str) -> str:
    """What shares one rate: an IPv4 address, or an IPv6 network of the size that one customer gets."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False).network_address)
    return str(ip)


def _body(response: Response) -> str:
    text = bytes(response.body or b"")[:200].decode(errors="replace").strip()
    return text or f"HTTP status {response.status_code}"


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)[:200] or type(error).__name__
