"""One end of a measured connection, in a process of its own. `_pair.py` starts two and reads what they print.

    python -m tests.bench._end --kind fast --role sender --seconds 6

Signaling is three lines on standard input and output: the receiver says how it is reached, the sender answers, and both
begin. The receiver then prints one line of JSON when the sender is gone or has said that it is done, the sender one when
its time is over and every control message is back. Times are CLOCK_MONOTONIC, which both ends share.

Kinds: `fast` is what agents use; `base` keeps packets at 1,188 bytes, as on paths of which nothing is known; `plain` does so
without UDP GSO and GRO; `stock` is aiortc; `cubic` and `bbr` are the kernel's TCP.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from typing import Any, Protocol

from agent.net.fast import FastPath
from agent.net.ice import IceConfig
from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.transport import Lane, Link
from agent.net.udp_batch import UdpBatch
from agent.net.webrtc import WebRtcConfig, WebRtcLink, WebRtcTransport

MESSAGE_BYTES = 60 * 1024
AHEAD_BYTES = {"stock": 1 << 20}
AHEAD_BYTES_DEFAULT = 32 << 20
PING_EVERY_S = 0.01
SETTLE_S = 1.0
SAMPLE_S = 0.05
OPEN_TIMEOUT_S = 30.0
LAST_PING_S = 10.0
TCP_KINDS = ("cubic", "bbr")
KINDS = ("fast", "base", "plain", "stock", *TCP_KINDS)
_BYE = b"bye"
_TCP_INFO_RETRANSMITTED = 100  # offset of tcpi_total_retrans in struct tcp_info


class PlainUdp(UdpBatch):
    """A socket without the kernel's help."""

    def _try_option(self, level: int, option: int, value: int) -> bool:
        return False


class Samples:
    """(time, bytes so far, CPU seconds so far), at most one every SAMPLE_S."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, int, float]] = []

    def note(self, count: int, *, anyhow: bool = False) -> None:
        now = time.monotonic()
        if anyhow or not self.rows or now >= self.rows[-1][0] + SAMPLE_S:
            self.rows.append((now, count, time.process_time()))


def say(line: bytes) -> None:
    print(base64.b64encode(line).decode(), flush=True)


def hear() -> bytes:
    return base64.b64decode(sys.stdin.readline())


# WebRTC


def transport(kind: str) -> WebRtcTransport:
    """A transport of that kind, for this process."""
    if kind in ("base", "plain"):
        FastPath.packet_bytes_max = PACKET_BYTES_BASE
    if kind == "plain":
        from agent.net import aiortc_seam

        aiortc_seam.UdpBatch = PlainUdp  # type: ignore[misc]
    path = "stock" if kind == "stock" else "fast"
    return WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="auto"), data_path=path))  # type: ignore[arg-type]


async def open_link(wire: WebRtcTransport, role: str) -> Link:
    if role == "receiver":
        offered = await wire.offer()
        say(offered.description)
        return await offered.accept(await asyncio.to_thread(hear), OPEN_TIMEOUT_S)
    answered = await wire.answer(await asyncio.to_thread(hear))
    say(answered.description)
    return await answered.open(OPEN_TIMEOUT_S)


class Ending(Protocol):
    async def run(self) -> dict[str, Any]: ...


class Receiver:
    """Counts bulk, and returns control."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.got = 0
        self.samples = Samples()
        self.done = asyncio.Event()
        link.start(self.message, lambda: None, lambda reason: self.done.set())

    def message(self, lane: Lane, data: memoryview) -> None:
        if lane is Lane.BULK:
            self.got += len(data)
            self.samples.note(self.got)
        elif data == _BYE:
            self.done.set()
        else:
            self.link.send(Lane.CONTROL, bytes(data))

    async def run(self) -> dict[str, Any]:
        await self.done.wait()
        return {"samples": self.samples.rows}


class Sender:
    """Sends bulk as fast as it is acknowledged, and measures control round trips meanwhile."""

    def __init__(self, link: Link, seconds: float, ahead_bytes: int) -> None:
        self.link = link
        self.seconds = seconds
        self.ahead_bytes = ahead_bytes
        self.room = asyncio.Event()
        self.samples = Samples()
        self.round_trips: list[tuple[float, float]] = []
        self.pings_sent = 0
        link.start(self.message, self.room.set, lambda reason: self.room.set())

    def message(self, lane: Lane, data: memoryview) -> None:
        sent = float(bytes(data))
        self.round_trips.append((sent, time.monotonic() - sent))
        self.room.set()

    async def pings(self) -> None:
        while True:
            self.link.send(Lane.CONTROL, repr(time.monotonic()).encode())
            self.pings_sent += 1
            await asyncio.sleep(PING_EVERY_S)

    async def bulk(self) -> None:
        data, sent = os.urandom(MESSAGE_BYTES), 0
        while True:
            while self.link.buffered() < self.ahead_bytes:
                self.link.send(Lane.BULK, data)
                sent += len(data)
            self.samples.note(sent - self.link.buffered())
            self.room.clear()
            await self.room.wait()

    async def run(self) -> dict[str, Any]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.seconds), asyncio.TaskGroup() as group:
                group.create_task(self.bulk())
                group.create_task(self.pings())
        with contextlib.suppress(TimeoutError):  # those that never come back would have made the tail longer: they are counted
            async with asyncio.timeout(LAST_PING_S):
                while len(self.round_trips) < self.pings_sent:
                    self.room.clear()
                    await self.room.wait()
        facts: dict[str, Any] = {
            "samples": self.samples.rows,
            "round_trips": self.round_trips,
            "pings_lost": self.pings_sent - len(self.round_trips),
        }
        association = getattr(self.link.stack.path, "association", None) if isinstance(self.link, WebRtcLink) else None
        if association is not None:
            counts = association.counts
            facts |= {
                "packets": counts.packets,
                "retransmitted": counts.retransmitted,
                "timeouts": counts.timeouts,
                "packet_bytes": association.packet_bytes,
            }
        self.link.send(Lane.CONTROL, _BYE)
        return facts


async def webrtc(args: argparse.Namespace) -> None:
    wire = transport(args.kind)
    link = await open_link(wire, args.role)
    if args.role == "receiver":
        end: Ending = Receiver(link)
    else:
        end = Sender(link, args.seconds, AHEAD_BYTES.get(args.kind, AHEAD_BYTES_DEFAULT))
        await asyncio.sleep(SETTLE_S)  # path MTU discovery, and both ends ready
    gc.collect()
    gc.freeze()  # as agents do
    result = await end.run()
    print(json.dumps(result), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await wire.close()


# TCP


def tcp(args: argparse.Namespace) -> None:
    """The kernel's TCP with that congestion control: nothing but bulk."""
    samples = Samples()
    if args.role == "receiver":
        server = socket.create_server(("", 0))
        say(json.dumps([args.address, server.getsockname()[1]]).encode())
        hear()
        connection, _ = server.accept()
        count, buffer = 0, bytearray(1 << 20)
        while size := connection.recv_into(buffer):
            count += size
            samples.note(count)
        print(json.dumps({"samples": samples.rows}), flush=True)
    else:
        address = json.loads(hear())
        say(b"coming")
        with socket.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, args.kind.encode())
            connection.connect(tuple(address))
            threading.Event().wait(SETTLE_S)
            data, sent, start = os.urandom(MESSAGE_BYTES), 0, time.monotonic()
            connection.settimeout(5)
            while time.monotonic() < start + args.seconds:
                connection.sendall(data)
                sent += len(data)
                samples.note(sent)
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
            retransmitted = struct.unpack_from("=I", info, _TCP_INFO_RETRANSMITTED)[0]
        print(json.dumps({"samples": samples.rows, "retransmitted": retransmitted, "packets": sent // 1448}), flush=True)
    sys.stdin.readline()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--role", choices=("sender", "receiver"), required=True)
    parser.add_argument("--seconds", type=float, required=True, help="how long bulk is sent")
    parser.add_argument("--address", default="127.0.0.1", help="of the receiver, for TCP")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if args.kind in TCP_KINDS:
        tcp(args)
    else:
        asyncio.run(webrtc(args))


if __name__ == "__main__":
    main()
