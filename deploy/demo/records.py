"""Follows the local records of agents: complete JSON lines appended to `records.jsonl`, through its rotation."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agent.reports import Event, Report

READ_BYTES_MAX = 8 << 20
"""Most that one `read` takes in; the rest comes with the next."""

_DECODER = msgspec.json.Decoder(Report | Event)


class RecordTail:
    """One agent's record from now on: what earlier runs left in the file is skipped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self.unreadable = 0
        """Lines that were no items: a crash or a full disk may cut one off."""
        try:
            stat = path.stat()
            self._inode, self._offset = stat.st_ino, stat.st_size
        except FileNotFoundError:
            self._inode, self._offset = 0, 0

    def read(self) -> list[Report | Event]:
        """The items that were completed since the last call, in order."""
        try:
            with self._path.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if self._inode and inode != self._inode:
                    self._offset, self._rest = 0, b""
                self._inode = inode
                file.seek(self._offset)
                fresh = file.read(READ_BYTES_MAX)
        except FileNotFoundError:
            return []
        self._offset += len(fresh)
        *lines, self._rest = (self._rest + fresh).split(b"\n")
        return [item for line in lines if line and (item := self._decode(line)) is not None]

    def _decode(self, line: bytes) -> Report | Event | None:
        try:
            return _DECODER.decode(line)
        except msgspec.DecodeError:
            self.unreadable += 1
            return None
