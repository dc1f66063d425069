"""SCTP packets to DTLS datagrams and back, many at a time.

OpenSSL makes one record of each write, and with an authenticated cipher every record is the same few bytes longer than
its content. So a run of equal packets becomes a run of equal datagrams: many writes, one read, and the boundaries are
known without looking. Where the arithmetic does not come out, each record is fetched by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from OpenSSL import SSL

from agent.net.openssl_seam import Session
from agent.net.udp_batch import SEGMENTED_BYTES_MAX, SEGMENTS_MAX, Flight

READ_RUN_BYTES = 16_000
"""OpenSSL reads its input in pieces of at least this size, and drops a record that a piece cuts off."""


class DtlsClosed(Exception):
    """The other end closed the session in good order."""


class DtlsRecords:
    """Encrypts and decrypts on a session whose handshake is done."""

    def __init__(self, session: Session, cipher: str) -> None:
        """`cipher` is the name that OpenSSL gives it."""
        self._session = session
        self._constant = "GCM" in cipher or "CHACHA20" in cipher
        self._overhead: int | None = None

    def encrypt(self, packets: Sequence[bytes]) -> list[Flight]:
        """Return the datagrams that carry `packets`, in order, one for each. Raises SSL.Error."""
        flights = []
        at = 0
        while at < len(packets):
            end = self._run_end(packets, at)
            if end - at > 1:
                flights.append(self._encrypt_run(packets[at:end]))
            else:
                flights.append(self._encrypt_one(packets[at]))
            at = end
        return flights

    def decrypt(self, data: bytes, segment: int) -> list[bytes]:
        """Return the packets in datagrams of `segment` bytes, the last perhaps shorter; bad ones are left out.

        Raises DtlsClosed. `leftover` afterwards: a handshake message may want an answer.
        """
        run = max(1, READ_RUN_BYTES // segment) * segment
        read = self._session.read
        try:
            if run >= len(data):
                return read(data, -(-len(data) // segment))
            packets: list[bytes] = []
            for start in range(0, len(data), run):
                piece = data[start : start + run]
                packets += read(piece, -(-len(piece) // segment))
            return packets
        except SSL.ZeroReturnError:
            raise DtlsClosed from None

    def drain(self) -> list[bytes]:
        """Return what is left if datagrams held more records than one each. Raises DtlsClosed."""
        try:
            return self._session.read(b"", SEGMENTS_MAX)
        except SSL.ZeroReturnError:
            raise DtlsClosed from None

    def leftover(self) -> Flight | None:
        """Return what OpenSSL wants to send on its own account."""
        data = self._session.write(())
        return Flight(data, len(data)) if data else None

    def _run_end(self, packets: Sequence[bytes], at: int) -> int:
        """Where the run ends that starts at `at`: equal sizes, the last may be shorter."""
        size = len(packets[at])
        if not self._constant or self._overhead is None:
            return at + 1
        most = min(SEGMENTS_MAX, SEGMENTED_BYTES_MAX // (size + self._overhead))
        end = at + 1
        last = min(len(packets), at + most)
        while end < last:
            following = len(packets[end])
            if following > size:
                break
            end += 1
            if following < size:
                break
        return end

    def _encrypt_one(self, packet: bytes) -> Flight:
        data = self._session.write((packet,))
        if self._overhead is None:
            self._overhead = len(data) - len(packet)
        return Flight(data, len(data))

    def _encrypt_run(self, packets: Sequence[bytes]) -> Flight:
        data = self._session.write(packets)
        assert self._overhead is not None
        segment = len(packets[0]) + self._overhead
        if len(data) != (len(packets) - 1) * segment + len(packets[-1]) + self._overhead:
            # Something else was in the way (an alert): this batch counts as lost on the way, later ones go singly.
            self._constant = False
            return Flight(data, len(data))
        return Flight(data, segment)
