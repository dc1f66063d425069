"""Peers refuse peers without a certificate where the experiment needs one, and nobody else is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import pytest

from agent.admission import DAY_S, Certificate, Policy, Rule, issue
from agent.errors import AdmissionRejected, RemoteError
from agent.identity import Identity
from agent.net.network import Network, NetworkConfig
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Town, until

COORDINATOR = Identity.from_seed(b"c" * 32)


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    town = Town()
    yield town
    await town.close()


def rule(policy: Policy) -> Rule:
    return Rule(experiment="gpt-crowd", policy=policy, key=COORDINATOR.peer_id)


def certificate(identity: Identity, *, signer: Identity = COORDINATOR, ends_at: int = 2**39) -> bytes:
    return issue(Certificate(1, identity.peer_id.raw, "gpt-crowd", "id", "", 0, ends_at), signer)


def join(town: Town, identity: Identity, policy: Policy, admission: bytes) -> Network:
    town.config = replace(NetworkConfig(), rule=rule(policy), admission=admission)
    return town.join(identity)


async def test_members_connect(town: Town) -> None:
    alice = join(town, ALICE, "approval", certificate(ALICE))
    bob = join(town, BOB, "approval", certificate(BOB))
    await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    await until(lambda: bob.is_connected(alice.peer_id))
    shown = bob.peers()[alice.peer_id].certificate
    assert shown is not None and shown.peer == ALICE.peer_id.raw


@pytest.mark.parametrize(
    "shown", [b"", b"nonsense", certificate(CHARLIE), certificate(BOB, signer=BOB), certificate(BOB, ends_at=DAY_S)]
)
@pytest.mark.parametrize("who_dials", ["member", "outsider"])
async def test_others_do_not_whoever_dials(town: Town, shown: bytes, who_dials: str) -> None:
    alice = join(town, ALICE, "invite", certificate(ALICE))
    bob = join(town, BOB, "open", shown)  # his own agent does not mind
    first, second = (alice, bob) if who_dials == "member" else (bob, alice)
    with pytest.raises(AdmissionRejected, match="admits by invitation") if first is alice else suppress(RemoteError):
        await first.dial(second.peer_id, town.signaler, timeout_s=2)
    await until(lambda: not alice.peers() and not bob.peers())
    assert ("alice", "opened", "bob") not in town.log
    with pytest.raises(RemoteError):  # whatever his side took for a connection carries nothing
        await bob.call(alice.peer_id, "echo", timeout_s=2)


async def test_an_open_experiment_takes_in_anonymous_peers_and_knows_them_as_such(town: Town) -> None:
    alice = join(town, ALICE, "open", b"")
    bob = join(town, BOB, "open", certificate(BOB))
    await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
    await until(lambda: bob.is_connected(alice.peer_id))
    assert bob.peers()[alice.peer_id].certificate is None and alice.peers()[bob.peer_id].certificate is not None


async def test_when_the_organizers_close_it_those_without_a_certificate_are_parted_from(town: Town) -> None:
    alice = join(town, ALICE, "open", certificate(ALICE))
    bob = join(town, BOB, "open", b"")
    charlie = join(town, CHARLIE, "open", certificate(CHARLIE))
    for other in (bob, charlie):
        await alice.dial(other.peer_id, town.signaler, timeout_s=5)
    alice.judge_by(rule("invite"))
    await until(lambda: not bob.peers())
    assert set(alice.peers()) == {charlie.peer_id}
    with pytest.raises(AdmissionRejected):
        await alice.dial(bob.peer_id, town.signaler, timeout_s=2)
    alice.judge_by(rule("open"))
    await alice.dial(bob.peer_id, town.signaler, timeout_s=5)
