"""What is true of a whole overlay: facts that no peer knows, against which its answers are judged."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest

from agent.identity import PeerId
from tests.sim.engine.world import World

OPERATIONS_AT_REST = 8  # upkeep's own searches


class Ring:
    """The live peers in order of their keys, so that the closest to a key are found in about a microsecond per peer."""

    def __init__(self, world: World, peers: Iterable[PeerId] | None = None) -> None:
        self._bits = world.space.bits
        self._sorted = sorted((world.space.contact(p).key, p) for p in (world.alive() if peers is None else peers))
        self._keys = [key for key, _ in self._sorted]

    def closest(self, key: int, n: int) -> list[PeerId]:
        """The `n` closest by XOR: the smallest prefix of the key that holds at least n of them, sorted."""
        low, high, width = 0, len(self._keys), 0
        for width in range(self._bits, -1, -1):  # how many low bits may differ
            base = key >> width << width
            low_next, high_next = bisect_left(self._keys, base), bisect_left(self._keys, base + (1 << width))
            if high_next - low_next < n:
                break
            low, high = low_next, high_next
        return [p for _, p in nsmallest(n, self._sorted[low:high], key=lambda entry: entry[0] ^ key)]


def strangers(world: World, n: int) -> int:
    """How many live peers lack a link to one of the `n` live peers closest to them."""
    ring = Ring(world)
    count = 0
    for peer in world.alive():
        nearest = [p for p in ring.closest(world.space.contact(peer).key, n + 1) if p != peer][:n]
        count += any(p not in world.peers[peer].links for p in nearest)
    return count


def components(world: World) -> list[int]:
    """Sizes of the connected parts of the graph of links, largest first."""
    waiting, sizes = set(world.alive()), []
    while waiting:
        front = [waiting.pop()]
        size = 0
        while front:
            size += 1
            near = [p for p in world.peers[front.pop()].links if p in waiting]
            waiting.difference_update(near)
            front += near
        sizes.append(size)
    return sorted(sizes, reverse=True)


def leftovers(world: World) -> dict[str, int]:
    """What live nodes still wait for or remember. In an overlay at rest there is none of it, short of what is under way now."""
    found: Counter[str] = Counter()
    for peer in world.peers.values():
        if peer.alive:
            node = peer.node
            found["requests"] += sum(f.leg.deadline < world.now - 1.0 for f in node._router._forwards.values())
            found["quotas"] += sum(n > len(node._router._forwards) for n in node._router._per_source.values())
            found["operations"] += node._operations.running > OPERATIONS_AT_REST
            found["writes"] += len(node._replication._calls) > OPERATIONS_AT_REST
            found["dials"] += sum(until < world.now for until in node._upkeep._dials.values())
            found["strange_suspects"] += sum(p not in node.core.table.connected for p in node.core.suspects)
            found["strange_links"] += sum(p not in peer.links for p in node.core.table.connected)
            found["unknown_links"] += sum(p not in node.core.table.connected for p in peer.links)
            found["one_ended_links"] += sum(peer.peer not in world.peers[p].links for p in peer.links)
    return {name: n for name, n in sorted(found.items()) if n}


def resident_bytes() -> int:
    """Memory that this process holds; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
