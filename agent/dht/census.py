"""A census: a bounded crawl over the overlay that counts live peers and records, and finds out whether it is in one piece.

    whom we know of --Ask--> a peer says, signed: so many records, these neighbours --> ask those that are new, and so on

A peer counts when it answered for itself; what others say of it only leads to it. Questions are routed (events.Route, kind KIND),
so the observer needs no connection to those that it asks. Peers are heard of, asked, and then either answered or silent, as in a
Kademlia query of libp2p's. Parts are components of the graph of reported neighbours, in which the observer itself has no
place: an overlay that only hangs together by the observer is in two parts. Peers that the caller *expects* (a site knows them by
their telemetry) are asked too, and are told apart in the report, for a part that nobody here has heard of shows in no graph.

    census = Census(CensusConfig(), expected=..., nonce=..., verify=...)
    effects = census.handle(Heard(peers), now)             # and so on with Answered and Silent; every Ask wants one of the two
    while not census.done: ...                             # census.tick(now) at census.next_deadline()
    census.report()
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.dht.core import Core
from agent.errors import ProtocolViolation
from agent.identity import PEER_ID_BYTES, SIGNATURE_BYTES, PeerId

KIND = "census"
PURPOSE = "census"
NONCE_BYTES = 16
NEIGHBOURS_MAX = 64
SAMPLED_KEYS_MAX = 256
SURVEY_BYTES_MAX = 4096
Count = Annotated[int, Meta(ge=0, le=2**32)]


class Survey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What one peer says of itself."""

    held: Count
    """Live records that it keeps."""
    own: Count
    """Of those, records of keys that nobody is closer to, the observer aside: over all peers, each record counts once."""
    neighbours: Annotated[
        list[Annotated[bytes, Meta(min_length=PEER_ID_BYTES, max_length=PEER_ID_BYTES)]], Meta(max_length=NEIGHBOURS_MAX)
    ]
    """The closest peers that it is connected to."""


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    survey: Annotated[bytes, Meta(max_length=SURVEY_BYTES_MAX)]
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


_decode_survey = msgspec.msgpack.Decoder(Survey).decode
_decode_signed = msgspec.msgpack.Decoder(_Signed).decode

Sign = Callable[[bytes], bytes]
Verify = Callable[[PeerId, bytes, bytes], bool]
"""(peer, message, signature): whether that peer signed it."""


def survey(core: Core, now: float, observer: PeerId) -> Survey:
    """Look at one node, as if the observer were not there. Of a large store a sample is enough: keys are hashes."""
    held = own = 0
    for key in list(islice(core.store.keys(), SAMPLED_KEYS_MAX)):
        count = len(core.store.get(key, now))
        held += count
        closest = next((c.peer for c in core.replica_set(core.space.decode(key)) if c.peer != observer), None)
        if count and closest == core.me.peer:
            own += count
    total = max(held, len(core.store)) if held else 0
    near = core.table.closest(core.me.key, NEIGHBOURS_MAX)
    return Survey(total, round(own * total / held) if held else 0, [c.peer.raw for c in near])


def answer(core: Core, now: float, observer: PeerId, nonce: bytes, sign: Sign) -> bytes:
    """The body of the answer to an Ask of `observer` with this nonce. Raises ProtocolViolation for one that is none."""
    if len(nonce) != NONCE_BYTES:
        raise ProtocolViolation(f"a census asks with {NONCE_BYTES} bytes, not {len(nonce)}")
    said = msgspec.msgpack.encode(survey(core, now, observer))
    return msgspec.msgpack.encode(_Signed(said, sign(nonce + said)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CensusConfig:
    """How far a census goes."""

    peers_max: int = 20_000
    """Peers heard of; further ones are counted as left out."""
    named_max: int = 2 * NEIGHBOURS_MAX
    """Peers that the word of one peer adds: a liar cannot fill the census with inventions."""
    asks_max: int = 32
    """Questions under way."""
    tries_max: int = 2
    """Before a peer counts as silent."""
    budget_s: float = 60.0
    """After this long it ends with what it has."""

    def __post_init__(self) -> None:
        if min(self.peers_max, self.named_max, self.asks_max, self.tries_max) < 1 or not self.budget_s > 0:
            raise ValueError(f"unusable limits of a census: {self}")


@dataclass(frozen=True, slots=True)
class Heard:
    """Peers to begin with."""

    peers: Sequence[PeerId]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back for an Ask, unverified."""

    peer: PeerId
    body: bytes


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing came back for an Ask."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Ask:
    """Route `nonce` to `peer` (kind KIND); then Answered or Silent."""

    peer: PeerId
    nonce: bytes


Event = Heard | Answered | Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusReport:
    """What a census found."""

    peers: int
    """That answered, the observer not counted."""
    silent: int
    """That somebody named, and that did not answer: most have left."""
    missing: int
    """Expected ones among the silent: they are somewhere, and this overlay does not reach them."""
    records: int
    """Different ones."""
    replicas: float
    """Copies per record; 0 without records."""
    parts: tuple[int, ...]
    """Sizes of the groups of peers that no reported connection joins, largest first."""
    complete: bool
    """Every peer heard of was asked. False: a limit or the time ended it, and the numbers are lower bounds."""
    asked: int
    seconds: float


class Census:
    """The machine. `peer` is the observer's own, which is neither asked nor counted."""

    def __init__(
        self, peer: PeerId, config: CensusConfig, *, expected: Sequence[PeerId] = (), nonce: bytes, verify: Verify
    ) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        self._me = peer
        self._config = config
        self._nonce = nonce
        self._verify = verify
        self._expected = frozenset(expected) - {peer}
        self._waiting: deque[PeerId] = deque()
        self._tries: Counter[PeerId] = Counter()  # peers heard of that were asked
        self._heard: set[PeerId] = {peer}
        self._open: set[PeerId] = set()
        self._answers: dict[PeerId, Survey] = {}
        self._left_out = 0
        self._asked = 0
        self._began = self._now = 0.0
        self._ends_at: float | None = None
        self.done = False

    def handle(self, event: Event, now: float) -> list[Ask]:
        """Take one event. What a peer says that is no answer, or not signed by it, counts as silence."""
        if self._ends_at is None:
            self._began, self._ends_at = now, now + self._config.budget_s
            self._hear(self._expected, len(self._expected))
        match event:
            case Heard(peers):
                self._hear(peers, self._config.peers_max)
            case Answered(peer, body) if peer in self._open:
                self._open.discard(peer)
                self._answered(peer, body)
            case Silent(peer) if peer in self._open:
                self._open.discard(peer)
                self._again(peer)
        return self.tick(now)

    def tick(self, now: float) -> list[Ask]:
        self._now = max(self._now, now)
        if self.done or self._ends_at is None:
            return []
        asks: list[Ask] = []
        if self._now < self._ends_at:
            while self._waiting and len(self._open) < self._config.asks_max:
                peer = self._waiting.popleft()
                self._tries[peer] += 1
                self._open.add(peer)
                self._asked += 1
                asks.append(Ask(peer, self._nonce))
        self.done = self._now >= self._ends_at or not (self._open or self._waiting)
        return asks

    def next_deadline(self) -> float | None:
        """When the time is up."""
        return None if self.done else self._ends_at

    def report(self) -> CensusReport:
        """What is known by now."""
        held = sum(said.held for said in self._answers.values())
        own = sum(said.own for said in self._answers.values())
        links = {peer: [PeerId(raw) for raw in said.neighbours] for peer, said in self._answers.items()}
        unasked = len(self._waiting) + len(self._open)
        return CensusReport(
            peers=len(self._answers),
            silent=len(self._heard) - 1 - len(self._answers) - unasked,
            missing=len([peer for peer in self._expected if peer not in self._answers]),
            records=own,
            replicas=round(held / own, 2) if own else 0.0,
            parts=tuple(len(part) for part in parts(links)),
            complete=not unasked and not self._left_out,
            asked=self._asked,
            seconds=self._now - self._began,
        )

    def _hear(self, peers: Iterable[PeerId], most: int) -> None:
        for peer in peers:
            if peer in self._heard:
                continue
            if most <= 0 or len(self._heard) > self._config.peers_max:
                self._left_out += 1
                continue
            most -= 1
            self._heard.add(peer)
            self._waiting.append(peer)

    def _answered(self, peer: PeerId, body: bytes) -> None:
        try:
            signed = _decode_signed(body)
            said = _decode_survey(signed.survey)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._again(peer)
        if not self._verify(peer, self._nonce + signed.survey, signed.signature):
            return self._again(peer)
        self._answers[peer] = said
        self._hear((PeerId(raw) for raw in said.neighbours), self._config.named_max)

    def _again(self, peer: PeerId) -> None:
        """Ask later once more: the way there may have broken. Last of all, so that the others need not wait."""
        if self._tries[peer] < self._config.tries_max:
            self._waiting.append(peer)


def parts(links: Mapping[PeerId, Iterable[PeerId]]) -> list[set[PeerId]]:
    """Groups of peers that reach each other over the named links (either end's word is enough), largest first."""
    near: dict[PeerId, set[PeerId]] = {peer: set() for peer in links}
    for peer, others in links.items():
        for other in others:
            if other in near:
                near[peer].add(other)
                near[other].add(peer)
    groups: list[set[PeerId]] = []
    unseen = dict.fromkeys(links)
    while unseen:
        front = [next(iter(unseen))]
        del unseen[front[0]]
        group = set(front)
        while front:
            for other in near[front.pop()]:
                if other in unseen:
                    del unseen[other]
                    group.add(other)
                    front.append(other)
        groups.append(group)
    return sorted(groups, key=lambda group: (-len(group), min(group)))
