"""How fast data channels are: Hive's SCTP against aiortc's, two processes on loopback, interleaved runs, medians.

    ./hive bench channel [--json] [--runs 3] [--megabytes 128] [--stock-megabytes 16] [--variants fast,base,plain,stock]

Variants: `fast` is what agents use (packets as large as the path takes), `base` keeps packets at 1,188 bytes as on the
internet, `plain` does so without UDP GSO and GRO, `stock` is aiortc. Bulk goes one way as fast as it is acknowledged,
4 MiB ahead at most; every 10 ms a control message goes to the other end and back. CPU is that of each process while bulk
runs, in ms per MB (10^6 bytes); the machine's own noise is in every number, so trust ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from agent.net.fast import FastPath
from agent.net.ice import IceConfig
from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.transport import Lane, Link
from agent.net.udp_batch import UdpBatch
from agent.net.webrtc import WebRtcConfig, WebRtcTransport

VARIANTS = ("fast", "base", "plain", "stock")
MESSAGE_BYTES = 60 * 1024
AHEAD_BYTES = 4 << 20
PING_EVERY_S = 0.01
OPEN_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 180.0


class PlainUdp(UdpBatch):
    """A socket without the kernel's help."""

    def _try_option(self, level: int, option: int, value: int) -> bool:
        return False


def transport(variant: str) -> WebRtcTransport:
    """A transport of that variant, for this process."""
    if variant in ("base", "plain"):
        FastPath.packet_bytes_max = PACKET_BYTES_BASE
    if variant == "plain":
        from agent.net import aiortc_seam

        aiortc_seam.UdpBatch = PlainUdp  # type: ignore[misc]
    kind = "stock" if variant == "stock" else "fast"
    return WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path=kind))  # type: ignore[arg-type]


def say(line: bytes) -> None:
    print(base64.b64encode(line).decode(), flush=True)


async def hear() -> bytes:
    return base64.b64decode(await asyncio.to_thread(sys.stdin.readline))


async def open_link(wire: WebRtcTransport, role: str) -> Link:
    if role == "receiver":
        offered = await wire.offer()
        say(offered.description)
        return await offered.accept(await hear(), OPEN_TIMEOUT_S)
    answered = await wire.answer(await hear())
    say(answered.description)
    return await answered.open(OPEN_TIMEOUT_S)


class Receiver:
    """Counts bulk, and returns control."""

    def __init__(self, link: Link, total: int) -> None:
        self.link = link
        self.total = total
        self.got = 0
        self.done = asyncio.Event()
        link.start(self.message, lambda: None, lambda reason: self.done.set())

    def message(self, lane: Lane, data: memoryview) -> None:
        if lane is Lane.CONTROL:
            self.link.send(Lane.CONTROL, bytes(data))
            return
        self.got += len(data)
        if self.got >= self.total:
            self.done.set()

    async def run(self) -> dict[str, Any]:
        before = time.process_time()
        await self.done.wait()
        return {"cpu_s": time.process_time() - before, "bytes": self.got}


class Sender:
    """Sends bulk as fast as it is acknowledged, and measures control round trips meanwhile."""

    def __init__(self, link: Link, total: int) -> None:
        self.link = link
        self.total = total
        self.room = asyncio.Event()
        self.round_trips: list[float] = []
        link.start(self.message, self.room.set, lambda reason: self.room.set())

    def message(self, lane: Lane, data: memoryview) -> None:
        self.round_trips.append(time.perf_counter() - float(bytes(data)))

    async def pings(self) -> None:
        while True:
            self.link.send(Lane.CONTROL, repr(time.perf_counter()).encode())
            await asyncio.sleep(PING_EVERY_S)

    async def run(self) -> dict[str, Any]:
        data = os.urandom(MESSAGE_BYTES)
        pings = asyncio.ensure_future(self.pings())
        cpu, start = time.process_time(), time.perf_counter()
        sent = 0
        while sent < self.total or self.link.buffered() > 1024:
            while sent < self.total and self.link.buffered() < AHEAD_BYTES:
                self.link.send(Lane.BULK, data)
                sent += len(data)
            self.room.clear()
            await self.room.wait()
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        pings.cancel()
        return {"cpu_s": cpu, "bytes": sent, "seconds": seconds, "round_trips_s": sorted(self.round_trips)}


async def child(role: str, variant: str, megabytes: int) -> None:
    wire = transport(variant)
    link = await open_link(wire, role)
    total = megabytes * 10**6
    end = (Receiver if role == "receiver" else Sender)(link, total)
    await asyncio.sleep(1.0)  # path MTU discovery, and both ends ready
    async with asyncio.timeout(RUN_TIMEOUT_S):
        result = await end.run()
    print(json.dumps(result), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await wire.close()


def measure(variant: str, megabytes: int) -> dict[str, float]:
    """One run: two processes, their signaling carried between them by us."""
    command = [sys.executable, "-m", "tests.bench.channel", "--variants", variant, "--megabytes", str(megabytes), "--role"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    receiver = subprocess.Popen([*command, "receiver"], **pipes)  # type: ignore[call-overload]
    sender = subprocess.Popen([*command, "sender"], **pipes)  # type: ignore[call-overload]
    try:
        sender.stdin.write(receiver.stdout.readline())
        sender.stdin.flush()
        receiver.stdin.write(sender.stdout.readline())
        receiver.stdin.flush()
        sent, got = json.loads(sender.stdout.readline()), json.loads(receiver.stdout.readline())
        for process in (sender, receiver):
            process.communicate("\n", timeout=20)
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    millions = sent["bytes"] / 1e6
    trips = sent["round_trips_s"]
    return {
        "mb_per_s": millions / sent["seconds"],
        "sender_cpu_ms_per_mb": 1e3 * sent["cpu_s"] / millions,
        "receiver_cpu_ms_per_mb": 1e3 * got["cpu_s"] / millions,
        "control_p50_ms": 1e3 * trips[len(trips) // 2],
        "control_p99_ms": 1e3 * trips[int(0.99 * len(trips))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=128, help="per run of ours")
    parser.add_argument("--stock-megabytes", type=int, default=16, help="per run of aiortc's")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--role", choices=("sender", "receiver"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    variants = args.variants.split(",")
    if not set(variants) <= set(VARIANTS) or args.runs < 1:
        parser.error(f"variants are {', '.join(VARIANTS)}, and runs at least 1")
    if args.role:
        logging.basicConfig(level=logging.WARNING)
        asyncio.run(child(args.role, variants[0], args.megabytes))
        return
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in variants}
    for number in range(args.runs):
        for variant in variants:
            result = measure(variant, args.stock_megabytes if variant == "stock" else args.megabytes)
            runs[variant].append(result)
            if not args.json:
                print(
                    f"run {number + 1} {variant:6}", "  ".join(f"{key} {value:.2f}" for key, value in result.items()), flush=True
                )
    medians = {
        variant: {key: round(statistics.median(run[key] for run in results), 3) for key in results[0]}
        for variant, results in runs.items()
    }
    facts: dict[str, Any] = {"bench": "channel", "runs": args.runs, "load": round(os.getloadavg()[0], 2), "medians": medians}
    if "stock" in medians:
        facts["times_stock"] = {
            variant: round(values["mb_per_s"] / medians["stock"]["mb_per_s"], 2) for variant, values in medians.items()
        }
    if args.json:
        print(json.dumps(facts))
        return
    for variant, values in medians.items():
        print(f"median {variant:6}", "  ".join(f"{key} {value:.2f}" for key, value in values.items()))
    if "times_stock" in facts:
        print("times stock:", ", ".join(f"{variant} {times:.1f}" for variant, times in facts["times_stock"].items()))


if __name__ == "__main__":
    main()
