"""ICE for Hive: which addresses to offer, how long to look for them, and the blob that carries them.

aioice gathers from one STUN and one TURN server and waits five seconds for either. Here all that the manifest names are
asked at once, STUN gets about one second, and a machine with no network but loopback still finds itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from aioice import Candidate, Connection, TransportPolicy
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

_TYPES = ("host", "srflx", "relay")


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
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ProtocolViolation(f"a connection description is not valid: {e}") from None
    description.remote_candidates()
    return description


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


class IceConnection(Connection):
    """aioice's connection with gathering of our own."""

    def __init__(self, config: IceConfig, *, controlling: bool) -> None:
        super().__init__(
            ice_controlling=controlling,
            transport_policy=TransportPolicy.RELAY if config.relay_only else TransportPolicy.ALL,
        )
        self._config = config

    async def gather_candidates(self) -> None:
        """Find local candidates, within the configured times. Call once."""
        assert not self._local_candidates_start
        self._local_candidates_start = True
        addresses = [] if self._config.relay_only else host_addresses(self._config.loopback)
        self._local_candidates += await self.get_component_candidates(1, addresses)  # with no server: host sockets only
        stun = [asyncio.ensure_future(query) for query in self._stun_queries()]
        turn = [asyncio.ensure_future(request) for request in self._turn_requests()]
        try:
            await asyncio.gather(
                self._collect(stun, self._config.stun_timeout_s), self._collect(turn, self._config.turn_timeout_s)
            )
        finally:
            await _give_up(stun + turn)
        self._local_candidates_end = True

    async def _collect(self, tasks: Sequence[asyncio.Future[tuple[Candidate, StunProtocol | None]]], timeout_s: float) -> None:
        if not tasks:
            return
        done, _ = await asyncio.wait(tasks, timeout=timeout_s)
        for task in done:
            if task.exception() is not None:  # a server that refuses, or that does not answer, is one that we do without
                continue
            candidate, protocol = task.result()
            self._local_candidates.append(candidate)
            if protocol is not None:
                self._protocols.append(protocol)

    def _stun_queries(self) -> list[Coroutine[Any, Any, tuple[Candidate, StunProtocol | None]]]:
        servers = [u for s in self._config.servers if (u := parse_stun_turn_uri(s.urls))["scheme"] == "stun"]
        return [
            server_reflexive_candidate(protocol, (server["host"], server["port"]))
            for server in servers[:STUN_SERVERS_MAX]
            for protocol in self._protocols
            if not (ip := ipaddress.ip_address(protocol.local_candidate.host)).is_loopback and ip.version == 4
        ]

    def _turn_requests(self) -> list[Coroutine[Any, Any, tuple[Candidate, StunProtocol | None]]]:
        servers = [(u, s) for s in self._config.servers if (u := parse_stun_turn_uri(s.urls))["scheme"] in ("turn", "turns")]
        return [
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
            for url, server in servers[:TURN_SERVERS_MAX]
        ]


class IceGatherer(RTCIceGatherer):
    """aiortc's gatherer on an IceConnection."""

    _connection: IceConnection

    def __init__(self, config: IceConfig, *, controlling: bool) -> None:
        super().__init__(iceServers=[])
        self._connection = IceConnection(config, controlling=controlling)


def host_addresses(loopback: Literal["auto", "always", "never"]) -> list[str]:
    """This machine's addresses worth offering, loopback by the rule of IceConfig."""
    addresses: list[str] = get_host_addresses(use_ipv4=True, use_ipv6=True)[:HOST_ADDRESSES_MAX]
    if loopback == "always" or (loopback == "auto" and not addresses):
        addresses.append("127.0.0.1")
    return addresses


async def _give_up(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
