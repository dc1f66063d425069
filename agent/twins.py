"""Two agents with one key, such as a state directory that was copied to a second machine: seen, and ended for the younger one.

They undo each other's work: peers keep one connection to each key, and leases are held by keys. Each also takes the other's
place at the rendezvous, and the coordinator tells whoever loses it; whoever has just come and loses it is the copy.
"""

from __future__ import annotations

from agent.errors import IdentityError
from agent.identity import PeerId

YOUNG_S = 10.0
"""Who first loses its place so soon after it began is taken for the copy: the other one comes back within a second or two."""
TIMES_YOUNG, TIMES_OLD = 2, 10
"""How often an agent loses its place until it ends. An old one waits for the copy to end; of two old ones one must end too."""


class Twins:
    """Judges how often this agent has lost its place to another one of its own key. No I/O, no clock."""

    def __init__(self, peer: PeerId, *, began: float) -> None:
        """`began`: when this agent began, seconds of any clock."""
        self._peer = peer
        self._began = began
        self._limit = 0

    def judge(self, times: int, now: float) -> str:
        """`times`: how often it has lost its place since it began. Returns what to warn of, once; otherwise an empty string.

        Raises IdentityError if this is the agent that should not run.
        """
        if not times:
            return ""
        news = not self._limit
        if news:
            self._limit = TIMES_YOUNG if now - self._began < YOUNG_S else TIMES_OLD
        said = f"another agent runs with this one's key (peer {self._peer.short}), and the two undo each other's work"
        if times >= self._limit:
            raise IdentityError(f"{said}. Each machine needs a key of its own: start this one with another --state-dir.")
        return f"{said}; stop it, or start it with another --state-dir" if news else ""
