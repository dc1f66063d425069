"""Two peers that dial each other, at any times, over paths that are slow or broken: one connection, no needless failure."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import NotReachable, RemoteError
from agent.identity import PeerId
from agent.net.memory import MemoryConfig, MemoryFabric
from agent.net.network import Network, NetworkConfig, Surroundings
from tests.unit.net.peers import ALICE, BOB, echo
from tests.virtual_loop import run

TIMEOUT_S = 15.0
times = st.floats(0, 3).map(lambda s: round(s, 3))


async def pass_time(seconds: float) -> None:
    """On the virtual clock."""
    await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=seconds)


class SlowPath:
    """Carries offers to one peer, each way in its own time; `works` is whether it carries anything."""

    def __init__(self, target: Network, there_s: float, back_s: float, works: bool) -> None:
        self.target, self.there_s, self.back_s, self.works = target, there_s, back_s, works

    async def exchange(self, peer: PeerId, sealed_offer: bytes) -> bytes:
        await pass_time(self.there_s)
        if not self.works:
            raise NotReachable("this path is broken")
        try:
            answer = await self.target.answer(sealed_offer)
        except RemoteError as e:
            raise NotReachable(str(e)) from None
        await pass_time(self.back_s)
        return answer


async def dial_each_other(starts: list[float], delays: list[float], works: list[bool], link_s: float) -> None:
    loop = asyncio.get_running_loop()
    fabric = MemoryFabric(MemoryConfig(delay_s=link_s))
    surroundings = Surroundings(clock=lambda: 1.8e9 + loop.time())
    networks = [
        Network(identity=i, experiment="x", transport=fabric.transport(str(n)), config=NetworkConfig(), surroundings=surroundings)
        for n, i in enumerate((ALICE, BOB))
    ]
    for network in networks:
        network.register("echo", echo)

    async def dial(me: int) -> bool:
        other = networks[1 - me]
        await pass_time(starts[me])
        path = SlowPath(other, delays[2 * me], delays[2 * me + 1], works[me])
        try:
            await networks[me].dial(other.peer_id, path, timeout_s=TIMEOUT_S)
        except NotReachable:
            return False
        return True

    succeeded = await asyncio.gather(dial(0), dial(1))
    await pass_time(30)  # whatever is still under way comes to its end
    a, b = (n.peers().get(m.peer_id) for n, m in (networks, networks[::-1]))
    if not any(works):
        assert not any(succeeded) and a is None and b is None
    else:
        assert a is not None and b is not None and a.initiator != b.initiator
        assert all(s or not w for s, w in zip(succeeded, works, strict=True)), "a dial whose path works does not fail"
        open_links = [pair for pair in fabric.links if not pair[0].closed or not pair[1].closed]
        assert len(open_links) == 1
        for caller, callee in (networks, networks[::-1]):
            assert (await caller.call(callee.peer_id, "echo", b"x", timeout_s=5)).header == b"x"
    for network in networks:
        await network.close()


@settings(max_examples=150, deadline=None)
@given(
    starts=st.lists(times, min_size=2, max_size=2),
    delays=st.lists(times, min_size=4, max_size=4),
    works=st.lists(st.booleans(), min_size=2, max_size=2),
    link_s=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_one_connection_comes_about_if_any_path_works(
    starts: list[float], delays: list[float], works: list[bool], link_s: float
) -> None:
    run(dial_each_other(starts, delays, works, link_s))
