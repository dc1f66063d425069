"""Links over WebRTC data channels: aiortc's ICE and DTLS, without SDP and without RTCPeerConnection.

A link is a stack of ICE (which addresses), DTLS (encryption, and the certificate that the handshake binds to) and a data
path on top (`stock.py`, or Hive's own SCTP). The offerer is ICE-controlling and DTLS server, which is what the roles of an
SDP offer and answer amount to (RFC 8842). Each side sends one blob, `ice.Description`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, State
from aiortc.rtcicetransport import RTCIceParameters, candidate_from_aioice

from agent.errors import ConfigError, LinkClosed, LocalError, NotReachable
from agent.net import ice
from agent.net.fast import data_path
from agent.net.stock import DataPath, PathEvents
from agent.net.transport import Lane, Link, LinkKind, OnClosed, OnMessage, OnRoom

logger = logging.getLogger(__name__)

HELD_BYTES_MAX, HELD_MESSAGE_BYTES_MIN = 1 << 20, 512
"""What may arrive before `start`, a message counting as at least so much; more closes the link."""
PENDING_MAX = 256
"""Offers and answers that are not links yet; each holds a socket per address."""
STOP_TIMEOUT_S = 3.0
"""How long a TURN server that does not answer may hold up the release of a link."""


@dataclass(frozen=True, kw_only=True)
class WebRtcConfig:
    """How links are made and bounded."""

    ice: ice.IceConfig = field(default_factory=ice.IceConfig)
    data_path: Literal["stock", "fast"] = "fast"
    """`fast` is our own SCTP (`fast.py`), which falls back to `stock`, aiortc's, where it cannot run."""
    message_bytes_max: int = 64 * 1024
    """Largest message in either direction, bytes."""
    window_bytes: int = 1 << 20
    """Receive window that we advertise, bytes."""
    linger_s: float = 0.5
    """After `close`, how long what is queued on the control lane may take to be acknowledged."""

    def __post_init__(self) -> None:
        if not 1024 <= self.message_bytes_max <= 256 * 1024:
            raise ConfigError("message_bytes_max must be between 1 KiB and 256 KiB, WebRTC's usual limit")
        if self.window_bytes < 2 * self.message_bytes_max:
            raise ConfigError("window_bytes must hold at least two messages")


class DataDtls(RTCDtlsTransport):
    """DTLS for data only: no media keys are derived. Private to aiortc 1.16."""

    def _setup_srtp(self) -> None:
        return

    def _validate_peer_identity(self, remoteParameters: RTCDtlsParameters) -> None:
        """Compare the certificate's digest only: libdatachannel's is of X.509 version 2, which aiortc's parser refuses."""
        certificate = self._ssl.get_peer_certificate() if self._ssl is not None else None
        digest = certificate.digest("sha256").decode() if certificate is not None else ""
        wanted = [f.value.upper() for f in remoteParameters.fingerprints if f.algorithm.lower() == "sha-256"]
        if not wanted or any(value != digest for value in wanted):
            self._set_state(State.FAILED)


class _Stack:
    """ICE, DTLS and data path of one link, from the first socket to the last."""

    def __init__(self, config: WebRtcConfig, certificate: RTCCertificate, silence: ice.Silence, *, controlling: bool) -> None:
        self.config = config
        self.gatherer = ice.IceGatherer(config.ice, silence, controlling=controlling)
        self.ice = RTCIceTransport(self.gatherer)
        self.dtls = DataDtls(self.ice, [certificate])
        self.path: DataPath | None = None
        self.fingerprint = _fingerprint(certificate)

    async def gather(self) -> bytes:
        await self.gatherer.gather()
        connection = self.gatherer._connection
        if not connection.local_candidates:
            raise LocalError("no network address could be used for a connection. Check the network or the TURN server.")
        return ice.describe(connection, self.fingerprint)

    async def connect(self, remote: ice.Description, events: PathEvents) -> None:
        """Bring up ICE, DTLS and the data path. Raises NotReachable. The caller bounds the time."""
        for candidate in remote.remote_candidates():
            await self.ice.addRemoteCandidate(candidate_from_aioice(candidate))
        await self.ice.addRemoteCandidate(None)
        await self.ice.start(RTCIceParameters(usernameFragment=remote.username, password=remote.password))
        if self.ice.state != "completed":
            raise NotReachable("no direct or relayed path to the peer was found")
        fingerprint = RTCDtlsFingerprint(algorithm="sha-256", value=remote.fingerprint.hex(":").upper())
        await self.dtls.start(RTCDtlsParameters(fingerprints=[fingerprint]))
        if self.dtls.state != "connected":
            raise NotReachable("the encrypted session with the peer could not be set up (DTLS failed, or another certificate)")
        self.path = data_path(
            self.config.data_path,
            self.dtls,
            events,
            window_bytes=self.config.window_bytes,
            message_bytes_max=self.config.message_bytes_max,
        )
        self.dtls.on("statechange", lambda: self._dtls_changed(events))
        await self.path.begin()

    def kind(self) -> LinkKind:
        """`relayed` if the pair that was chosen has a TURN address on either side."""
        pair = self.gatherer._connection._nominated[1]
        return "relayed" if "relay" in (pair.local_candidate.type, pair.remote_candidate.type) else "direct"

    def subnet(self) -> str:
        """See `transport.Link`."""
        remote = self.gatherer._connection._nominated[1].remote_candidate
        return "" if remote.type == "relay" else ice.subnet(remote.host)

    async def stop(self) -> None:
        """Release everything; the order tells the other side as well as it can be told."""
        if self.path is not None:
            await self.path.end()
        pump = self.dtls._task
        await self.dtls.stop()
        if pump is not None:
            await asyncio.wait([pump])
            if not pump.cancelled() and (error := pump.exception()) is not None:
                logger.warning("a DTLS session ended with %r", error)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.ice.stop()
        except TimeoutError:
            for protocol in self.gatherer._connection._protocols:
                protocol.transport.close()

    def _dtls_changed(self, events: PathEvents) -> None:
        if self.dtls.state in ("closed", "failed"):
            events.ended("the other end closed the connection, or it was lost")


class WebRtcLink:
    """See `transport.Link`."""

    def __init__(self, stack: _Stack, remote: ice.Description, retire: Callable[[WebRtcLink], None]) -> None:
        self.kind: LinkKind = "direct"
        self.subnet = ""
        self.local_fingerprint = stack.fingerprint
        self.remote_fingerprint = remote.fingerprint
        self.message_bytes_max = stack.config.message_bytes_max
        self.bytes_sent = 0
        self.bytes_received = 0
        self.stack = stack
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acknowledged = asyncio.Event()
        self.events = PathEvents(self._message, self._room, self._opened, self._ended)
        self._retire = retire
        self._early: deque[tuple[Lane, memoryview]] = deque()
        self._early_bytes = 0
        self._callbacks: tuple[OnMessage, OnRoom, OnClosed] | None = None
        self._closed: str | None = None
        self._closed_here = False
        self._told = False

    @property
    def rtt_s(self) -> float | None:
        return self.stack.path.rtt_s if self.stack.path is not None else None

    @property
    def pipe_bytes(self) -> int:
        return self.stack.path.pipe_bytes if self.stack.path is not None else 0

    def start(self, on_message: OnMessage, on_room: OnRoom, on_closed: OnClosed) -> None:
        if self._callbacks is not None:
            raise ValueError("start is called once")
        self._callbacks = on_message, on_room, on_closed
        asyncio.get_running_loop().call_soon(self._deliver_early)

    def send(self, lane: Lane, data: bytes | bytearray | memoryview) -> None:
        if self._closed is not None or self.stack.path is None:
            raise LinkClosed(self._closed or "the link is not open")
        if not 0 < len(data) <= self.message_bytes_max:
            raise ValueError(f"a message has 1 to {self.message_bytes_max} bytes, not {len(data)}")
        self.bytes_sent += len(data)
        self.stack.path.push(lane, data if type(data) is bytes else bytes(data))

    def buffered(self) -> int:
        return self.stack.path.unacknowledged() if self.stack.path is not None else 0

    def close(self, reason: str) -> None:
        if self._closed is None:
            self._closed_here = True
            self._early.clear()
            if self.stack.path is not None:
                self.stack.path.drop_bulk()
            self._end(reason)

    async def release(self) -> None:
        """Let the last control messages out, then free the sockets."""
        path = self.stack.path
        if path is not None and self._closed_here and self.stack.dtls.state == "connected":
            try:
                async with asyncio.timeout(self.stack.config.linger_s):
                    while path.unacknowledged():
                        self.acknowledged.clear()
                        await self.acknowledged.wait()
            except TimeoutError:
                logger.debug("a link closed with control messages that were not acknowledged")
        await self.stack.stop()

    def _message(self, lane: Lane, data: memoryview) -> None:
        if self._closed is not None:
            return
        if self._callbacks is None or self._early:
            self._early.append((lane, memoryview(bytes(data))))  # not a view of a packet that may be much larger
            self._early_bytes += max(len(data), HELD_MESSAGE_BYTES_MIN)
            if self._early_bytes > HELD_BYTES_MAX:
                self.close("the other end sent too much before this end was ready")
            return
        self.bytes_received += len(data)
        self._callbacks[0](lane, data)

    def _deliver_early(self) -> None:
        assert self._callbacks is not None
        while self._early:
            lane, data = self._early.popleft()
            self.bytes_received += len(data)
            self._callbacks[0](lane, data)
        self._tell_closed()

    def _room(self) -> None:
        self.acknowledged.set()
        if self._callbacks is not None and self._closed is None:
            self._callbacks[1]()

    def _opened(self) -> None:
        if not self.opened.done():
            self.opened.set_result(None)

    def _ended(self, reason: str) -> None:
        self.acknowledged.set()
        if self._closed is None:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self._closed = reason
        if not self.opened.done():
            self.opened.set_exception(NotReachable(reason))
            self.opened.exception()  # whoever opens the link gets it; nobody has to
        asyncio.get_running_loop().call_soon(self._tell_closed)
        self._retire(self)

    def _tell_closed(self) -> None:
        """`on_closed`, once, after everything that arrived before the end."""
        if self._closed is not None and self._callbacks is not None and not self._early and not self._told:
            self._told = True
            self._callbacks[2](self._closed)


class _Pending:
    """Our half of a link that is not open yet: OfferedLink and AnsweredLink."""

    def __init__(self, transport: WebRtcTransport, stack: _Stack, description: bytes, offer: ice.Description | None) -> None:
        self.description = description
        self.stack = stack
        self._transport = transport
        self._remote = offer
        self._taken = False

    async def accept(self, answer: bytes, timeout_s: float) -> Link:
        try:
            remote = ice.parse(answer)
        except BaseException:
            self.abandon()
            raise
        return await self._connect(remote, timeout_s)

    async def open(self, timeout_s: float) -> Link:
        assert self._remote is not None
        return await self._connect(self._remote, timeout_s)

    def abandon(self) -> None:
        if not self._taken:
            self._taken = True
            self._transport.release(self)

    async def _connect(self, remote: ice.Description, timeout_s: float) -> Link:
        if self._taken:
            raise NotReachable("the link was given up before it opened")
        self._taken = True
        link = self._transport.adopt(self, remote)
        opened = False
        try:
            async with asyncio.timeout(timeout_s):
                await self.stack.connect(remote, link.events)
                await link.opened
            link.kind, link.subnet = self.stack.kind(), self.stack.subnet()
            opened = True
        except TimeoutError:
            raise NotReachable(f"the connection did not open within {timeout_s:g} s") from None
        except ConnectionError:
            raise NotReachable("the connection was lost while it opened") from None
        finally:
            if not opened:
                link.close("opening failed")
        return link


class WebRtcTransport:
    """See `transport.Transport`. One certificate for the life of the transport."""

    def __init__(self, config: WebRtcConfig = WebRtcConfig()) -> None:
        self.config = config
        self.certificate = RTCCertificate.generateCertificate()
        self._silence = ice.Silence()
        self._pending: set[_Pending] = set()
        self._links: set[WebRtcLink] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._closed = False

    async def offer(self) -> _Pending:
        return await self._prepare(None)

    async def answer(self, offer: bytes) -> _Pending:
        return await self._prepare(ice.parse(offer))

    async def close(self) -> None:
        self._closed = True
        for pending in list(self._pending):
            pending.abandon()
        for link in list(self._links):
            link.close("this agent is closing")
        while self._releases:
            await asyncio.wait(self._releases)

    def adopt(self, pending: _Pending, remote: ice.Description) -> WebRtcLink:
        """Turn a pending half into a link that is tracked until its sockets are free."""
        self._pending.discard(pending)
        link = WebRtcLink(pending.stack, remote, self._retire)
        self._links.add(link)
        return link

    def release(self, pending: _Pending) -> None:
        """Free the sockets of a half that will not become a link."""
        self._pending.discard(pending)
        self._spawn(pending.stack)

    async def _prepare(self, offer: ice.Description | None) -> _Pending:
        self._require_open()
        if len(self._pending) >= PENDING_MAX:
            raise LocalError(f"{PENDING_MAX} connections are being set up already")
        stack = _Stack(self.config, self.certificate, self._silence, controlling=offer is None)
        try:
            description = await stack.gather()
            self._require_open()
        except BaseException:
            self._spawn(stack)
            raise
        pending = _Pending(self, stack, description, offer)
        self._pending.add(pending)
        return pending

    def _require_open(self) -> None:
        if self._closed:
            raise LocalError("the transport is closed")

    def _retire(self, link: WebRtcLink) -> None:
        self._links.discard(link)
        self._spawn(link)

    def _spawn(self, owner: WebRtcLink | _Stack) -> None:
        work = owner.release() if isinstance(owner, WebRtcLink) else owner.stop()
        task = asyncio.get_running_loop().create_task(work)
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("releasing a link failed", exc_info=error)


def _fingerprint(certificate: RTCCertificate) -> bytes:
    value = next(f.value for f in certificate.getFingerprints() if f.algorithm == "sha-256")
    return bytes.fromhex(value.replace(":", ""))
