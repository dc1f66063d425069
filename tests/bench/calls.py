"""Calls between two processes over a real connection: throughput, CPU per megabyte, and what a small call waits during bulk.

    python -m tests.bench.calls --data-path fast --megabytes 64 --in-flight 4

The callee sends the body back, and bytes count both ways. Prints one JSON object. CPU is the caller's; the callee's is alike.
`small` is of calls of a few bytes, so many at a time, nothing else under way; datagrams are the caller's, both ends send alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from statistics import median, quantiles

from agent.identity import Identity, PeerId
from agent.net.ice import IceConfig
from agent.net.network import Network, NetworkConfig, Reply, Request
from agent.net.udp_batch import Address, Flight, UdpBatch
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from agent.wire.config import WireConfig

CALLER, CALLEE = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))
CALL_BYTES = 1 << 20
SMALL_AT_A_TIME = (1, 4, 32)
TIMEOUT_S = 120.0


class PipeSignaler:
    """One offer through a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        self._pipe.send_bytes(sealed_offer)
        return await asyncio.to_thread(self._pipe.recv_bytes)


def network(identity: Identity, options: argparse.Namespace) -> Network:
    """One end, as configured on the command line."""
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path=options.data_path))
    config = NetworkConfig(wire=WireConfig(fragment_bytes=options.fragment_bytes), bulk_room_bytes=options.room_bytes)
    return Network(identity=identity, experiment="bench", transport=transport, config=config)


async def echo(request: Request) -> Reply:
    return Reply(request.header, request.buffers)


async def callee(pipe: Connection, options: argparse.Namespace) -> None:
    """Answer until the caller leaves."""
    end = network(CALLEE, options)
    end.register("echo", echo)
    gone = asyncio.Event()
    end.add_listener(lambda _: None, lambda _, why: gone.set())
    pipe.send_bytes(b"ready")
    pipe.send_bytes(await end.answer(await asyncio.to_thread(pipe.recv_bytes)))
    await gone.wait()
    await end.close()


async def timed(end: Network) -> float:
    began = time.perf_counter()
    await end.call(CALLEE.peer_id, "echo", b"x", timeout_s=TIMEOUT_S)
    return 1e3 * (time.perf_counter() - began)


class Datagrams:
    """Counts what this process sends in batches."""

    def __init__(self) -> None:
        self.sent = 0
        send = UdpBatch.send

        def counted(batch: UdpBatch, flight: Flight, address: Address) -> None:
            self.sent += -(-len(flight.data) // flight.segment)
            send(batch, flight, address)

        UdpBatch.send = counted  # type: ignore[method-assign]


async def small_calls(end: Network, datagrams: Datagrams, at_a_time: int, seconds: float) -> dict[str, float]:
    """Rate, and what one call costs."""
    times: list[float] = []
    before, began, cpu = datagrams.sent, time.perf_counter(), time.process_time()

    async def worker() -> None:
        while time.perf_counter() < began + seconds:
            times.append(await timed(end))

    await asyncio.gather(*(worker() for _ in range(at_a_time)))
    count, cpu = len(times), time.process_time() - cpu
    return {
        "calls_per_s": round(count / (time.perf_counter() - began)),
        "cpu_us_per_call": round(1e6 * cpu / count),
        "datagrams_per_call": round((datagrams.sent - before) / count, 2),
        "p50_ms": round(median(times), 2),
    }


async def caller(pipe: Connection, options: argparse.Namespace) -> dict[str, object]:
    """Measure. Times in milliseconds."""
    end = network(CALLER, options)
    await asyncio.to_thread(pipe.recv_bytes)
    began = time.perf_counter()
    await end.dial(CALLEE.peer_id, PipeSignaler(pipe), timeout_s=TIMEOUT_S)
    dial_ms = 1e3 * (time.perf_counter() - began)
    idle = [await timed(end) for _ in range(200)]
    datagrams = Datagrams()
    small = {str(width): await small_calls(end, datagrams, width, options.small_seconds) for width in SMALL_AT_A_TIME}
    body = os.urandom(CALL_BYTES)
    left = options.megabytes << 20
    during: list[float] = []

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= CALL_BYTES
            await end.call(CALLEE.peer_id, "echo", b"", [body], timeout_s=TIMEOUT_S)

    began, cpu = time.perf_counter(), time.process_time()
    bulk = asyncio.gather(*(worker() for _ in range(options.in_flight)))
    while not bulk.done():
        during.append(await timed(end))
        await asyncio.wait({bulk}, timeout=0.01)
    await bulk
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    moved = 2 * (options.megabytes << 20) / 1e6
    await end.close()
    return {
        "data_path": options.data_path,
        "dial_ms": round(dial_ms, 1),
        "small_call_idle_ms": round(median(idle), 2),
        "small": small,
        "small_call_during_bulk_ms": [round(median(during), 1), round(quantiles(during, n=100)[-1], 1)],
        "megabytes_per_s": round(moved / seconds, 1),
        "cpu_ms_per_megabyte": round(1e3 * cpu / moved, 1),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def other(pipe: Connection, options: argparse.Namespace) -> None:
    asyncio.run(callee(pipe, options))


def main() -> None:
    """Run both processes and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-path", choices=("stock", "fast"), default="stock")
    parser.add_argument("--megabytes", type=int, default=32, help="each way (default %(default)s)")
    parser.add_argument("--small-seconds", type=float, default=2.0, help="for each number at a time (default %(default)s)")
    parser.add_argument("--in-flight", type=int, default=4, help="calls at a time (default %(default)s)")
    parser.add_argument("--fragment-bytes", type=int, default=WireConfig().fragment_bytes)
    parser.add_argument("--room-bytes", type=int, default=NetworkConfig().bulk_room_bytes)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=other, args=(there, options))
    process.start()
    try:
        print(json.dumps(asyncio.run(caller(here, options))))
    finally:
        process.join(10)
        if process.is_alive():
            process.terminate()


if __name__ == "__main__":
    main()
