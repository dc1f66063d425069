"""How dense peers are in the key space, as this node's neighbours tell.

Each node knows how far its own siblings reach. That estimate comes from eight peers and is off by a third, often by more, so
every answer carries its sender's. The median of what neighbours outside our own surroundings have told lately is off by a tenth,
and while fewer than half of them lie it lies among the honest ones' (compare the routing failure test of Castro et al., Secure
routing for structured peer-to-peer overlay networks, 2002, section 4.2, which knows only the node's own).
"""

from __future__ import annotations

import math
from statistics import median_low

from agent.dht.routing_table import FAR, Neighbour, RoutingTable

STEPS = 16  # in which a factor of two is told
TOLD_S = 300.0  # how long what a neighbour told counts
TELLERS_MIN = 7  # neighbours, not counting siblings, that must have told something


def told(table: RoutingTable) -> int:
    """What we tell of our reach: `STEPS` times its binary logarithm; 0 if our siblings are too few to know."""
    reach = table.reach()
    return round(STEPS * math.log2(reach)) if 1 < reach < FAR else 0


def hear(neighbour: Neighbour, told: int, now: float) -> None:
    """Note what a neighbour tells of its reach."""
    if told:
        neighbour.reach, neighbour.reach_at = told, now


def usual_reach(table: RoutingTable, now: float) -> tuple[int, bool]:
    """How far siblings reach in most of the key space, as a distance between keys, and whether enough neighbours from outside
    our surroundings have told. If not, it is the median of what all have told, ourselves included: a small overlay is all
    surroundings."""
    siblings = {contact.peer for contact in table.siblings()}
    since = now - TOLD_S
    heard = [(peer in siblings, n.reach) for peer, n in table.connected.items() if n.reach and n.reach_at > since]
    outside = [reach for is_sibling, reach in heard if not is_sibling]
    if len(outside) >= TELLERS_MIN:
        return _distance(median_low(outside)), True
    own = told(table)
    if not own:
        return table.reach(), False
    return _distance(median_low([own, *(reach for _, reach in heard)])), False


def _distance(told: int) -> int:
    whole, part = divmod(told, STEPS)
    return (1 << whole) * round(2 ** (part / STEPS) * 1024) >> 10
