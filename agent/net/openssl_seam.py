"""Runs of records through OpenSSL, with as few steps of Python for each as there can be.

pyOpenSSL's public `send` and `recv` make and release a buffer, and ask for errors, for every record: 1.7 µs more than the
cipher itself, each way (docs/results.md). `DirectSession` calls `SSL_write` and `SSL_read` as pyOpenSSL does, with buffers that
stay. It asks pyOpenSSL as soon as a call does not succeed, so every error is pyOpenSSL's own. `session` chooses it where the
private names below exist, else `PublicSession`, which does the same with public calls only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from OpenSSL import SSL

logger = logging.getLogger(__name__)

RECORD_BYTES_MAX = 16_384
OUTPUT_BYTES_MAX = 65_536 + 256
"""Most bytes that one run of records comes to."""


class Session(Protocol):
    """A DTLS session whose handshake is done."""

    def write(self, packets: Sequence[bytes]) -> bytes:
        """Return the records that carry `packets`, in order, at most OUTPUT_BYTES_MAX. Raises SSL.Error.

        First come those that OpenSSL wants to send on its own account, usually none.
        """
        ...

    def read(self, records: bytes, count: int) -> list[bytes]:
        """Return the content of at most `count` records, without those that are not authentic. Raises SSL.ZeroReturnError."""
        ...


class PublicSession:
    """See Session; on pyOpenSSL's public interface."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def write(self, packets: Sequence[bytes]) -> bytes:
        for packet in packets:
            self._connection.send(packet)
        try:
            return self._connection.bio_read(OUTPUT_BYTES_MAX)
        except SSL.WantReadError:
            return b""

    def read(self, records: bytes, count: int) -> list[bytes]:
        contents: list[bytes] = []
        if records:
            self._connection.bio_write(records)
        try:
            for _ in range(count):
                contents.append(self._connection.recv(RECORD_BYTES_MAX))
        except SSL.ZeroReturnError:
            raise
        except SSL.Error:  # WantReadError: a record was not authentic, repeated, or no application data
            pass
        return contents


class Scratch:
    """Buffers that all sessions of a thread take turns with: what is in them is copied before a call ends."""

    def __init__(self, ffi: Any) -> None:
        self.output = ffi.new("char[]", OUTPUT_BYTES_MAX)
        self.output_view = ffi.buffer(self.output)
        self.record = ffi.new("char[]", RECORD_BYTES_MAX)
        self.record_view = ffi.buffer(self.record)


_of_this_thread = threading.local()


class DirectSession:
    """See Session; on the functions and the BIOs that pyOpenSSL's connection holds."""

    def __init__(self, connection: SSL.Connection) -> None:
        """Raises AttributeError or ImportError if pyOpenSSL is not as we know it."""
        from OpenSSL import _util

        lib, ffi = _util.lib, _util.ffi
        self._connection = connection
        self._ssl: Any = connection._ssl
        self._into: Any = connection._into_ssl
        self._from: Any = connection._from_ssl
        self._ssl_write, self._ssl_read, self._ssl_error = lib.SSL_write, lib.SSL_read, lib.SSL_get_error
        self._bio_write, self._bio_read, self._want_read = lib.BIO_write, lib.BIO_read, lib.SSL_ERROR_WANT_READ
        if not self._into or not self._from:
            raise AttributeError("the session has no memory BIOs")
        scratch = getattr(_of_this_thread, "scratch", None)
        if scratch is None:
            scratch = _of_this_thread.scratch = Scratch(ffi)
        self._output, self._output_view = scratch.output, scratch.output_view
        self._record, self._record_view = scratch.record, scratch.record_view

    def write(self, packets: Sequence[bytes]) -> bytes:
        ssl, write = self._ssl, self._ssl_write
        for packet in packets:
            size = len(packet)
            if write(ssl, packet, size) != size:
                self._connection.send(packet)  # raises what it was
        size = self._bio_read(self._from, self._output, OUTPUT_BYTES_MAX)
        return self._output_view[:size] if size > 0 else b""

    def read(self, records: bytes, count: int) -> list[bytes]:
        contents: list[bytes] = []
        size = len(records)
        if size and self._bio_write(self._into, records, size) != size:
            return contents
        ssl, read, record, view = self._ssl, self._ssl_read, self._record, self._record_view
        for _ in range(count):
            size = read(ssl, record, RECORD_BYTES_MAX)
            if size > 0:
                contents.append(view[:size])
                continue
            if self._ssl_error(ssl, size) != self._want_read:
                try:
                    contents.append(self._connection.recv(RECORD_BYTES_MAX))  # raises what it was
                except SSL.ZeroReturnError:
                    raise
                except SSL.Error as error:
                    logger.debug("a record was refused: %r", error)
            break
        return contents


def session(connection: SSL.Connection) -> Session:
    """Return the quickest session that the installed packages allow."""
    try:
        return DirectSession(connection)
    except (ImportError, AttributeError) as error:
        logger.info("pyOpenSSL is used by its public interface, which costs more: %s", error)
        return PublicSession(connection)
