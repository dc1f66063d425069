"""One end of hivemind's libp2p, for `_pair.py`: runs in hivemind's own virtual environment, and imports nothing of Hive.

Same lines on standard input and output as `_end.py`. Bulk is unary calls of 1 MB whose reply is empty, four at a time; control
is a small unary call. CPU is that of the Python process and of its daemon, p2pd.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hivemind.p2p import P2P, PeerID
from hivemind.proto.runtime_pb2 import ExpertRequest, ExpertResponse, Tensor
from hivemind.utils.multiaddr import Multiaddr

CALL_BYTES = 1_000_000
IN_FLIGHT = 4
PING_EVERY_S = 0.01
SAMPLE_S = 0.05
SETTLE_S = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(daemon: int) -> float:
    fields = Path(f"/proc/{daemon}/stat").read_text().rsplit(")", 1)[1].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / _TICKS


class Samples:
    """As in `_end.py`."""

    def __init__(self, daemon: int) -> None:
        self.rows: list[tuple[float, int, float]] = []
        self._daemon = daemon

    def note(self, count: int) -> None:
        now = time.monotonic()
        if not self.rows or now >= self.rows[-1][0] + SAMPLE_S:
            self.rows.append((now, count, cpu_s(self._daemon)))


def say(line: bytes) -> None:
    print(base64.b64encode(line).decode(), flush=True)


async def hear() -> bytes:
    return base64.b64decode(await asyncio.to_thread(sys.stdin.readline))


async def receive(address: str) -> None:
    p2p = await P2P.create(host_maddrs=[Multiaddr(f"/ip4/{address}/tcp/0")], auto_nat=False)
    samples, got = Samples(p2p._child.pid), 0

    async def take(request: ExpertRequest, context: Any) -> ExpertResponse:
        nonlocal got
        if request.tensors:
            got += len(request.tensors[0].buffer)
            samples.note(got)
        return ExpertResponse()

    await p2p.add_protobuf_handler("take", take, ExpertRequest)
    say(json.dumps([str(a) for a in await p2p.get_visible_maddrs()]).encode())
    await hear()
    await asyncio.to_thread(sys.stdin.readline)  # the sender is done
    print(json.dumps({"samples": samples.rows}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await p2p.shutdown()


async def send(seconds: float) -> None:
    addresses = [Multiaddr(text) for text in json.loads(await hear())]
    p2p = await P2P.create(initial_peers=addresses, auto_nat=False)
    peer = PeerID.from_base58(addresses[0]["p2p"])
    say(b"coming")
    bulk = ExpertRequest(uid="x", tensors=[Tensor(buffer=os.urandom(CALL_BYTES))])
    small = ExpertRequest(uid="x")
    samples, done, round_trips = Samples(p2p._child.pid), 0, []

    async def call(request: ExpertRequest) -> None:
        await p2p.call_protobuf_handler(peer, "take", request, ExpertResponse)

    await call(small)
    await asyncio.sleep(SETTLE_S)
    until = time.monotonic() + seconds

    async def pour() -> None:
        nonlocal done
        while time.monotonic() < until:
            await call(bulk)
            done += CALL_BYTES
            samples.note(done)

    async def ping() -> None:
        begun = time.monotonic()
        await call(small)
        round_trips.append((begun, time.monotonic() - begun))

    async def pings() -> None:
        tasks = []
        while time.monotonic() < until:
            tasks.append(asyncio.ensure_future(ping()))
            await asyncio.sleep(PING_EVERY_S)
        await asyncio.wait(tasks)

    await asyncio.gather(pings(), *(pour() for _ in range(IN_FLIGHT)))
    print(json.dumps({"samples": samples.rows, "round_trips": round_trips}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await p2p.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("hivemind",))
    parser.add_argument("--role", choices=("sender", "receiver"), required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--address", default="127.0.0.1", help="of the receiver")
    args = parser.parse_args()
    asyncio.run(receive(args.address) if args.role == "receiver" else send(args.seconds))


if __name__ == "__main__":
    main()
