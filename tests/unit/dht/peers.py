"""Peers with chosen 8-bit keys, so that a test shows the geometry."""

from __future__ import annotations

from agent.dht.keys import Contact, KeySpace
from agent.identity import PeerId

SPACE = KeySpace(8)


def _by_key() -> dict[int, PeerId]:
    found: dict[int, PeerId] = {}
    n = 0
    while len(found) < 256:
        peer = PeerId(n.to_bytes(32, "big"))
        found.setdefault(SPACE.contact(peer).key, peer)
        n += 1
    return found


BY_KEY = _by_key()


def at(key: int) -> Contact:
    """The contact whose key is `key`."""
    return SPACE.contact(BY_KEY[key])
