"""The observer role: a peer that joins an overlay over WebRTC, takes a census, and leaves. It trains nothing and hosts nothing.

    python -m agent.observer < ASSIGNMENT > FINDING        both JSON (agent/observation.py)

A process of its own, so that whoever wants a census (the coordinator's Celery task) shares neither its event loop nor its faults
with it. While it is there it is a peer like any other: it passes on requests and may be given records to keep.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec

from agent.admission import Rule
from agent.dht.census import CensusConfig
from agent.errors import ConfigError, HiveError, JoinError
from agent.identity import Identity, KeyFile, PeerId
from agent.net.bootstrap import BootstrapSignaler
from agent.net.census import take
from agent.net.ice import IceConfig
from agent.net.network import Network, NetworkConfig
from agent.net.overlay import Overlay
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from agent.observation import Assignment, Finding

INPUT_BYTES_MAX = 1 << 20
JOIN_S = 30.0


async def observe(assignment: Assignment, identity: Identity) -> Finding:
    """Join, count, leave. Raises HiveError if the overlay cannot be joined."""
    rule = Rule(experiment=assignment.experiment, policy=assignment.policy, key=PeerId.parse(assignment.coordinator_key))
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(servers=assignment.ice_servers)))
    config = NetworkConfig(admission=assignment.certificate, rule=rule)
    network = Network(identity=identity, experiment=assignment.experiment, transport=transport, config=config)
    overlay = Overlay(network, identity, experiment=assignment.experiment, rng=random.Random())
    try:
        signalers = [BootstrapSignaler(address) for address in assignment.contacts]
        try:
            async with asyncio.timeout(JOIN_S):
                await overlay.join([(signaler.peer, signaler) for signaler in signalers])
        except TimeoutError:
            raise JoinError(f"no peer let the observer in within {JOIN_S:.0f} s") from None
        expected = [PeerId.parse(peer) for peer in assignment.expected]
        report = await take(overlay, expected=expected, config=CensusConfig(budget_s=assignment.budget_s))
    finally:
        await overlay.close()
        await network.close()
        await transport.close()
    return Finding(**asdict(report))


def run(text: bytes) -> Finding:
    """One assignment, from its JSON; whatever fails is said in the finding."""
    try:
        if len(text) > INPUT_BYTES_MAX:
            raise ConfigError(f"an assignment has at most {INPUT_BYTES_MAX} bytes")
        assignment = msgspec.json.decode(text, type=Assignment)
        key = KeyFile(Path(assignment.key_file))
        identity = key.open()
        try:
            return asyncio.run(observe(assignment, identity))
        finally:
            key.close()
    except (msgspec.DecodeError, RecursionError) as e:
        return Finding(error=f"not an assignment: {e}"[:300])
    except HiveError as e:
        return Finding(error=str(e)[:300])


def main() -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    finding = run(sys.stdin.buffer.read(INPUT_BYTES_MAX + 1))
    sys.stdout.buffer.write(msgspec.json.encode(finding) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
