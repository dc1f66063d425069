"""Telemetry that an agent could not deliver before it ended, however it ended: kept in files, and sent by its next run.

One file a run, `<session>.jsonl`, an item a line. They go out under their own session, so the coordinator counts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agent.net.telemetry_buffer import BufferConfig
from agent.net.telemetry_socket import TelemetrySocket
from agent.reports import Item

logger = logging.getLogger(__name__)

SESSIONS_MAX = 8
"""Runs whose leftovers are kept; of more, the oldest are lost."""
FILE_BYTES_MAX = BufferConfig().bytes_max + BufferConfig().items_max
"""A full buffer and its line ends. A larger file is not ours."""
SPOOL_S = 30.0
"""A crash loses about so much of what could not be delivered before."""
_SESSION = re.compile(r"[0-9a-f]{16}")
_Item = msgspec.json.Decoder(Item)


class Leftovers:
    """The files. Nothing here raises: what cannot be kept or read is lost, and the log says so."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, session: str, items: Sequence[bytes]) -> None:
        """Keep what a run could not deliver; nothing to keep leaves no file."""
        if not items:
            return
        if self.write(session, items):
            logger.info("%d telemetry items were not delivered; the next run of this agent sends them", len(items))

    def write(self, session: str, items: Sequence[bytes]) -> bool:
        """The same without a word in the log when it works; False if it does not."""
        path = self._path(session)
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            with temporary.open("wb") as file:
                file.write(b"".join(item + b"\n" for item in items))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            for old in self.sessions()[:-SESSIONS_MAX]:
                self.drop(old)
        except OSError as e:
            logger.warning("%d telemetry items that were not delivered are lost: %s", len(items), e.strerror)
            return False
        return True

    def sessions(self) -> list[str]:
        """Runs with leftovers, the oldest first."""
        try:
            found = [(p.stat().st_mtime_ns, p.stem) for p in self._directory.glob("*.jsonl") if _SESSION.fullmatch(p.stem)]
        except OSError:
            return []
        return [session for _, session in sorted(found)]

    def read(self, session: str) -> list[Item]:
        """The items of one run, ascending; those that can be read."""
        items: list[Item] = []
        try:
            with self._path(session).open("rb") as file:
                lines = file.read(FILE_BYTES_MAX).splitlines()
        except OSError as e:
            logger.warning("undelivered telemetry cannot be read: %s", e.strerror)
            return []
        for line in lines:
            try:
                items.append(_Item.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # a disk that filled up half way through
        return sorted(items, key=lambda item: item.sequence)

    def drop(self, session: str) -> None:
        """They are delivered, or too old."""
        try:
            self._path(session).unlink(missing_ok=True)
        except OSError as e:
            logger.warning("delivered telemetry cannot be removed: %s", e.strerror)

    def _path(self, session: str) -> Path:
        return self._directory / f"{session}.jsonl"


class Spool:
    """While nothing is delivered, writes down every SPOOL_S what a run would leave, so that it outlives SIGKILL and power cuts.

    An outline of it (TelemetryBuffer): counters in reports are cumulative, so little is lost with the reports between. Once the
    coordinator takes telemetry again the file goes. Whoever ends in good order keeps everything, in the same file.
    """

    def __init__(self, leftovers: Leftovers, session: str, outline: Callable[[], list[bytes]]) -> None:
        """`outline()`: what is not acknowledged, or enough of it, in order."""
        self._leftovers = leftovers
        self._session = session
        self._outline = outline
        self._oldest: bytes | None = None
        self._written = False
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[bool] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="spool")

    async def close(self) -> None:
        """Stop; the file is gone. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._gone()

    async def look(self) -> None:
        """One round: if the oldest item is the same as in the round before, nothing has been delivered since."""
        items = self._outline()
        stuck = bool(items) and items[0] == self._oldest
        self._oldest = items[0] if items else None
        if stuck:
            self._written = True
            write = asyncio.to_thread(self._leftovers.write, self._session, items)  # a disk may take its time
            self._writing = asyncio.get_running_loop().create_task(write)
            await asyncio.shield(self._writing)
        else:
            self._gone()

    def _gone(self) -> None:
        if self._written:
            self._written = False
            self._leftovers.drop(self._session)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SPOOL_S)
            await self.look()


class Delivery:
    """Sends what earlier runs left, one run after the other, until all is acknowledged or `close`. Whatever is not stays kept."""

    def __init__(self, leftovers: Leftovers, socket_of: Callable[[str], TelemetrySocket]) -> None:
        """`socket_of(session)`: a socket, not started, that presents itself as that run."""
        self._leftovers = leftovers
        self._socket_of = socket_of
        self._task: asyncio.Task[None] | None = None
        self.bytes_total = 0
        """Both ways, of the runs that are done."""

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="leftovers")

    async def close(self) -> None:
        """Stop sending; idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def done(self) -> None:
        """Wait until all is delivered."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        for session in self._leftovers.sessions():
            if items := self._leftovers.read(session):
                await self._send(session, items)
            self._leftovers.drop(session)

    async def _send(self, session: str, items: Sequence[Item]) -> None:
        socket = self._socket_of(session)
        for item in items:
            socket.submit(item)
        socket.start()
        try:
            await socket.settled()
        finally:
            await socket.abandon()
            self.bytes_total += socket.bytes_total
        logger.info("delivered %d telemetry items of an earlier run", len(items))
