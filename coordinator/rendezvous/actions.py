"""Who waits, and where bootstrap peers are."""

from __future__ import annotations

import random
from collections.abc import Iterable
from urllib.parse import urlsplit

from django.db.models import Exists, OuterRef, Q

from coordinator.experiments.models import Experiment
from coordinator.rendezvous.models import BootstrapAddress, WaitingPeer
from coordinator.telemetry.models import Session

WAITING_STALE_S = 90.0
"""A waiting peer that was not renewed for this long is forgotten: its process died."""
RENEW_S = 25.0
LIST_PEERS_MAX = 32
ADDRESS_LIVE_S = 90.0
ADDRESS_KEPT_S = 3600.0
ADDRESSES_MAX = 64
ADDRESS_CHARS_MAX = 300
SILENT_S = 15.0


def wait(experiment: Experiment, peer: str, channel: str, now: float) -> str | None:
    """Note that `peer` waits behind `channel`. Returns the channel that it waited behind before, if another."""
    former = WaitingPeer.objects.filter(experiment=experiment, peer=peer).values_list("channel", flat=True).first()
    WaitingPeer.objects.update_or_create(experiment=experiment, peer=peer, defaults={"channel": channel, "seen_at": now})
    return former if former != channel else None


def renew(experiment: Experiment, peer: str, channel: str, now: float) -> None:
    WaitingPeer.objects.filter(experiment=experiment, peer=peer, channel=channel).update(seen_at=now)
    BootstrapAddress.objects.filter(experiment=experiment, peer=peer).update(seen_at=now)


def leave(experiment: Experiment, peer: str, channel: str) -> None:
    """Only if it has not reconnected behind another channel since."""
    WaitingPeer.objects.filter(experiment=experiment, peer=peer, channel=channel).delete()


def waiting_peers(experiment: Experiment, now: float) -> list[str]:
    live = WaitingPeer.objects.filter(experiment=experiment, seen_at__gt=now - WAITING_STALE_S)
    return list(live.values_list("peer", flat=True))


def sample(peers: Iterable[str], but: str, rng: random.Random) -> list[str]:
    """At most LIST_PEERS_MAX of `peers`, random, without `but`."""
    others = sorted(set(peers) - {but})
    return rng.sample(others, LIST_PEERS_MAX) if len(others) > LIST_PEERS_MAX else others


def channel_of(experiment: Experiment, peer: str, now: float) -> str | None:
    live = WaitingPeer.objects.filter(experiment=experiment, peer=peer, seen_at__gt=now - WAITING_STALE_S)
    return live.values_list("channel", flat=True).first()


def announce(experiment: Experiment, peer: str, address: str, now: float) -> None:
    """Keep a bootstrap peer's own address. Raises ValueError if it is not one of this peer's."""
    if len(address) > ADDRESS_CHARS_MAX or not address.isprintable():
        raise ValueError(f"an address has at most {ADDRESS_CHARS_MAX} printable characters")
    parts = urlsplit(address)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname or parts.path != f"/{peer}" or parts.query or parts.fragment:
        raise ValueError("an address looks like ws://host:port/PEERID, with the announcing peer's own id")
    if parts.username is not None or parts.port == 0:  # .port raises ValueError above 65535
        raise ValueError("an address has no user name, and a port that can be connected to")
    BootstrapAddress.objects.update_or_create(experiment=experiment, peer=peer, defaults={"address": address, "seen_at": now})


def bootstrap_addresses(experiment: Experiment, now: float) -> list[str]:
    """The manifest's addresses, then those that live agents announced, newest first, at most ADDRESSES_MAX."""
    lives = Session.objects.filter(experiment=experiment, peer=OuterRef("peer"), ended_at=None, seen_at__gt=now - SILENT_S)
    announced = (
        BootstrapAddress.objects.filter(experiment=experiment)
        .filter(Q(seen_at__gt=now - ADDRESS_LIVE_S) | Exists(lives))
        .order_by("-seen_at")
        .values_list("address", flat=True)[:ADDRESSES_MAX]
    )
    return list(dict.fromkeys([*experiment.manifest.bootstrap, *announced]))[:ADDRESSES_MAX]


def forget(now: float) -> None:
    """Delete what is stale."""
    WaitingPeer.objects.filter(seen_at__lt=now - WAITING_STALE_S).delete()
    lives = Session.objects.filter(experiment=OuterRef("experiment"), peer=OuterRef("peer"), ended_at=None)
    BootstrapAddress.objects.filter(seen_at__lt=now - ADDRESS_KEPT_S).exclude(Exists(lives)).delete()
