"""The fast data path: Hive's SCTP on aiortc's ICE and DTLS, without a task switch per packet.

What a wake-up of the socket brought is decrypted and handed to the association in one go; one SACK and whatever may be
sent now go out in one batch. On the wire these are the same negotiated data channels as `stock.py`: 0 for control, 1 for
bulk, binary, reliable, ordered; either end may be stock.

Choose with `WebRtcConfig(data_path=...)`. `data_path` falls back to stock, and says why in the log, where the installed
packages are not the ones that `aiortc_seam.py` knows.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Literal

from aiortc.rtcdtlstransport import RTCDtlsTransport
from OpenSSL import SSL

from agent.errors import LinkClosed, LocalError, ProtocolViolation
from agent.net import aiortc_seam, dcep, openssl_seam
from agent.net.alarm import Alarm
from agent.net.dtls_io import DtlsClosed, DtlsRecords
from agent.net.sctp.association import Association
from agent.net.sctp.budget import WindowBudget
from agent.net.sctp.config import PACKET_BYTES_BASE, PACKET_BYTES_MAX, SctpConfig
from agent.net.sctp.events import Ended, Event, Opened, StreamsReset
from agent.net.sctp.reassembly import Message
from agent.net.stock import DataPath, PathEvents, StockPath
from agent.net.transport import Lane

logger = logging.getLogger(__name__)

TURN_BYTES_MAX = 1 << 18
"""Most bytes sent before other tasks of the loop get their turn."""
WINDOW_GROWTH = 32
"""The receive window may grow to this many times what it starts with."""
WINDOWS_GROWTH_BYTES_MAX = 512 << 20
"""All windows of the process together, beyond what they start with. Peers may make us hold twice that."""
CHANNELS_MAX = 16
"""Channels that a peer may open in band on one connection: the two lanes, whatever it counts as a channel, and some again."""
_TIMER_SLACK_S = 0.0005


def data_path(
    kind: Literal["stock", "fast"], dtls: RTCDtlsTransport, events: PathEvents, *, window_bytes: int, message_bytes_max: int
) -> DataPath:
    """Return the data path of that kind, or stock, with a line in the log, if fast is not possible here."""
    if kind == "fast":
        reason = aiortc_seam.unusable()
        if reason is None:
            return FastPath(dtls, events, window_bytes=window_bytes, message_bytes_max=message_bytes_max)
        logger.warning("the fast data path is not used: %s", reason)
    return StockPath(dtls, events, window_bytes=window_bytes, message_bytes_max=message_bytes_max)


class FastPath:
    """See stock.DataPath. All methods belong to the event loop."""

    packet_bytes_max = PACKET_BYTES_MAX
    """Largest packet that path MTU discovery may find. Measurements set it lower."""
    budget = WindowBudget(WINDOWS_GROWTH_BYTES_MAX)
    """Of the process."""

    def __init__(self, dtls: RTCDtlsTransport, events: PathEvents, *, window_bytes: int, message_bytes_max: int) -> None:
        self._tell = events
        self._loop = asyncio.get_running_loop()
        self._socket = aiortc_seam.DtlsSocket(dtls, on_datagrams=self._datagrams, on_batch_end=self._batch_end)
        session = self._socket.session
        self._records = DtlsRecords(openssl_seam.session(session), session.get_cipher_name() or "")
        self._window_bytes = window_bytes
        self._message_bytes_max = message_bytes_max
        self._association: Association | None = None
        self._alarm = Alarm(self._alarm_rang, slack_s=_TIMER_SLACK_S)
        self._turn: asyncio.Handle | None = None
        self._buffered = 0
        self._told_end = False
        self._fragmenting = False
        self._channels = 0
        self._arrived = 0

    async def begin(self) -> None:
        """Start the association. `opened` or `ended` follows."""
        self._socket.take_over(self._late_packet)
        batched = self._socket.batched
        config = SctpConfig(
            message_bytes_max=self._message_bytes_max,
            window_bytes=max(self._window_bytes, 4 * PACKET_BYTES_MAX),
            window_bytes_max=max(self._window_bytes, 4 * PACKET_BYTES_MAX) * WINDOW_GROWTH,
            packet_bytes_max=self.packet_bytes_max if batched is not None and batched.can_probe else PACKET_BYTES_BASE,
        )
        self._association = Association(config, random.SystemRandom(), self.budget)
        self._association.begin(self._loop.time())
        self._batch_end()

    def push(self, lane: Lane, data: bytes) -> None:
        """Take one message of a size that was checked. Raises LinkClosed, LocalError if far too much is waiting."""
        if self._association is None:
            raise LinkClosed("the data path is not open")
        self._association.send(lane.value, dcep.BINARY, memoryview(data))
        self._buffered += len(data)
        self._transmit_soon()

    def unacknowledged(self) -> int:
        """Bytes pushed and not acknowledged."""
        return self._association.buffered() if self._association is not None else 0

    def drop_bulk(self) -> None:
        """Forget bulk messages that have not begun to travel."""
        if self._association is not None:
            self._association.drop_unsent(keep=frozenset((Lane.CONTROL.value,)))

    @property
    def rtt_s(self) -> float | None:
        """Smoothed round-trip time."""
        return self._association.rtt.smoothed_s if self._association is not None else None

    @property
    def pipe_bytes(self) -> int:
        """What congestion control lets be under way."""
        return self._association.pipe_bytes if self._association is not None else 0

    @property
    def association(self) -> Association | None:
        """For tests and measurements."""
        return self._association

    async def end(self) -> None:
        """Tell the other side, and stop; idempotent."""
        if self._association is not None and not self._association.ended:
            self._association.abort("closed")
            self._transmit()
        self._stop()

    # from the socket

    def _datagrams(self, data: bytes, segment: int) -> None:
        association = self._association
        try:
            packets = self._records.decrypt(data, segment)
        except DtlsClosed:
            self._ended("the other end closed the connection")
            return
        if association is not None:
            self._arrived += len(packets)
            association.receive_all(packets, self._loop.time())

    def _late_packet(self, packet: bytes) -> None:
        """What aiortc's own task still read."""
        if self._association is not None:
            self._association.receive(packet, self._loop.time())
            self._batch_end()

    def _batch_end(self) -> None:
        """A batch of packets is in, the socket has room again, or a timer fired: report, answer, go on."""
        association = self._association
        if association is None or self._told_end:
            return
        try:
            for packet in self._records.drain():
                association.receive(packet, self._loop.time())
        except DtlsClosed:
            self._ended("the other end closed the connection")
            return
        leftover = self._records.leftover()
        if leftover is not None:
            self._socket.send(leftover)
        calls = 0
        for event in association.events():
            calls += isinstance(event, Message) and event.stream == Lane.CONTROL
            self._happened(event)
        if calls and calls >= self._arrived:
            self._transmit_soon()  # small calls and nothing else: who answers at once has the acknowledgement ride along
        else:
            self._transmit()
        self._arrived = 0
        self._tell_room(association)
        self._set_timer()

    def _tell_room(self, association: Association) -> None:
        if self._told_end:
            return
        buffered = association.buffered()
        if buffered < self._buffered:
            self._buffered = buffered
            self._tell.room()

    def _happened(self, event: Event) -> None:
        if isinstance(event, Opened):
            self._tell.opened()
        elif isinstance(event, Ended):
            self._transmit()
            self._ended(_reason(event))
        elif isinstance(event, StreamsReset):
            if any(stream in (Lane.CONTROL, Lane.BULK) for stream in event.streams):
                self._refuse("the other end closed the connection")
        elif event.protocol == dcep.BINARY and event.stream in (Lane.CONTROL, Lane.BULK):
            if not self._told_end:
                self._tell.message(Lane(event.stream), event.data)
        elif event.protocol == dcep.CONTROL:
            self._control(event.stream, bytes(event.data))
        else:
            self._refuse("ProtocolViolation: a message that is not binary, or on a channel that is not ours")

    def _control(self, stream: int, data: bytes) -> None:
        """A peer that knows the channels only by DCEP opens them in band (RFC 8832)."""
        assert self._association is not None
        try:
            if not dcep.opens_reliable_channel(data) or self._association.ended:
                return
            self._channels += 1
            if self._channels > CHANNELS_MAX:
                raise ProtocolViolation(f"more than {CHANNELS_MAX} channels were opened")
            self._association.send(stream, dcep.CONTROL, memoryview(dcep.ACK))
        except ProtocolViolation as error:
            self._refuse(f"ProtocolViolation: {error}")
        except (ValueError, LocalError) as error:  # a stream that it does not take itself; no room for one byte more
            self._refuse(f"ProtocolViolation: a channel that cannot be answered: {error}")

    def _refuse(self, reason: str) -> None:
        """End the association from our side."""
        assert self._association is not None
        self._association.abort(reason)
        self._transmit()
        self._ended(reason)

    # to the socket

    def _transmit_soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._transmit_turn)

    def _transmit_turn(self) -> None:
        self._turn = None
        self._transmit()
        self._set_timer()

    def _transmit(self) -> None:
        association = self._association
        if association is None or self._told_end:
            return
        sent = 0
        now = self._loop.time()
        while not self._socket.blocked:
            packets = association.transmit(now)
            if not packets:
                break
            try:
                flights = self._records.encrypt(packets)
            except SSL.Error as error:
                self._ended(f"the encrypted session failed ({type(error).__name__})")
                return
            for flight in flights:
                self._socket.send(flight)
                sent += len(flight.data)
            if sent > TURN_BYTES_MAX:
                self._transmit_soon()
                break
        if association.path_fell_back and not self._fragmenting and self._socket.batched is not None:
            self._fragmenting = True
            self._socket.batched.fragment_from_now_on()

    def _set_timer(self) -> None:
        association = self._association
        deadline = association.next_deadline() if association is not None and not self._told_end else None
        if deadline is not None:
            self._alarm.set(deadline)

    def _alarm_rang(self) -> None:
        if self._association is not None and not self._told_end:
            self._association.tick(self._loop.time())
            self._batch_end()

    # the end

    def _ended(self, reason: str) -> None:
        if not self._told_end:
            self._told_end = True
            self._stop()
            self._tell.ended(reason)

    def _stop(self) -> None:
        self._told_end = True
        if self._association is not None:
            self._association.abort("closed")  # nothing if it has ended
        self._alarm.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._socket.close()


def _reason(event: Ended) -> str:
    if event.error is None:
        return "the other end closed the connection"
    if isinstance(event.error, ProtocolViolation):
        return f"ProtocolViolation: {event.error}"
    return str(event.error)
