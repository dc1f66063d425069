"""Offers and answers: connection descriptions that are signed by their sender and sealed for their receiver.

Whatever carries them (a bootstrap peer, the rendezvous, other peers) can neither read nor alter nor redirect them, and
learns only who wants to reach whom. An answer belongs to one offer, and an offer is good once, for two minutes. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.errors import RemoteError
from agent.identity import Identity, PeerId
from agent.net.transport import DESCRIPTION_BYTES_MAX

SEALED_BYTES_MAX = 4096
"""Every signaling path carries at least this much."""
EXCHANGE_BYTES = 16
AGE_MAX_S = 120.0
"""How old an offer or answer may be, and how far in the future: clocks of volunteers are not exact."""
REPLAYS_MAX = 8192
"""Exchanges remembered. Past it the oldest is forgotten; replaying it would only waste an answer, not open a link."""

_Key = Annotated[bytes, Meta(min_length=32, max_length=32)]


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    sender: _Key
    receiver: _Key
    experiment: Annotated[str, Meta(max_length=63)]
    exchange: Annotated[bytes, Meta(min_length=EXCHANGE_BYTES, max_length=EXCHANGE_BYTES)]
    at: float
    description: Annotated[bytes, Meta(max_length=DESCRIPTION_BYTES_MAX)]


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


_SIGNED = msgspec.msgpack.Decoder(_Signed)
_BODY = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True)
class Offer:
    """A verified offer, or our own. `at` is Unix time on the offerer's clock."""

    peer: PeerId
    exchange: bytes
    at: float
    description: bytes

    @property
    def age_key(self) -> tuple[float, bytes]:
        """Orders offers between the same two peers in the same way on both sides: the newer is greater."""
        return self.at, self.exchange


class OfferBook:
    """Makes and checks offers and answers of one peer in one experiment. `now` is Unix time, seconds."""

    def __init__(self, identity: Identity, experiment: str) -> None:
        self.peer_id = identity.peer_id
        self._identity = identity
        self._experiment = experiment
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def make_offer(self, peer: PeerId, description: bytes, *, exchange: bytes, now: float) -> tuple[Offer, bytes]:
        """The offer and its sealed form. `exchange` is 16 fresh random bytes. ValueError if `peer` cannot be sealed for."""
        sealed = self._seal("offer", peer, description, exchange, now)
        return Offer(peer, exchange, now, description), sealed

    def open_offer(self, sealed: bytes, *, now: float) -> Offer:
        """Check an offer that came for us. Raises RemoteError with a sentence for the one who sent it."""
        body = self._open("offer", sealed, now)
        for exchange, at in list(self._seen.items()):
            if at >= now and len(self._seen) < REPLAYS_MAX:
                break
            del self._seen[exchange]
        if body.exchange in self._seen:
            raise RemoteError("this offer was used before")
        self._seen[body.exchange] = now + 2 * AGE_MAX_S
        return Offer(PeerId(body.sender), body.exchange, body.at, body.description)

    def make_answer(self, offer: Offer, description: bytes, *, now: float) -> bytes:
        """The sealed answer to an offer. An empty description says: we are connected already, or about to be, without it."""
        return self._seal("answer", offer.peer, description, offer.exchange, now)

    def open_answer(self, sealed: bytes, offer: Offer, *, now: float) -> bytes:
        """The description in the answer to our `offer`. Raises RemoteError."""
        body = self._open("answer", sealed, now)
        if body.sender != offer.peer.raw or body.exchange != offer.exchange:
            raise RemoteError("an answer came from another peer, or to another offer")
        return body.description

    def _seal(self, purpose: str, peer: PeerId, description: bytes, exchange: bytes, now: float) -> bytes:
        if len(exchange) != EXCHANGE_BYTES or len(description) > DESCRIPTION_BYTES_MAX:
            raise ValueError("an exchange id has 16 bytes, and a description at most 2 KiB")
        body = msgspec.msgpack.encode(_Body(self._identity.peer_id.raw, peer.raw, self._experiment, exchange, now, description))
        return peer.seal(msgspec.msgpack.encode(_Signed(body, self._identity.sign(purpose, body))))

    def _open(self, purpose: str, sealed: bytes, now: float) -> _Body:
        if len(sealed) > SEALED_BYTES_MAX:
            raise RemoteError(f"an {purpose} of {len(sealed)} bytes is too large")
        try:
            signed = _SIGNED.decode(self._identity.unseal(sealed))
            body = _BODY.decode(signed.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise RemoteError(f"the {purpose} is not valid: {e}") from None
        if not PeerId(body.sender).verify(purpose, signed.body, signed.signature):
            raise RemoteError(f"the {purpose} was not signed by the peer that it names")
        if body.receiver != self._identity.peer_id.raw or body.sender == self._identity.peer_id.raw:
            raise RemoteError(f"the {purpose} is for another peer")
        if body.experiment != self._experiment:
            raise RemoteError(f"the {purpose} is for the experiment {body.experiment!r}; this peer is in {self._experiment!r}")
        if not abs(now - body.at) <= AGE_MAX_S:
            raise RemoteError(
                f"the {purpose} was made {now - body.at:.0f} s ago by this peer's clock; at most {AGE_MAX_S:.0f} s are allowed. "
                "Check that the clocks of both machines are right."
            )
        return body
