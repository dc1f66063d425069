"""One search of the overlay under way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.dht.core import Timer
from agent.dht.evidence import Evidence
from agent.dht.messages import Item, Kind
from agent.dht.records import Record
from agent.errors import HiveError
from agent.identity import PeerId


class Search:
    """At most ITEMS_MAX items of one operation, with one token. Its answers gather in `found`:
    by index, `{(subkey, owner): Record}` (GET, READ), `{peer id bytes: the neighbour that its path began with, if it was chosen}`
    (FIND) or the answer's bytes (SEND)."""

    __slots__ = (
        "answered", "attempt_s", "deadline", "done", "ending", "error", "evidence", "found", "hedging",
        "items", "kind", "lost_way", "offset", "on_done", "open", "paths", "retry", "starting", "starts",
        "timers", "token", "useful",
    )  # fmt: skip

    def __init__(self, kind: Kind, token: bytes, items: list[Item], deadline: float, on_done: Callable[[Search], None]) -> None:
        self.kind = kind
        self.token = token
        self.items = {item.index: item for item in items}
        self.deadline = deadline
        self.on_done = on_done
        self.found: dict[int, dict[tuple[str, PeerId], Record] | dict[bytes, PeerId | None] | bytes] = {}
        self.starts: Sequence[PeerId | None] = ()  # the neighbours that the first paths begin with; None: whoever is closest
        self.evidence: Evidence | None = None  # READ, PUT
        self.hedging = False  # READ, PUT: another path is about to be tried, because some have answered and some have not
        self.answered: set[int] = set()  # items that enough paths have answered for
        self.useful: set[int] = set()  # items with an answer that is not empty
        self.lost_way: set[int] = (
            set()
        )  # items for which a path ended far from the key; what it brought counts if nothing else comes
        self.open: dict[int, set[int]] = {}  # path -> items that it has not answered
        self.paths = 0
        self.offset = 0  # READ, PUT: at which holder the second path ends, so that doing it again is not doing the same again
        self.error: HiveError | None = None  # SEND: what the last answer that was no success said
        self.starting = True  # its first paths are being sent; answers of this node itself come in the midst of that
        self.ending = False
        self.done = False
        self.attempt_s = 0.0
        self.retry: Timer | None = None  # when it tries a further path
        self.timers: list[Timer] = []  # its deadline, and its end if that is near
