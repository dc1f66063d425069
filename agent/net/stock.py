"""The data path that aiortc brings along: its SCTP association, with Hive's two lanes as pre-negotiated channels.

On the wire these are WebRTC data channels 0 (control) and 1 (bulk), negotiated out of band, reliable, ordered, binary.
The channel objects are left out: messages go straight into the association, because `bufferedAmount` falls when a
message *enters* SCTP's own queue, and one queue for both lanes would leave control waiting behind bulk.
This module touches private parts of aiortc 1.16, and is the only one that knows its SCTP (`fast` is Hive's own).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import (
    USERDATA_MAX_LENGTH,
    WEBRTC_BINARY,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    RTCSctpCapabilities,
    RTCSctpTransport,
    SackChunk,
)

from agent.errors import ProtocolViolation
from agent.net.transport import Lane

SCTP_PORT = 5000
INITIAL_RTO_S = 1.0
"""RFC 9260's initial value since 2022; aiortc's is 3 s, a long time to lose when the first packet was lost."""
GAPS_SPAN_MAX = 65_536
"""How many TSNs one SACK may name: what its 16-bit offsets can express once."""
REORDER_CHUNKS_MAX = 4096
"""How far ahead of the first missing chunk others are kept."""


@dataclass(frozen=True)
class PathEvents:
    """What a data path tells its link."""

    message: Callable[[Lane, memoryview], None]
    room: Callable[[], None]
    opened: Callable[[], None]
    ended: Callable[[str], None]


class DataPath(Protocol):
    """What carries messages over an open DTLS transport: the seam between stock and fast."""

    async def begin(self) -> None:
        """Start the association. `opened` or `ended` follows."""
        ...

    def push(self, lane: Lane, data: bytes) -> None:
        """Take one message of a size that was checked."""
        ...

    def unacknowledged(self) -> int:
        """Bytes pushed and not acknowledged."""
        ...

    def drop_bulk(self) -> None:
        """Forget bulk messages that have not begun to travel."""
        ...

    @property
    def rtt_s(self) -> float | None: ...

    @property
    def pipe_bytes(self) -> int:
        """See transport.Link."""
        ...

    async def end(self) -> None:
        """Tell the other side, and stop; idempotent."""
        ...


class StockPath(RTCSctpTransport):
    """See DataPath. `window_bytes` is what we advertise and hold at most; `message_bytes_max` bounds each message."""

    def __init__(self, dtls: RTCDtlsTransport, events: PathEvents, *, window_bytes: int, message_bytes_max: int) -> None:
        super().__init__(dtls, SCTP_PORT)
        self._tell = events
        self._message_bytes_max = message_bytes_max
        self._window_bytes = window_bytes
        self._advertised_rwnd = window_bytes
        self._rto = INITIAL_RTO_S
        self._lanes: dict[Lane, deque[bytes]] = {lane: deque() for lane in Lane}
        self._travelling: deque[tuple[int, int]] = deque()  # (last TSN, bytes) of each message inside SCTP
        self._unacknowledged = 0
        self._flushing: asyncio.Task[None] | None = None
        self._was_open = False

    async def begin(self) -> None:
        await self.start(RTCSctpCapabilities(maxMessageSize=self._message_bytes_max), SCTP_PORT)

    def push(self, lane: Lane, data: bytes) -> None:
        self._lanes[lane].append(data)
        self._unacknowledged += len(data)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._data_channel_flush())

    def unacknowledged(self) -> int:
        return self._unacknowledged

    def drop_bulk(self) -> None:
        bulk = self._lanes[Lane.BULK]
        self._unacknowledged -= sum(map(len, bulk))
        bulk.clear()

    @property
    def rtt_s(self) -> float | None:
        return self._srtt

    @property
    def pipe_bytes(self) -> int:
        """Unknown: SCTP here keeps little under way, and what waits in it holds up control."""
        return 0

    async def end(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        await self.stop()

    # What RTCSctpTransport calls.

    async def _data_channel_flush(self) -> None:
        """Give SCTP the next messages, control first, one at a time so that control overtakes bulk."""
        if self._association_state != self.State.ESTABLISHED:
            return
        while not self._outbound_queue:
            lane = next((lane for lane in Lane if self._lanes[lane]), None)
            if lane is None:
                return
            data = self._lanes[lane].popleft()
            fragments = -(-len(data) // USERDATA_MAX_LENGTH)
            self._travelling.append(((self._local_tsn + fragments - 1) & 0xFFFFFFFF, len(data)))
            await self._send(lane.value, WEBRTC_BINARY, data)

    async def _send_chunk(self, chunk: Chunk) -> None:
        try:
            await super()._send_chunk(chunk)
        except ConnectionError:  # the DTLS transport says so itself, and its end is the link's
            return

    async def _handle_data(self, data: bytes) -> None:
        try:
            await super()._handle_data(data)
        except (ProtocolViolation, AssertionError, ValueError, TypeError, AttributeError, LookupError, struct.error) as e:
            # aiortc answers malformed chunks with whatever its parsing runs into.
            self._tell.ended(f"ProtocolViolation: a malformed SCTP packet ({type(e).__name__}: {e})")

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if chunk.stream_id not in (Lane.CONTROL, Lane.BULK) or not chunk.user_data:
            raise ProtocolViolation("a data chunk on a channel that is not ours, or an empty one")
        assert self._last_received_tsn is not None
        ahead = (chunk.tsn - self._last_received_tsn) & 0xFFFFFFFF
        if REORDER_CHUNKS_MAX < ahead < 1 << 31:
            return  # beyond what we hold: it counts as lost
        await super()._receive_data_chunk(chunk)
        if self._advertised_rwnd < -self._message_bytes_max:
            raise ProtocolViolation("more data than the receive window allows")

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        raise ProtocolViolation("FORWARD-TSN on reliable channels")

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        if (chunk.cumulative_tsn - self._local_tsn) & 0xFFFFFFFF < 1 << 31:
            raise ProtocolViolation("an acknowledgement of what was never sent")
        if sum(last - first + 1 for first, last in chunk.gaps) > GAPS_SPAN_MAX or any(f > g for f, g in chunk.gaps):
            raise ProtocolViolation("an acknowledgement with impossible gaps")
        before = self._unacknowledged
        await super()._receive_sack_chunk(chunk)
        while self._travelling and (self._last_sacked_tsn - self._travelling[0][0]) & 0xFFFFFFFF < 1 << 31:
            self._unacknowledged -= self._travelling.popleft()[1]
        if self._unacknowledged < before:
            self._tell.room()

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if pp_id != WEBRTC_BINARY or len(data) > self._message_bytes_max:
            raise ProtocolViolation("a message that is not binary, or too large")
        self._tell.message(Lane(stream_id), memoryview(data))

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        before = self._association_state
        super()._set_state(state)
        if state == before:
            return
        if state == self.State.ESTABLISHED and not self._was_open:
            self._was_open = True
            self._tell.opened()
        elif state == self.State.CLOSED:
            self._tell.ended("the other end closed the connection")
