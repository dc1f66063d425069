"""The private parts of aiortc, aioice and asyncio that the fast data path needs, in one place.

`unusable()` says at start whether they are what we know; if not, the stock path is used. What is touched:

- `RTCDtlsTransport._ssl` (the pyOpenSSL connection), `_register_data_receiver`, `_unregister_data_receiver`
- `RTCIceTransport._connection` (aioice): `data_received` is shadowed on the instance, `_nominated` is read
- asyncio's selector loop: `_remove_reader`, to read the socket ourselves. Without it (uvloop, Windows, TURN) datagrams
  still come straight to us, one by one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from asyncio.trsock import TransportSocket
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aioice.ice import CandidatePair, Connection, StunProtocol
from aiortc import RTCDtlsTransport
from OpenSSL import SSL

from agent.net.udp_batch import Address, Flight, UdpBatch

logger = logging.getLogger(__name__)

KNOWN_VERSIONS = {"aiortc": ("1.16.",), "aioice": ("0.13.",), "pyOpenSSL": ("26.",)}

OnDatagrams = Callable[[bytes, int], None]


def unusable() -> str | None:
    """Return why the fast path cannot be used with the packages that are installed, or None if it can."""
    for package, known in KNOWN_VERSIONS.items():
        found = _installed(package)
        if found is None:
            return f"{package} is not installed"
        if not found.startswith(known):
            return f"{package} {found} has not been tried with the fast path"
    wanted: dict[Any, tuple[str, ...]] = {
        RTCDtlsTransport: ("_register_data_receiver", "_unregister_data_receiver"),
        Connection: ("data_received",),
        StunProtocol: ("datagram_received",),
        CandidatePair: ("remote_addr",),
        SSL.Connection: ("bio_read", "bio_write", "send", "recv", "get_cipher_name"),
    }
    for owner, names in wanted.items():
        for name in names:
            if not hasattr(owner, name):
                return f"{owner.__name__} has no {name}"
    if list(inspect.signature(Connection.data_received).parameters) != ["self", "data", "component"]:
        return "aioice.Connection.data_received takes other arguments"
    return None


@cache
def _installed(package: str) -> str | None:
    """Return the version of an installed package; reading it takes a millisecond, and every link asks."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Receiver:
    """What the DTLS transport hands decrypted packets to while it still reads by itself."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take

    async def _handle_data(self, data: bytes) -> None:
        self._take(data)


class DtlsSocket:
    """The socket under a DTLS transport whose handshake is done, read and written past aiortc."""

    def __init__(self, dtls: RTCDtlsTransport, *, on_datagrams: OnDatagrams, on_batch_end: Callable[[], None]) -> None:
        assert dtls._ssl is not None, "the handshake is done"
        self.session: SSL.Connection = dtls._ssl
        self._dtls = dtls
        self._connection: Connection = dtls.transport._connection
        self._on_datagrams = on_datagrams
        self._on_batch_end = on_batch_end
        self._loop = asyncio.get_running_loop()
        self._batch: UdpBatch | None = None
        self._protocol: StunProtocol | None = None
        self._receiver: Receiver | None = None
        self._end_scheduled = False
        self._writing = False
        self._closed = False

    def take_over(self, take_packet: Callable[[bytes], None]) -> None:
        """Begin: from now on datagrams come to `on_datagrams`, and what aiortc had already queued to `take_packet`."""
        self._receiver = Receiver(take_packet)
        self._dtls._register_data_receiver(self._receiver)
        self._connection.__dict__["data_received"] = self._data_received
        pair = self._pair()
        if pair is None:
            return
        sock = pair.protocol.transport.get_extra_info("socket")
        remove_reader = getattr(self._loop, "_remove_reader", None)
        if not isinstance(sock, TransportSocket) or remove_reader is None:
            return
        own = sock.dup()
        own.setblocking(False)
        try:
            self._loop.add_reader(own.fileno(), self._readable)
        except NotImplementedError:
            own.close()
            return
        remove_reader(sock.fileno())
        self._batch = UdpBatch(own)
        self._protocol = pair.protocol

    @property
    def batched(self) -> UdpBatch | None:
        """The socket in batches, or None where that is not possible."""
        return self._batch

    @property
    def blocked(self) -> bool:
        """Whether the socket is full; `on_batch_end` follows when it is not any more."""
        return self._batch is not None and self._batch.blocked

    def send(self, flight: Flight) -> None:
        """Send to the peer; datagrams that cannot be sent are lost. Not to be called while blocked."""
        pair = self._pair()
        if pair is None or self._closed:
            return
        address: Address = pair.remote_addr
        if self._batch is not None and pair.protocol is self._protocol:
            try:
                self._batch.send(flight, address)
            except OSError as error:
                logger.debug("a datagram could not be sent: %s", error)
            self._watch_writable()
            return
        for start in range(0, len(flight.data), flight.segment):
            pair.protocol.transport.sendto(flight.data[start : start + flight.segment], address)

    def close(self) -> None:
        """Give everything back but the socket's reader, which ICE closes next; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._connection.__dict__.pop("data_received", None)
        if self._receiver is not None:
            self._dtls._unregister_data_receiver(self._receiver)
        if self._batch is not None:
            self._loop.remove_reader(self._batch.fileno())
            self._loop.remove_writer(self._batch.fileno())
            self._batch.close()

    def _pair(self) -> CandidatePair | None:
        return self._connection._nominated.get(1)

    def _readable(self) -> None:
        assert self._batch is not None and self._protocol is not None
        try:
            for data, segment, sender in self._batch.receive():
                self._sort(data, segment, sender)
                if self._closed:
                    return
        except OSError as error:
            self._protocol.error_received(error)
        self._on_batch_end()

    def _sort(self, data: bytes, segment: int, sender: Address) -> None:
        """DTLS to us, everything else (STUN) to ICE; a coalesced run may hold both (RFC 7983)."""
        if segment >= len(data) or all(19 < data[at] < 64 for at in range(0, len(data), segment)):
            if 19 < data[0] < 64:
                self._on_datagrams(data, segment)
            else:
                self._stun(data, sender)
            return
        for start in range(0, len(data), segment):
            piece = data[start : start + segment]
            if 19 < piece[0] < 64:
                self._on_datagrams(piece, len(piece))
            else:
                self._stun(piece, sender)

    def _stun(self, data: bytes, sender: Address) -> None:
        assert self._protocol is not None
        self._protocol.datagram_received(data, sender)

    def _data_received(self, data: bytes, component: int) -> None:
        """What ICE read itself: on other sockets than the batched one, through TURN, or without batches."""
        if data and 19 < data[0] < 64:
            self._on_datagrams(data, len(data))
            if not self._end_scheduled:
                self._end_scheduled = True
                self._loop.call_soon(self._scheduled_end)
        else:
            Connection.data_received(self._connection, data, component)

    def _scheduled_end(self) -> None:
        self._end_scheduled = False
        if not self._closed:
            self._on_batch_end()

    def _watch_writable(self) -> None:
        assert self._batch is not None
        if self._batch.blocked and not self._writing:
            self._writing = True
            self._loop.add_writer(self._batch.fileno(), self._writable)

    def _writable(self) -> None:
        assert self._batch is not None
        try:
            self._batch.flush()
        except OSError as error:
            logger.debug("a datagram could not be sent: %s", error)
        if not self._batch.blocked:
            self._writing = False
            self._loop.remove_writer(self._batch.fileno())
            self._on_batch_end()
