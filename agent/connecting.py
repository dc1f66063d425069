"""Opens what an agent talks through: transport, network, overlay, its own bootstrap address, the coordinator's sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.config import AgentConfig
from agent.credentials import Credentials
from agent.errors import RemoteError
from agent.identity import Identity
from agent.joining import AddressBook, FirstContact, JoinConfig, Sources
from agent.manifest import Manifest
from agent.net.bootstrap import BootstrapServer, BootstrapSignaler
from agent.net.coordinator import Coordinator
from agent.net.coordinator_socket import Badge, Patience
from agent.net.ice import IceConfig
from agent.net.leftovers import Delivery, Leftovers, Spool
from agent.net.network import Network, NetworkConfig
from agent.net.overlay import Overlay
from agent.net.rendezvous import Rendezvous
from agent.net.telemetry_socket import TelemetrySocket
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from agent.telemetry import Telemetry

log = logging.getLogger(__name__)

RENDEZVOUS_WAIT_S = 3.0
"""How long joining waits for the coordinator to say who else waits."""
REUNITE_PERIOD_S = 15.0
"""How often an agent without any connection looks for first contact again."""
ADDRESSES_PERIOD_S = 60.0
"""How often bootstrap addresses are announced in the DHT, and remembered on disk."""
ADDRESS_TTL_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Who takes part in what: known before anything is opened."""

    config: AgentConfig
    identity: Identity
    manifest: Manifest
    coordinator: Coordinator
    credentials: Credentials
    """What we show, and the rule by which we judge what others show."""


@dataclass(frozen=True, kw_only=True)
class Connected:
    """What is open now."""

    network: Network
    overlay: Overlay
    first_contact: FirstContact
    rendezvous: Rendezvous
    book: AddressBook
    address: str
    """Our own bootstrap address, or empty."""
    coordinator_bytes: Callable[[], int]
    joined: asyncio.Event = field(default_factory=asyncio.Event)

    async def join(self) -> int:
        """Join the overlay. Returns how many contacts helped, 0 if we are its first peer. Raises JoinError."""
        await self.rendezvous.told(RENDEZVOUS_WAIT_S)
        contacts = await self.first_contact.join()
        self.joined.set()
        return contacts

    async def keep_company(self) -> None:
        """Whenever nobody is connected, look for first contact again, until cancelled."""
        while True:
            await asyncio.sleep(REUNITE_PERIOD_S)
            if not self.network.peers():
                await self.first_contact.reunite(lambda: set(self.network.peers()))

    async def keep_addresses(self) -> None:
        """Once joined, announce our address and remember others', until cancelled."""
        await self.joined.wait()
        while True:
            found: list[str] = []
            try:
                if self.address:
                    await self.overlay.announce(self.address, ttl_s=ADDRESS_TTL_S)
                found = [address for _, address in await self.overlay.bootstraps() if address != self.address]
                self.book.met(found)
            except RemoteError as e:
                log.info("bootstrap addresses: %s", e)
            await asyncio.sleep(ADDRESSES_PERIOD_S if found else REUNITE_PERIOD_S)


async def connect(
    stack: contextlib.AsyncExitStack, who: Membership, telemetry: Telemetry | None, *, rng: random.Random
) -> Connected:
    """Open everything; `stack` closes it. Without `telemetry` the site is told nothing about this process.

    Raises AddressInUse, LocalError, ConfigError.
    """
    config, manifest = who.config, who.manifest
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(servers=manifest.ice_servers), data_path=config.channel))
    stack.push_async_callback(transport.close)
    credentials = who.credentials
    admission = NetworkConfig(admission=credentials.certificate, rule=credentials.rule)
    network = Network(identity=who.identity, experiment=manifest.name, transport=transport, config=admission)
    stack.push_async_callback(network.close)
    overlay = Overlay(network, who.identity, experiment=manifest.name, rng=rng)
    stack.push_async_callback(overlay.close)
    address = await _listen(stack, network, config)
    badge = Badge(
        identity=who.identity,
        experiment=manifest.name,
        session=telemetry.session if telemetry else secrets.token_hex(8),
        admission=lambda: credentials.certificate,
    )
    reporting = _report(stack, who, badge, telemetry, rng) if telemetry else ()
    rendezvous = Rendezvous(network, who.coordinator.url, badge, Patience(rng=rng), announce=address)
    rendezvous.start()
    stack.push_async_callback(rendezvous.close)
    book = AddressBook(config.experiment_dir / "peers.json")
    sources = Sources(
        own=network.peer_id,
        book=book,
        given=[*config.bootstrap, *manifest.bootstrap],
        signaler=BootstrapSignaler,
        listed=lambda: who.coordinator.bootstrap(manifest.name),
        rendezvous=rendezvous,
    )
    return Connected(
        network=network,
        overlay=overlay,
        first_contact=FirstContact(sources, overlay.join, JoinConfig(), rng=rng, may_found=bool(address)),
        rendezvous=rendezvous,
        book=book,
        address=address,
        coordinator_bytes=lambda: sum(part.bytes_total for part in (who.coordinator, *reporting, rendezvous)),
    )


def _report(
    stack: contextlib.AsyncExitStack, who: Membership, badge: Badge, telemetry: Telemetry, rng: random.Random
) -> tuple[TelemetrySocket, Delivery]:
    """Send `telemetry`, keep what cannot be delivered when `stack` closes, and deliver what earlier runs kept."""

    def socket_of(session: str) -> TelemetrySocket:
        return TelemetrySocket(who.coordinator.url, dataclasses.replace(badge, session=session), Patience(rng=rng))

    leftovers = Leftovers(who.config.experiment_dir / "unsent")
    sink, delivery = socket_of(badge.session), Delivery(leftovers, socket_of)
    stack.callback(lambda: leftovers.keep(badge.session, sink.unsent()))  # after `close` has tried
    spool = Spool(leftovers, badge.session, sink.outline)
    for part in (sink, delivery, spool):
        part.start()
        stack.push_async_callback(part.close)
    telemetry.attach(sink)
    return sink, delivery


async def _listen(stack: contextlib.AsyncExitStack, network: Network, config: AgentConfig) -> str:
    """Take the bootstrap role if configured. Our address, or an empty string."""
    if config.listen is None:
        return ""
    server = BootstrapServer(network, config.listen.host, config.listen.port)
    await server.start()
    stack.push_async_callback(server.close)
    address = server.address()
    log.info("others can join by --bootstrap %s", address)
    return address
