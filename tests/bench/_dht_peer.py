"""One peer of the DHT's benchmark, a process of its own: commands come in and measurements go out as JSON lines.

python -m tests.bench._dht_peer SEED [CONTACT...]     each CONTACT a bootstrap address; ends when its input does
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from typing import Any

from agent.experts.records import Lease, PrefixHint, encode, read_lease
from agent.grid import ExpertId
from agent.identity import Identity
from agent.net.bootstrap import BootstrapServer, BootstrapSignaler
from agent.net.ice import IceConfig
from agent.net.network import Network
from agent.net.overlay import Entry, Overlay
from agent.net.webrtc import WebRtcConfig, WebRtcTransport

EXPERIMENT = "bench-dht"
TTL_S = 300.0


def batches(uids: list[str], size: int) -> list[list[ExpertId]]:
    experts = [ExpertId.parse(uid) for uid in uids]
    return [experts[n : n + size] for n in range(0, len(experts), size)]


def entries(overlay: Overlay, experts: list[ExpertId]) -> list[Entry]:
    """What the custodian publishes for experts that it has claimed: a lease each, and what leads to it."""
    me = overlay.peer_id.raw
    leases = [Entry(name=str(uid), value=encode(Lease(str(uid), me, 1, 0)), ttl_s=TTL_S) for uid in experts]
    hints = {place: uid for uid in experts for place in uid.prefixes}
    return leases + [
        Entry(name=name, subkey=str(coordinate), value=encode(PrefixHint(str(uid))), ttl_s=TTL_S)
        for (name, coordinate), uid in hints.items()
    ]


async def obey(overlay: Overlay, command: dict[str, Any]) -> dict[str, Any]:
    """Do it and say how long each step took, in seconds, and how many experts it was done for."""
    times: list[float] = []
    done = 0
    for experts in batches(command["uids"], command["batch"]):
        began = time.perf_counter()
        if command["do"] == "store":
            counts = await overlay.put_many(entries(overlay, experts))
            times.append(time.perf_counter() - began)
            done += sum(count > 0 for count in counts[: len(experts)])
        else:
            found = await overlay.get_many([str(uid) for uid in experts], eager=command["eager"])
            times.append(time.perf_counter() - began)
            done += sum(1 for uid in experts if any(read_lease(r, uid).uid == str(uid) for r in found.get(str(uid), ())))
    return {"times": times, "done": done}


async def main(seed: int, contacts: list[str]) -> None:
    began = time.perf_counter()
    identity = Identity.from_seed(seed.to_bytes(32, "big"))
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path="fast"))  # what agents use by default
    network = Network(identity=identity, experiment=EXPERIMENT, transport=transport)
    overlay = Overlay(network, identity, experiment=EXPERIMENT, rng=random.Random(seed))
    server = BootstrapServer(network, "127.0.0.1", 0)
    await server.start()
    signalers = [BootstrapSignaler(address) for address in contacts]
    await overlay.join([(signaler.peer, signaler) for signaler in signalers])
    joined_s = time.perf_counter() - began
    say({"address": f"ws://127.0.0.1:{server.port}/{identity.peer_id}", "joined_s": joined_s})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        say(await obey(overlay, json.loads(line)))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    say({"cpu_s": usage.ru_utime + usage.ru_stime, "rss_mb": usage.ru_maxrss / 1024, "links": len(network.peers())})
    await overlay.close()
    await server.close()
    await network.close()


def say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
