"""One overlay peer as a process of its own, for test_overlay_processes: commands come in and answers go out as JSON lines.

python overlay_agent.py SEED [CONTACT...]     each CONTACT a bootstrap address
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

from agent.errors import HiveError
from agent.identity import Identity
from agent.net.bootstrap import BootstrapServer, BootstrapSignaler
from agent.net.ice import IceConfig
from agent.net.network import Network
from agent.net.overlay import Overlay
from agent.net.webrtc import WebRtcConfig, WebRtcTransport


async def obey(overlay: Overlay, network: Network, command: dict[str, Any]) -> Any:
    match command:
        case {"do": "put", "name": name, "value": value}:
            return await overlay.put(name, value.encode(), ttl_s=600)
        case {"do": "get", "name": name}:
            return [r.value.decode() for r in await overlay.get(name)]
        case {"do": "peers"}:
            return [str(peer) for peer in network.peers()]
    raise ValueError(command)


async def main(seed: int, contacts: list[str]) -> None:
    identity = Identity.from_seed(bytes([seed]) * 32)
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always")))
    network = Network(identity=identity, experiment="test", transport=transport)
    overlay = Overlay(network, identity, experiment="test", rng=random.Random(seed))
    server = BootstrapServer(network, "127.0.0.1", 0)
    await server.start()
    signalers = [BootstrapSignaler(address) for address in contacts]
    start = time.monotonic()
    await overlay.join([(signaler.peer, signaler) for signaler in signalers])
    address = f"ws://127.0.0.1:{server.port}/{identity.peer_id}"
    print(json.dumps({"address": address, "id": str(identity.peer_id), "seconds": time.monotonic() - start}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        start = time.monotonic()
        try:
            result = await obey(overlay, network, json.loads(line))
        except HiveError as e:
            result = {"error": type(e).__name__}
        print(json.dumps({"result": result, "seconds": time.monotonic() - start}), flush=True)
    await overlay.close()
    await server.close()
    await network.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
