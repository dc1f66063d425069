"""Where the network should run: in the agent's own process beside the training thread, or in a process of its own.

    ./hive bench layout [--json] [--runs 3] [--seconds 8] [--layouts thread,process] [--switch-ms 5] [--rate 20]

A caller trains a transformer block (torch, one thread, forward and backward) without a pause, and meanwhile keeps
`--in-flight` calls of 1 MB going to another process, which sends each body back, as fast as they come or at `--rate`; every
10 ms it makes a small call. In turns:

thread   the event loop with the connections runs in the caller's main thread, training in another: what the agent does.
process  the event loop runs in a process of its own; bodies travel through shared memory, copied once each way, and a pipe says
         which slot is ready, as the simplest such design would have it.
network  `thread` without training: what the network alone gets.
train    training alone.

Shown: 10^6 bytes per second both ways, training steps per second, and small calls' round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import struct
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import torch

from agent.identity import Identity
from agent.net.ice import IceConfig
from agent.net.network import Network, Reply, Request
from agent.net.webrtc import WebRtcConfig, WebRtcTransport

CALLER, CALLEE = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))
CALL_BYTES = 1 << 20
PING_EVERY_S = 0.01
TIMEOUT_S = 60.0
LAYOUTS = ("thread", "process", "network", "train")
_SLOT = struct.Struct("!i")
PING = -1
"""In place of a slot's number: a small call."""

Call = Callable[[int], Awaitable[None]]


class PipeSignaler:
    """One offer through a pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def exchange(self, peer: object, sealed_offer: bytes) -> bytes:
        self._pipe.send_bytes(sealed_offer)
        return await asyncio.to_thread(self._pipe.recv_bytes)


def network(identity: Identity) -> Network:
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path="fast"))
    return Network(identity=identity, experiment="bench", transport=transport)


# the other end


async def echo(request: Request) -> Reply:
    return Reply(request.header, request.buffers)


async def callee(pipe: Connection) -> None:
    end = network(CALLEE)
    end.register("echo", echo)
    gone = asyncio.Event()
    end.add_listener(lambda _: None, lambda *_: gone.set())
    pipe.send_bytes(b"ready")
    pipe.send_bytes(await end.answer(await asyncio.to_thread(pipe.recv_bytes)))
    await gone.wait()
    await end.close()


def run_callee(pipe: Connection) -> None:
    asyncio.run(callee(pipe))


async def dialed(pipe: Connection) -> Network:
    end = network(CALLER)
    await asyncio.to_thread(pipe.recv_bytes)
    await end.dial(CALLEE.peer_id, PipeSignaler(pipe), timeout_s=TIMEOUT_S)
    return end


# training


class Training:
    """A transformer layer of the demo's kind, trained in a thread until told to stop."""

    def __init__(self) -> None:
        self.steps = 0
        self.warm = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(1)
        layer = torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, dropout=0.0)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        x = torch.randn(4, 64, 256)
        while not self._stop.is_set():
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
            self.steps += 1
            self.warm.set()


# the two layouts


class SlotCalls:
    """Calls through the process with the network: the body lies in a slot of shared memory before and after."""

    def __init__(self, pipe: Connection, memory: SharedMemory) -> None:
        self._pipe = pipe
        self._memory = memory
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._body = os.urandom(CALL_BYTES)
        asyncio.get_running_loop().add_reader(pipe.fileno(), self._ready)

    async def __call__(self, slot: int) -> None:
        view = self._memory.buf[slot * CALL_BYTES : (slot + 1) * CALL_BYTES]
        if slot != PING:
            view[:] = self._body
        done = self._waiting[slot] = asyncio.get_running_loop().create_future()
        self._pipe.send_bytes(_SLOT.pack(slot))
        await done
        if slot != PING:
            bytearray(view)  # what the caller makes its tensor of
        view.release()

    def _ready(self) -> None:
        while self._pipe.poll():
            (slot,) = _SLOT.unpack(self._pipe.recv_bytes())
            self._waiting.pop(slot).set_result(None)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())


async def serve_slots(pipe: Connection, peer_pipe: Connection, name: str) -> None:
    """The process with the network."""
    end = await dialed(peer_pipe)
    memory = SharedMemory(name)
    loop, gone, tasks = asyncio.get_running_loop(), asyncio.Event(), set()

    async def call(slot: int) -> None:
        if slot == PING:
            await end.call(CALLEE.peer_id, "echo", b"x", timeout_s=TIMEOUT_S)
        else:
            view = memory.buf[slot * CALL_BYTES : (slot + 1) * CALL_BYTES]
            reply = await end.call(CALLEE.peer_id, "echo", b"", [view], timeout_s=TIMEOUT_S)
            view[:] = reply.buffers[0]
            view.release()
        pipe.send_bytes(_SLOT.pack(slot))

    def readable() -> None:
        while pipe.poll():
            message = pipe.recv_bytes()
            if not message:
                gone.set()
                return
            task = loop.create_task(call(*_SLOT.unpack(message)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    loop.add_reader(pipe.fileno(), readable)
    pipe.send_bytes(b"ready")
    await gone.wait()
    loop.remove_reader(pipe.fileno())
    await end.close()
    memory.close()


def run_slots(pipe: Connection, peer_pipe: Connection, name: str) -> None:
    asyncio.run(serve_slots(pipe, peer_pipe, name))


async def load(call: Call, args: argparse.Namespace) -> dict[str, float]:
    """Calls as fast as they come back for `args.seconds`, and small ones besides."""
    until = time.monotonic() + args.seconds
    moved, trips = 0, []

    interval_s = args.in_flight * 2 * CALL_BYTES / (1e6 * args.rate) if args.rate else 0.0

    async def worker(slot: int) -> None:
        nonlocal moved
        due = time.monotonic() + slot / args.in_flight * interval_s
        while time.monotonic() < until:
            if args.rate:
                await asyncio.sleep(due - time.monotonic())
                due = max(due + interval_s, time.monotonic())
            await call(slot)
            moved += 2 * CALL_BYTES

    async def pings() -> None:
        while time.monotonic() < until:
            begun = time.monotonic()
            await call(PING)
            trips.append(1e3 * (time.monotonic() - begun))
            await asyncio.sleep(PING_EVERY_S)

    await asyncio.gather(pings(), *(worker(slot) for slot in range(args.in_flight)))
    trips.sort()
    return {
        "mb_per_s": moved / 1e6 / args.seconds,
        "small_call_p50_ms": trips[len(trips) // 2],
        "small_call_p99_ms": trips[int(0.99 * len(trips))],
    }


async def in_thread(peer_pipe: Connection, training: Training | None, args: argparse.Namespace) -> dict[str, float]:
    end = await dialed(peer_pipe)
    body = os.urandom(CALL_BYTES)

    async def call(slot: int) -> None:
        if slot == PING:
            await end.call(CALLEE.peer_id, "echo", b"x", timeout_s=TIMEOUT_S)
        else:
            await end.call(CALLEE.peer_id, "echo", b"", [body], timeout_s=TIMEOUT_S)

    figures = await trained(call, training, args)
    await end.close()
    return figures


async def in_process(peer_pipe: Connection, training: Training, args: argparse.Namespace) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    memory = SharedMemory(create=True, size=args.in_flight * CALL_BYTES)
    process = context.Process(target=run_slots, args=(there, peer_pipe, memory.name))
    process.start()
    try:
        await asyncio.to_thread(here.recv_bytes)
        calls = SlotCalls(here, memory)
        figures = await trained(calls, training, args)
        calls.close()
        here.send_bytes(b"")
        await asyncio.to_thread(process.join, 20)
    finally:
        process.kill()
        memory.close()
        memory.unlink()
    return figures


async def trained(call: Call, training: Training | None, args: argparse.Namespace) -> dict[str, float]:
    """What the calls got, with training going on beside them if there is any."""
    await call(PING)
    if training is None:
        return await load(call, args)
    training.start()
    await asyncio.to_thread(training.warm.wait)
    before, begun = training.steps, time.monotonic()
    try:
        figures = await load(call, args)
        return figures | {"steps_per_s": (training.steps - before) / (time.monotonic() - begun)}
    finally:
        training.stop()


def run(layout: str, args: argparse.Namespace) -> dict[str, float]:
    """One measurement of one layout."""
    training = Training()
    if layout == "train":
        training.start()
        training.warm.wait()
        before = training.steps
        threading.Event().wait(args.seconds)
        steps = training.steps - before
        training.stop()
        return {"steps_per_s": steps / args.seconds}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run_callee, args=(there,))
    process.start()
    try:
        if layout == "process":
            return asyncio.run(in_process(here, training, args))
        return asyncio.run(in_thread(here, training if layout == "thread" else None, args))
    finally:
        process.join(10)
        process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--in-flight", type=int, default=4)
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help=f"of {', '.join(LAYOUTS)}")
    parser.add_argument("--rate", type=float, default=0.0, help="10^6 bytes per second both ways together (as fast as it goes)")
    parser.add_argument("--switch-ms", type=float, default=1e3 * sys.getswitchinterval(), help="of the interpreter (%(default)s)")
    args = parser.parse_args()
    if args.runs < 1 or args.seconds <= 0 or not 1 <= args.in_flight <= 64:
        parser.error("runs and seconds are positive, --in-flight is 1 to 64")
    layouts = args.layouts.split(",")
    if not set(layouts) <= set(LAYOUTS) or args.switch_ms <= 0 or args.rate < 0:
        parser.error(f"--layouts takes {', '.join(LAYOUTS)}; --switch-ms and --rate are positive")
    sys.setswitchinterval(args.switch_ms / 1e3)
    results: dict[str, list[dict[str, float]]] = {layout: [] for layout in layouts}
    for _ in range(args.runs):
        for layout in layouts:
            figures = run(layout, args)
            results[layout].append(figures)
            if not args.json:
                print(f"{layout:9}", "  ".join(f"{key} {value:.2f}" for key, value in figures.items()), flush=True)
    middle = {
        layout: {key: round(statistics.median(figures[key] for figures in runs), 2) for key in runs[0]}
        for layout, runs in results.items()
    }
    facts: dict[str, Any] = {"bench": "layout", "runs": args.runs, "load": round(os.getloadavg()[0], 2), "medians": middle}
    if args.json:
        print(json.dumps(facts))
    else:
        for layout, figures in middle.items():
            print(f"median {layout:9}", "  ".join(f"{key} {value:.2f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
