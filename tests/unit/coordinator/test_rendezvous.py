"""Who waits and where bootstrap peers are, without sockets: staleness, bounds, and whose address counts."""

from __future__ import annotations

import random

import msgspec
import pytest

from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.rendezvous import actions
from coordinator.rendezvous.models import BootstrapAddress, WaitingPeer

from .conftest import NOW, SMALL, Agent, report
from .test_store import submit

pytestmark = pytest.mark.django_db


def test_waiting_is_forgotten_when_it_is_not_renewed(experiment: Experiment, bob: Agent) -> None:
    assert actions.wait(experiment, bob.peer, "a!1", NOW) is None
    assert actions.waiting_peers(experiment, NOW + actions.WAITING_STALE_S - 1) == [bob.peer]
    assert actions.waiting_peers(experiment, NOW + actions.WAITING_STALE_S) == []
    actions.renew(experiment, bob.peer, "a!1", NOW + 60)
    assert actions.channel_of(experiment, bob.peer, NOW + 100) == "a!1"
    actions.forget(NOW + 60 + actions.WAITING_STALE_S + 1)
    assert not WaitingPeer.objects.exists()


def test_a_newer_channel_takes_over_and_the_older_cannot_remove_it(experiment: Experiment, bob: Agent) -> None:
    actions.wait(experiment, bob.peer, "a!1", NOW)
    assert actions.wait(experiment, bob.peer, "a!2", NOW) == "a!1"
    actions.leave(experiment, bob.peer, "a!1")
    assert actions.channel_of(experiment, bob.peer, NOW) == "a!2"
    actions.leave(experiment, bob.peer, "a!2")
    assert actions.channel_of(experiment, bob.peer, NOW) is None


def test_a_list_is_bounded_and_without_oneself() -> None:
    peers = [f"p{i}" for i in range(actions.LIST_PEERS_MAX + 2)]
    assert actions.sample(peers[:3], "p1", random.Random(1)) == ["p0", "p2"]
    assert len(actions.sample(peers[: actions.LIST_PEERS_MAX + 1], "p0", random.Random(1))) == actions.LIST_PEERS_MAX
    chosen = actions.sample(peers, "p0", random.Random(1))
    assert len(set(chosen)) == actions.LIST_PEERS_MAX and "p0" not in chosen


def test_an_address_lives_as_long_as_its_peer(experiment: Experiment, bob: Agent) -> None:
    address = f"ws://[2001:db8::1]:7000/{bob.peer}"
    actions.announce(experiment, bob.peer, address, NOW)
    assert actions.bootstrap_addresses(experiment, NOW + 89) == [address]
    assert actions.bootstrap_addresses(experiment, NOW + 91) == []
    submit(experiment, bob, report(1, NOW + 3700), at=NOW + 3700)
    assert actions.bootstrap_addresses(experiment, NOW + 3700) == [address]
    actions.forget(NOW + 3700)
    assert BootstrapAddress.objects.exists()


def test_an_address_of_a_peer_that_is_gone_is_deleted(experiment: Experiment, bob: Agent) -> None:
    actions.announce(experiment, bob.peer, f"ws://h:1/{bob.peer}", NOW)
    actions.forget(NOW + actions.ADDRESS_KEPT_S)
    assert BootstrapAddress.objects.exists()
    actions.forget(NOW + actions.ADDRESS_KEPT_S + 1)
    assert not BootstrapAddress.objects.exists()


def test_the_organizers_addresses_come_first_and_none_comes_twice(bob: Agent) -> None:
    address, first = f"ws://h:1/{bob.peer}", f"ws://first:1/{'f' * 52}"
    experiment = publish(msgspec.structs.replace(SMALL, bootstrap=(first, address))).experiment
    actions.announce(experiment, bob.peer, address, NOW)
    assert actions.bootstrap_addresses(experiment, NOW) == [first, address]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ws://h:1/",
        "http://h:1/PEER",
        "ws:///PEER",
        "ws://h:1/PEER?x=1",
        "ws://h:1/PEER#x",
        "ws://user@h:1/PEER",
        "ws://h:0/PEER",
        "ws://h:70000/PEER",
        "ws://h:x/PEER",
        "ws://[/PEER",
        "ws://h\n:1/PEER",
        "ws://" + "h" * 300 + "/PEER",
    ],
)
def test_addresses_that_are_not_its_own_are_refused(experiment: Experiment, bob: Agent, address: str) -> None:
    with pytest.raises(ValueError):
        actions.announce(experiment, bob.peer, address.replace("PEER", bob.peer), NOW)


def test_an_address_as_long_as_allowed(experiment: Experiment, bob: Agent) -> None:
    rest = f":1/{bob.peer}"
    host = "h" * (actions.ADDRESS_CHARS_MAX - len("ws://") - len(rest))
    actions.announce(experiment, bob.peer, f"ws://{host}{rest}", NOW)
    with pytest.raises(ValueError):
        actions.announce(experiment, bob.peer, f"ws://h{host}{rest}", NOW)
