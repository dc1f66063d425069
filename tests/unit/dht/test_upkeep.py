"""Whom a node dials again, and when."""

from __future__ import annotations

import itertools

from agent.dht import events
from agent.dht.config import DhtConfig
from agent.dht.messages import NearPeers
from tests.unit.dht.peers import at
from tests.unit.dht.world import Played

NEAR = 5


def dials(played: Played, key: int, seconds: int) -> list[float]:
    """When that peer is dialed in so many seconds, each dial failing at once; from now on."""
    found, began = [], played.now
    for _ in range(10 * seconds):
        if events.Connect(at(key).peer) in played.effects:
            found.append(played.now - began)
            played.effects.clear()
            played.handle(events.ConnectFailed(at(key).peer))
        played.passes(0.1)
    return found


def settled() -> Played:
    """A node with four siblings, 64 to 67, that has long found its place: it looks around once a minute."""
    me = Played(0, 64, 65, 66, 67, 128, 129)
    me.passes(600)
    me.effects.clear()
    return me


def test_a_sibling_whose_dial_failed_is_dialed_again_soon_and_then_more_rarely() -> None:
    me = settled()
    me.receive(64, NearPeers([at(NEAR).peer.raw], 0))
    found = dials(me, NEAR, 150)
    gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
    first_s = DhtConfig().sibling_retry_s
    assert found[0] == 0
    for number, gap in enumerate(gaps[:3]):
        assert gap <= 1.25 * first_s * 2**number + 0.2, gaps
    assert 4 <= len(found) <= 6, "forgotten after some"


def test_one_that_answers_meanwhile_is_not_dialed_again() -> None:
    me = settled()
    me.receive(64, NearPeers([at(NEAR).peer.raw], 0))
    me.effects.clear()
    me.handle(events.ConnectFailed(at(NEAR).peer))
    me.handle(events.PeerOpened(at(NEAR).peer))
    assert dials(me, NEAR, 60) == []
