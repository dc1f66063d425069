"""Whose turn it is to claim a vacant expert: the same answer at every host that sees the same leases and hosts. Pure functions.

Rendezvous hashing (Thaler, Ravishankar 1998) with bounded loads: each expert goes to the host with the lowest hash of
(host, expert) among those that hold less than their fair share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.experts.records import affinity
from agent.grid import ExpertId


@dataclass(frozen=True, slots=True)
class Seat:
    """What one host can hold, and holds."""

    capacity: int
    load: int


def fair_share(total: int, capacities: Iterable[int]) -> int:
    """The lowest level at which hosts that hold no more each hold all `total` experts; the largest capacity if they cannot."""
    left, level = total, 0
    ordered = sorted(capacities)
    for i, capacity in enumerate(ordered):
        hosts = len(ordered) - i
        if left <= hosts * (capacity - level):
            return level + -(-left // hosts)
        left -= hosts * (capacity - level)
        level = capacity
    return level


def turns(vacant: Sequence[ExpertId], seats: Mapping[bytes, Seat], share: int) -> dict[ExpertId, list[bytes]]:
    """For each vacant expert the hosts that should claim it, in turn: the first at once, the next if nobody did, and so on.

    Hosts below `share` come first, each time in order of affinity; full hosts never. First turns count as load for the experts
    that follow, so that no host has more first turns than room.
    """
    loads = {host: seat.load for host, seat in seats.items()}
    result: dict[ExpertId, list[bytes]] = {}
    for uid in sorted(vacant):
        name = str(uid)
        with_room = sorted(
            (host for host, seat in seats.items() if loads[host] < seat.capacity), key=lambda host: affinity(host, name)
        )
        order = [h for h in with_room if loads[h] < share] + [h for h in with_room if loads[h] >= share]
        if order:
            loads[order[0]] += 1
        result[uid] = order
    return result
