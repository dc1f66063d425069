"""Many datagrams per system call: UDP GSO and GRO where the kernel has them, plain calls where not.

With GSO (Linux 4.18) one `sendmsg` takes a run of equal datagrams, with GRO (Linux 5.0) one `recvmsg` returns one; see
udp(7), UDP_SEGMENT and UDP_GRO. Both are tried on the socket itself, and GSO is given up for good when a send refuses it.
A full socket keeps the rest of the batch until it is writable again: nothing here blocks or grows.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from collections import deque
from collections.abc import Iterator

import msgspec

logger = logging.getLogger(__name__)

SOCKET_BUFFER_BYTES = 4 << 20
"""What we ask for each way; the kernel may give less."""
READ_BYTES_MAX = 128 * 1024
"""Most bytes taken in one wake-up, so that other work gets its turn."""
SEGMENTS_MAX = 60
SEGMENTED_BYTES_MAX = 65_000
DATAGRAM_BYTES_MAX = 65_535
JOINED_BYTES_MAX = 16_384
"""What is longer is worth its own way: joining it would copy more than it saves."""

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_PMTUDISC_DONT, _PMTUDISC_PROBE = 0, 3
_GSO_REFUSED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOPROTOOPT)
_LOST_ON_THE_WAY = (
    errno.EMSGSIZE,
    errno.ENOBUFS,
    errno.EPERM,
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
)
"""Errors of one datagram: it counts as lost, and SCTP sees to it."""

Address = tuple[str, int]


class Flight(msgspec.Struct, gc=False):
    """Datagrams one after another, each of `segment` bytes but the last, which may be shorter."""

    data: bytes
    segment: int


class UdpBatch:
    """A UDP socket of our own (a duplicate of the transport's), read and written in batches."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pending: deque[tuple[bytes, int, Address]] = deque()
        self.can_segment = False
        """Whether runs go out with one call."""
        self.can_coalesce = False
        """Whether runs come in with one call."""
        self.can_probe = False
        """Whether datagrams larger than the path are refused rather than fragmented, so that probes mean something."""
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            except OSError as error:
                logger.debug("a socket buffer of %d bytes was refused: %s", SOCKET_BUFFER_BYTES, error)
        if sys.platform == "linux":
            self.can_segment = self._try_option(_SOL_UDP, _UDP_SEGMENT, 0)
            self.can_coalesce = self._try_option(_SOL_UDP, _UDP_GRO, 1)
            self.can_probe = self._fragmenting(_PMTUDISC_PROBE)

    def fileno(self) -> int:
        """For the event loop."""
        return self._sock.fileno()

    def receive(self) -> Iterator[tuple[bytes, int, Address]]:
        """Yield (data, segment, sender) until nothing is left or READ_BYTES_MAX are read; segments as in Flight.

        Equal datagrams one after another are one run also where the kernel did not put them together: what is to be done once
        for a run is then done as rarely. Raises OSError of the socket other than those of a single datagram.
        """
        run: list[bytes] = []
        size, segment, sender, failure = 0, 0, ("", 0), None
        try:
            for data, step, origin in self._arrivals():
                if run and (
                    size % segment
                    or (step != segment and not step == len(data) < segment)
                    or size + len(data) > SEGMENTED_BYTES_MAX
                    or len(data) > JOINED_BYTES_MAX
                    or origin != sender
                ):
                    yield b"".join(run), segment, sender
                    run, size = [], 0
                if not run:
                    segment, sender = step, origin
                run.append(data)
                size += len(data)
        except OSError as error:
            failure = error
        if run:
            yield b"".join(run), segment, sender
        if failure is not None:
            raise failure

    def _arrivals(self) -> Iterator[tuple[bytes, int, Address]]:
        """The same, as the kernel gives it."""
        total = 0
        while total < READ_BYTES_MAX:
            try:
                data, ancillary, _, sender = self._sock.recvmsg(DATAGRAM_BYTES_MAX, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _LOST_ON_THE_WAY:
                    continue
                raise
            segment = len(data)
            total += max(segment, 1)
            for level, kind, value in ancillary:
                if level == _SOL_UDP and kind == _UDP_GRO:
                    segment = struct.unpack_from("=i", value)[0]
            if data:
                yield data, max(1, min(segment, len(data))), sender[:2]

    def send(self, flight: Flight, address: Address) -> None:
        """Send, or keep what the socket does not take; `blocked` says so. Not to be called while blocked."""
        self._pending.append((flight.data, flight.segment, address))
        self.flush()

    @property
    def blocked(self) -> bool:
        """Whether something waits for the socket to become writable."""
        return bool(self._pending)

    def flush(self) -> None:
        """Send what is kept."""
        while self._pending:
            data, segment, address = self._pending.popleft()
            sent = self._send_some(data, segment, address)
            if sent < len(data):
                self._pending.appendleft((data[sent:], segment, address))
                return

    def fragment_from_now_on(self) -> None:
        """Let the network cut datagrams that are too large for the path."""
        self._fragmenting(_PMTUDISC_DONT)
        self.can_segment = False

    def close(self) -> None:
        """Release the duplicate; idempotent."""
        self._pending.clear()
        self._sock.close()

    def _send_some(self, data: bytes, segment: int, address: Address) -> int:
        """Return how many bytes were sent or lost; fewer than all means that the socket is full."""
        try:
            if segment >= len(data):
                self._sock.sendto(data, address)
                return len(data)
            if self.can_segment:
                control = [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment))]
                self._sock.sendmsg([data], control, 0, address)
                return len(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            if segment >= len(data) and error.errno in _LOST_ON_THE_WAY:
                return len(data)
            if error.errno not in _GSO_REFUSED:
                if error.errno in _LOST_ON_THE_WAY:
                    return len(data)
                raise
            logger.info("UDP GSO is not possible here (%s): datagrams go out one by one", error)
            self.can_segment = False
        for start in range(0, len(data), segment):
            piece = data[start : start + segment]
            if self._send_some(piece, segment, address) < len(piece):
                return start
        return len(data)

    def _fragmenting(self, rule: int) -> bool:
        if self._sock.family == socket.AF_INET6:
            return self._try_option(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, rule)
        return self._try_option(socket.IPPROTO_IP, _IP_MTU_DISCOVER, rule)

    def _try_option(self, level: int, option: int, value: int) -> bool:
        try:
            self._sock.setsockopt(level, option, value)
        except OSError:
            return False
        return True
