"""What open connections cost an agent that does nothing with them: memory and CPU of each.

    ./hive bench connections [--json] [--connections 100] [--seconds 20] [--data-path fast]

One process holds that many real connections (ICE, DTLS, our SCTP, handshake, the wire protocol with its pings), half of which it
offered; their other ends are in a second process with a network each, as so many agents would be. Memory is what the process
grew by (resident, after a garbage collection), CPU its time over `--seconds` in which nothing is sent but what keeps connections
alive.
Goal: under 1 MB and under 0.1 % of a core each.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agent.identity import Identity, PeerId
from agent.net.ice import IceConfig
from agent.net.network import Network
from agent.net.webrtc import WebRtcConfig, WebRtcTransport

OPEN_TIMEOUT_S = 30.0
SETTLE_S = 5.0
"""Path MTU discovery and the first pings are over by then."""
CONNECTIONS_MAX = 400


class PipeSignaler:
    """Carries offers to the other process, one at a time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._turn = asyncio.Lock()

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        async with self._turn:
            self._pipe.send((peer.raw, sealed_offer))
            return await asyncio.to_thread(self._pipe.recv)


def network(seed: int, data_path: str) -> Network:
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path=data_path))  # type: ignore[arg-type]
    return Network(identity=Identity.from_seed(seed.to_bytes(32, "big")), experiment="bench", transport=transport)


async def others(pipe: Connection, count: int, data_path: str) -> None:
    """Networks 1 to `count`; the odd ones dial network 0, the even ones are dialed."""
    ends = [network(seed, data_path) for seed in range(1, count + 1)]
    by_peer = {end.peer_id.raw: end for end in ends}
    hub = Identity.from_seed(bytes(32)).peer_id
    pipe.send([end.peer_id.raw for end in ends[1::2]])
    while (message := await asyncio.to_thread(pipe.recv)) is not None:
        peer, offer = message
        pipe.send(await by_peer[peer].answer(offer))
    signaler = PipeSignaler(pipe)
    for end in ends[::2]:
        await end.dial(hub, signaler, timeout_s=OPEN_TIMEOUT_S)
    pipe.send(None)
    await asyncio.to_thread(pipe.recv)
    await asyncio.gather(*(end.close() for end in ends))


def run_others(pipe: Connection, count: int, data_path: str) -> None:
    asyncio.run(others(pipe, count, data_path))


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def hub(pipe: Connection, args: argparse.Namespace) -> dict[str, Any]:
    """Open all connections, then watch what they cost."""
    own = network(0, args.data_path)
    complete = asyncio.Event()
    own.add_listener(lambda _: complete.set() if len(own.peers()) >= args.connections else None, lambda *_: None)
    dialed = [PeerId(peer) for peer in await asyncio.to_thread(pipe.recv)]
    before, begun, cpu = resident_bytes(), time.monotonic(), time.process_time()
    signaler = PipeSignaler(pipe)
    for peer in dialed:
        await own.dial(peer, signaler, timeout_s=OPEN_TIMEOUT_S)
    pipe.send(None)
    while (message := await asyncio.to_thread(pipe.recv)) is not None:
        pipe.send(await own.answer(message[1]))
    async with asyncio.timeout(OPEN_TIMEOUT_S):
        await complete.wait()
    opened_s, opening_cpu_s = time.monotonic() - begun, time.process_time() - cpu
    await asyncio.sleep(SETTLE_S)
    grown, cpu, begun = resident_bytes() - before, time.process_time(), time.monotonic()
    await asyncio.sleep(args.seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - begun)
    alive = len(own.peers())
    pipe.send(None)
    await own.close()
    return {
        "bench": "connections",
        "data_path": args.data_path,
        "connections": args.connections,
        "still_open": alive,
        "memory_kb_each": round(grown / 1000 / args.connections, 1),
        "idle_cpu_percent_of_a_core_each": round(100 * share / args.connections, 4),
        "setup_ms_each": round(1e3 * opened_s / args.connections, 1),
        "setup_cpu_ms_each": round(1e3 * opening_cpu_s / args.connections, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long they are watched")
    parser.add_argument("--data-path", choices=("fast", "stock"), default="fast")
    args = parser.parse_args()
    if not 2 <= args.connections <= CONNECTIONS_MAX or args.seconds <= 0:
        parser.error(f"--connections takes 2 to {CONNECTIONS_MAX}, --seconds a positive number")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_others, args=(theirs, args.connections, args.data_path))
    process.start()
    theirs.close()
    try:
        facts = asyncio.run(hub(ours, args))
        process.join(timeout=30)
    except EOFError:
        sys.exit("bench connections: the process with the other ends is gone; what it said is above")
    finally:
        process.kill()
    if args.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name:32} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
