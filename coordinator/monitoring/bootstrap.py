"""Tries the addresses for first contact, as a newcomer would: connects, and asks for the peer's WebSocket.

Agents and organizers say where to connect to, so this could be turned against others' machines, or our own network (SSRF).
Only addresses of a signed manifest, or announced by a peer that proved its key, are tried; a name is resolved once and
the connection goes to the address that was checked; that address must be public; redirects are not followed; of the
answer nothing but "it is that peer" or why not is kept; and each round is bounded.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from channels.db import database_sync_to_async
from django.conf import settings
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, ProtocolError
from websockets.http11 import Response
from websockets.uri import parse_uri

from coordinator.experiments.models import Experiment
from coordinator.monitoring.models import BootstrapCheck, Outcome
from coordinator.rendezvous.actions import bootstrap_addresses

ADDRESSES_MAX = 16
"""Of one experiment, per round."""
EXPERIMENTS_MAX = 20
AT_ONCE = 8
TIMEOUT_S = 4.0
ANSWER_BYTES_MAX = 8 * 1024
PORT_MIN, WEB_PORTS = 1024, (80, 443)
NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"), ipaddress.ip_network("2002::/16"))
"""IPv6 networks that stand for IPv4 addresses, private ones too (RFC 6052, RFC 8215, 6to4)."""


class NotTried(Exception):
    """We do not connect to that address; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What came of one try."""

    outcome: Outcome
    detail: str = ""
    latency_ms: float | None = None


Probe = Callable[[str], Awaitable[Finding]]


async def check_all(now: float, probe: Probe | None = None) -> int:
    """Try the addresses of every open experiment and keep what was found. Returns how many were tried."""
    wanted = await database_sync_to_async(_wanted)(now)
    probe = probe or look
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(address: str) -> Finding:
        async with gate:
            return await probe(address)

    addresses = sorted({address for _, of_it in wanted for address in of_it})
    findings = dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))
    await database_sync_to_async(_keep)(wanted, findings, now)
    return len(addresses)


async def look(address: str) -> Finding:
    """Connect to one address `ws://host:port/PEERID`, for at most TIMEOUT_S."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await _handshake(address, await _resolve(address))
    except NotTried as e:
        return Finding(outcome=Outcome.SKIPPED, detail=str(e))
    except TimeoutError:
        return Finding(outcome=Outcome.FAILED, detail=f"no answer within {TIMEOUT_S:.0f} s; a firewall or a NAT may drop it")
    except InvalidStatus as e:
        return Finding(outcome=Outcome.FAILED, detail=f"another program or another peer answers (HTTP {e.response.status_code})")
    except (InvalidHandshake, ProtocolError, EOFError, ValueError):
        return Finding(outcome=Outcome.FAILED, detail="what answers is not a WebSocket")
    except ssl.SSLError as e:
        return Finding(outcome=Outcome.FAILED, detail=f"TLS failed: {e.reason or 'certificate not accepted'}"[:200])
    except OSError as e:
        return Finding(outcome=Outcome.FAILED, detail=(e.strerror or "cannot be connected to")[:200])
    return Finding(outcome=Outcome.OK, latency_ms=round((time.monotonic() - began) * 1000, 1))


def permitted(text: str, *, loopback: bool) -> bool:
    """Whether we may connect to this IP address; to our own machine only if `loopback`."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return loopback
    return ip.is_global and not ip.is_multicast and not any(ip in net for net in NAT64 if net.version == ip.version)


async def _resolve(address: str) -> tuple[str, int]:
    """The one address (IP, port) that we connect to. Raises NotTried, OSError."""
    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    if port < PORT_MIN and port not in WEB_PORTS:
        raise NotTried(f"port {port} belongs to another service")
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        raise OSError(0, "its name does not resolve") from None
    loopback = settings.DEBUG or settings.EMBEDDED
    found = next((str(info[4][0]) for info in infos if permitted(str(info[4][0]), loopback=loopback)), None)
    if found is None:
        raise NotTried("not a public address: only machines of the same network can reach it, and the site does not try")
    return found, port


async def _handshake(address: str, to: tuple[str, int]) -> None:
    """Open the peer's WebSocket, and hang up. Raises what `look` catches."""
    try:
        uri = parse_uri(address)
    except InvalidURI as e:
        raise ValueError(str(e)) from None
    tls = {"ssl": ssl.create_default_context(), "server_hostname": uri.host} if uri.secure else {}
    reader, writer = await asyncio.open_connection(to[0], to[1], limit=ANSWER_BYTES_MAX, **tls)  # type: ignore[arg-type]
    try:
        protocol = ClientProtocol(uri)
        protocol.send_request(protocol.connect())
        writer.writelines(protocol.data_to_send())
        received = 0
        while not (events := protocol.events_received()):
            data = await reader.read(ANSWER_BYTES_MAX - received)
            received += len(data)
            if not data or received >= ANSWER_BYTES_MAX:
                protocol.receive_eof()
                raise protocol.handshake_exc or EOFError
            protocol.receive_data(data)
        if not isinstance(events[0], Response) or protocol.handshake_exc is not None:
            raise protocol.handshake_exc or EOFError
    finally:
        writer.transport.abort()


def _wanted(now: float) -> list[tuple[int, list[str]]]:
    running = Experiment.objects.visible_to().exclude(status=Experiment.Status.FINISHED).order_by("-pk")[:EXPERIMENTS_MAX]
    return [(e.pk, bootstrap_addresses(e, now)[:ADDRESSES_MAX]) for e in running]


def _keep(wanted: Iterable[tuple[int, list[str]]], findings: dict[str, Finding], now: float) -> None:
    for experiment_id, addresses in wanted:
        checks = BootstrapCheck.objects.filter(experiment_id=experiment_id)
        checks.exclude(address__in=addresses).delete()
        answered = dict(checks.values_list("address", "answered_at"))
        BootstrapCheck.objects.bulk_create(
            [
                BootstrapCheck(
                    experiment_id=experiment_id,
                    address=address,
                    outcome=findings[address].outcome,
                    detail=findings[address].detail,
                    latency_ms=findings[address].latency_ms,
                    checked_at=now,
                    answered_at=now if findings[address].outcome == Outcome.OK else answered.get(address),
                )
                for address in addresses
            ],
            update_conflicts=True,
            unique_fields=["experiment", "address"],
            update_fields=["outcome", "detail", "latency_ms", "checked_at", "answered_at"],
        )
