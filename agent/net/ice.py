"""ICE for Hive: which addresses to offer, how long to look for them, and the blob that carries them.

aioice gathers from one STUN and one TURN server and waits five seconds for either. Here all that the manifest names are
asked at once, STUN gets about one second, and a machine with no network but loopback still finds itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from aioice import Candidate, Connection, TransportPolicy, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import StunProtocol, get_host_addresses, relayed_candidate, server_reflexive_candidate
from aiortc import RTCIceGatherer
from aiortc.rtcicetransport import parse_stun_turn_uri
from msgspec import Meta

from agent.errors import ConfigError, ProtocolViolation
from agent.manifest import IceServer
from agent.net.transport import DESCRIPTION_BYTES_MAX

CANDIDATES_MAX = 24
HOST_ADDRESSES_MAX = 12
STUN_SERVERS_MAX = 2
TURN_SERVERS_MAX = 3
REFLEXIVE_MAX = 64
"""Addresses besides those of its description that a peer's checks may come from: NATs make some. Each costs a pair, and checks of
ours sent there: a peer that forges senders must have neither our memory nor our packets for it."""
SILENT_S = 60.0
"""How long a server that did not answer is given SILENT_SHARE of its timeout."""
SILENT_SHARE = 0.25

_TYPES = ("host", "srflx", "relay")

Query: TypeAlias = Coroutine[Any, Any, tuple[Candidate, StunProtocol | None]]
"""One question to a STUN or TURN server; the answer is a candidate, and for TURN what it is reached through."""


class _Candidate(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    type: Annotated[int, Meta(ge=0, lt=len(_TYPES))]
    address: Annotated[bytes, Meta(min_length=4, max_length=16)]
    port: Annotated[int, Meta(ge=1, le=65_535)]


class Description(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one side tells the other: about 70 bytes, and 9 (IPv4) or 22 (IPv6) more per candidate."""

    format: Literal[1]
    username: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9+/]{4,64}$")]
    password: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9+/]{22,64}$")]
    fingerprint: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """SHA-256 of the DTLS certificate."""
    candidates: Annotated[tuple[_Candidate, ...], Meta(max_length=CANDIDATES_MAX)]

    def remote_candidates(self) -> list[Candidate]:
        """The candidates for aioice. Raises ProtocolViolation for an address that nobody can have."""
        return [_to_aioice(c) for c in self.candidates]


def describe(connection: Connection, fingerprint: bytes) -> bytes:
    """Encode what `connection` gathered. Relayed and reflexive candidates are kept before host ones if there are too many."""
    known = [c for c in connection.local_candidates if c.type in _TYPES]
    chosen = sorted(known, key=lambda c: c.type == "host")[:CANDIDATES_MAX]
    blob = msgspec.msgpack.encode(
        Description(
            format=1,
            username=connection.local_username,
            password=connection.local_password,
            fingerprint=fingerprint,
            candidates=tuple(_Candidate(_TYPES.index(c.type), ipaddress.ip_address(c.host).packed, c.port) for c in chosen),
        )
    )
    assert len(blob) <= DESCRIPTION_BYTES_MAX
    return blob


def parse(blob: bytes) -> Description:
    """Decode and validate a peer's description. Raises ProtocolViolation."""
    if len(blob) > DESCRIPTION_BYTES_MAX:
        raise ProtocolViolation(f"a connection description of {len(blob)} bytes is too large")
    try:
        description = _DECODER.decode(blob)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ProtocolViolation(f"a connection description is not valid: {e}") from None
    description.remote_candidates()
    return description


def subnet(host: str) -> str:
    """The network of a public address, as far as one owner comes by all of it cheaply: the /24 of an IPv4 address, the /48 of an
    IPv6 one (RFC 6177, section 2). Empty for an address that is not public."""
    address = ipaddress.ip_address(host)
    if not address.is_global:
        return ""
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _to_aioice(candidate: _Candidate) -> Candidate:
    try:
        address = ipaddress.ip_address(candidate.address)
    except ValueError:
        raise ProtocolViolation("a candidate's address has neither 4 nor 16 bytes") from None
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        raise ProtocolViolation(f"a candidate's address {address} is not one that a peer can have")
    kind = _TYPES[candidate.type]
    return Candidate(
        foundation=candidate_foundation(kind, "udp", str(address)),
        component=1,
        transport="udp",
        priority=candidate_priority(1, kind),
        host=str(address),
        port=candidate.port,
        type=kind,
    )


_BROADCAST = ipaddress.ip_address("255.255.255.255")
_DECODER = msgspec.msgpack.Decoder(Description)


@dataclass(frozen=True, kw_only=True)
class IceConfig:
    """Where and how long to look for addresses."""

    servers: tuple[IceServer, ...] = ()
    """STUN and TURN servers; the first STUN_SERVERS_MAX and TURN_SERVERS_MAX of each kind are used."""
    loopback: Literal["auto", "always", "never"] = "auto"
    """Whether to offer 127.0.0.1: `auto` does so when the machine has no other address."""
    relay_only: bool = False
    """Offer only TURN candidates: hides the own address, and tests relays."""
    stun_timeout_s: float = 1.0
    """How long a STUN server may hold up the offer."""
    turn_timeout_s: float = 5.0
    """How long a TURN server may hold up the offer."""

    def __post_init__(self) -> None:
        if self.stun_timeout_s <= 0 or self.turn_timeout_s <= 0:
            raise ConfigError("the STUN and TURN timeouts must be positive")
        for server in self.servers:
            try:
                parse_stun_turn_uri(server.urls)
            except ValueError as e:
                raise ConfigError(f"{server.urls!r} is not the address of a STUN or TURN server: {e}") from None


class Silence:
    """Which servers did not answer lately: they hold up the next offers for a shorter time."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # by URL of the configuration

    def patience(self, url: str, now: float) -> float:
        """The share of the timeout that this server gets."""
        return SILENT_SHARE if now < self._since.get(url, -SILENT_S) + SILENT_S else 1.0

    def heard(self, url: str, answered: bool, now: float) -> None:
        if answered:
            self._since.pop(url, None)
        elif self.patience(url, now) == 1.0:
            self._since[url] = now


class IceConnection(Connection):
    """aioice's connection with gathering of our own, and a limit on what a peer's checks can make of it."""

    def __init__(self, config: IceConfig, silence: Silence, *, controlling: bool) -> None:
        super().__init__(
            ice_controlling=controlling,
            transport_policy=TransportPolicy.RELAY if config.relay_only else TransportPolicy.ALL,
        )
        self._config = config
        self._silence = silence

    async def gather_candidates(self) -> None:
        """Find local candidates, within the configured times. Call once."""
        assert not self._local_candidates_start
        self._local_candidates_start = True
        addresses = [] if self._config.relay_only else host_addresses(self._config.loopback)
        self._local_candidates += await self.get_component_candidates(1, addresses)  # with no server: host sockets only
        stun, turn = self._stun_queries(), self._turn_requests()
        await asyncio.gather(
            *(self._ask(url, queries, self._config.stun_timeout_s) for url, queries in stun.items()),
            self._ask_relays(turn),
        )
        self._local_candidates_end = True

    def check_incoming(self, message: stun.Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """Take an authenticated check; from too many addresses, or without its priority, it is as good as lost."""
        known = self._remote_candidates
        is_known = any(c._network_host == addr[0] and c.port == addr[1] for c in known)
        if is_known or ("PRIORITY" in message.attributes and sum(c.type == "prflx" for c in known) < REFLEXIVE_MAX):
            super().check_incoming(message, addr, protocol)

    async def _ask_relays(self, requests: dict[str, list[Query]]) -> None:
        """All TURN servers at once; when one has answered, the others get only as long as a STUN server would."""
        asking = [
            asyncio.ensure_future(self._ask(url, queries, self._config.turn_timeout_s)) for url, queries in requests.items()
        ]
        try:
            pending: set[asyncio.Future[bool]] = set(asking)
            timeout_s: float | None = None
            while pending:
                done, pending = await asyncio.wait(pending, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    return
                if any(task.result() for task in done):
                    timeout_s = self._config.stun_timeout_s
        finally:
            await _give_up(asking)

    async def _ask(self, url: str, queries: list[Query], timeout_s: float) -> bool:
        """Whether the server gave a candidate to any of the queries in time."""
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(query) for query in queries]
        try:
            done, _ = await asyncio.wait(tasks, timeout=timeout_s * self._silence.patience(url, loop.time()))
            answers = [task.result() for task in done if task.exception() is None]  # a server that refuses is done without
        finally:
            await _give_up(tasks)
        for candidate, protocol in answers:
            self._local_candidates.append(candidate)
            if protocol is not None:
                self._protocols.append(protocol)
        self._silence.heard(url, bool(done), loop.time())
        return bool(answers)

    def _servers(self) -> Iterable[IceServer]:
        """Each URL once: a server that is listed twice is one server."""
        return {server.urls: server for server in self._config.servers}.values()

    def _stun_queries(self) -> dict[str, list[Query]]:
        servers = [(s.urls, u) for s in self._servers() if (u := parse_stun_turn_uri(s.urls))["scheme"] == "stun"]
        bases = [p for p in self._protocols if _has_outside(p.local_candidate.host)]
        if not bases:
            return {}
        return {
            name: [server_reflexive_candidate(protocol, (url["host"], url["port"])) for protocol in bases]
            for name, url in servers[:STUN_SERVERS_MAX]
        }

    def _turn_requests(self) -> dict[str, list[Query]]:
        servers = [(s, u) for s in self._servers() if (u := parse_stun_turn_uri(s.urls))["scheme"] in ("turn", "turns")]
        return {
            server.urls: [
                relayed_candidate(
                    component=1,
                    hide_related_address=self._config.relay_only,
                    protocol_factory=lambda: StunProtocol(self),
                    turn_server=(url["host"], url["port"]),
                    turn_username=server.username,
                    turn_password=server.credential,
                    turn_ssl=url["scheme"] == "turns",
                    turn_transport=url["transport"],
                )
            ]
            for server, url in servers[:TURN_SERVERS_MAX]
        }


class IceGatherer(RTCIceGatherer):
    """aiortc's gatherer on an IceConnection."""

    _connection: IceConnection

    def __init__(self, config: IceConfig, silence: Silence, *, controlling: bool) -> None:
        super().__init__(iceServers=[])
        self._connection = IceConnection(config, silence, controlling=controlling)


def host_addresses(loopback: Literal["auto", "always", "never"]) -> list[str]:
    """This machine's addresses worth offering, loopback by the rule of IceConfig."""
    addresses: list[str] = get_host_addresses(use_ipv4=True, use_ipv6=True)[:HOST_ADDRESSES_MAX]
    if loopback == "always" or (loopback == "auto" and not addresses):
        addresses.append("127.0.0.1")
    return addresses


def _has_outside(host: str) -> bool:
    """Whether a STUN server could see this socket under another address: IPv4 only, as in aioice."""
    ip = ipaddress.ip_address(host)
    return ip.version == 4 and not ip.is_loopback


async def _give_up(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
