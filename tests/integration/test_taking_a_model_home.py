"""A crowd's model, fetched from real hosts over in-memory links, written to a file, read again: it is worth the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from agent import modelfile
from agent.errors import CallRefused, LocalError, StorageError
from agent.experts.backend import expert_factory
from agent.experts.fetching import fetch_experts
from agent.experts.messages import NOT_HOSTED
from agent.experts.server import ExpertConfig, ExpertServer
from agent.grid import ExpertId
from agent.identity import PeerId
from agent.manifest import GPTModel, Manifest, Training
from agent.modelfile import SavedModel
from agent.moe.build import build_model
from agent.moe.deadlines import DeadlineConfig
from agent.moe.remote import RemoteConfig, RemoteExperts
from agent.moe.tally import Tally
from agent.net.network import Network
from agent.scoring import Score, bound, score
from tests.unit.moe.fakes import FakeDirectory
from tests.unit.net.peers import ALICE, BOB, CHARLIE, Town

MODEL = GPTModel(d_model=16, heads=2, layers=2, sequence=16, expert_hidden=32, grid=(2, 2), k_best=2)
MANIFEST = Manifest(name="gpt-crowd", revision=3, title="test", model=MODEL, training=Training(expert_learning_rate=1e-2))
UIDS = [uid for grid in MODEL.grids() for uid in grid]
GONE = UIDS[1]


class Crowd:
    """Bob and Charlie host; Alice visits."""

    def __init__(self) -> None:
        self.town = Town()
        self.directory = FakeDirectory({})
        self.servers: dict[PeerId, ExpertServer] = {}

    async def start(self) -> None:
        self.network = self._join(self.town.join(ALICE))
        for identity in (BOB, CHARLIE):
            network = self._join(self.town.join(identity))
            self.servers[identity.peer_id] = server = ExpertServer(ExpertConfig.of(MANIFEST), expert_factory(MANIFEST))
            server.register(network)
        for i, uid in enumerate(UIDS):
            host = list(self.servers)[i % 2]
            await self.servers[host].host(uid)
            self.directory.places[uid] = host
        config = RemoteConfig(wire_dtype="float32", deadlines=DeadlineConfig(floor_s=5.0))
        self.experts = RemoteExperts(
            self.network.call, self.directory, loop=asyncio.get_running_loop(), peer_id=ALICE.peer_id, config=config
        )

    def _join(self, network: Network) -> Network:
        network.dialer = lambda peer: network.dial(peer, self.town.signaler, timeout_s=10)
        return network

    def versions(self) -> dict[ExpertId, int]:
        return {uid: info.version for server in self.servers.values() for uid, info in server.hosted().items()}

    def backwards(self) -> int:
        return sum(server.stats.backwards for server in self.servers.values())

    async def close(self) -> None:
        for server in self.servers.values():
            await server.close()
        await self.town.close()


@pytest.fixture
async def crowd() -> AsyncIterator[Crowd]:
    crowd = Crowd()
    await crowd.start()
    yield crowd
    await crowd.close()


def batches() -> list[tuple[Tensor, Tensor]]:
    x = torch.randint(0, 256, (4, 17), generator=torch.Generator().manual_seed(1))
    return [(x[:, :-1], x[:, 1:])]


def train(crowd: Crowd) -> dict[str, Tensor]:
    """Some real steps of everything; returns the trunk."""
    trunk = build_model(MANIFEST, crowd.experts)
    optimizer = torch.optim.Adam(trunk.parameters(), lr=1e-2)
    for _ in range(4):
        for inputs_BT, targets_BT in batches():
            optimizer.zero_grad()
            F.cross_entropy(trunk(inputs_BT)[0].flatten(0, 1), targets_BT.flatten()).backward()
            optimizer.step()
    return {name: p.detach() for name, p in trunk.named_parameters()}


def worth(crowd: Crowd, trunk: dict[str, Tensor]) -> Score:
    tally = Tally(crowd.experts)
    found = score(bound(build_model(MANIFEST, tally), trunk), batches())
    assert found is not None and tally.calls_failed == 0
    return found


async def taken_home(crowd: Crowd, path: Path, trunk: dict[str, Tensor]) -> SavedModel:
    experts, missing = await fetch_experts(MANIFEST, crowd.network, crowd.directory, UIDS)
    saved = SavedModel(MANIFEST, 4, trunk, experts)
    assert list(missing) == saved.missing
    assert await asyncio.to_thread(modelfile.save, saved, path) == path.stat().st_size
    assert list(path.parent.iterdir()) == [path], "nothing of a half-written file is left"
    return modelfile.load(path)


async def test_it_is_worth_the_same_and_nobody_has_learnt_from_the_visit(crowd: Crowd, tmp_path: Path) -> None:
    trunk = await asyncio.to_thread(train, crowd)
    before, backwards = crowd.versions(), crowd.backwards()
    assert max(before.values()) > 0
    remote = await asyncio.to_thread(worth, crowd, trunk)
    saved = await taken_home(crowd, tmp_path / "m.safetensors", trunk)
    local = score(saved.model(), batches())
    assert local is not None and remote.loss < 5.4 and local.loss == pytest.approx(remote.loss, abs=1e-5)
    assert crowd.versions() == before == {uid: expert.version for uid, expert in saved.experts.items()}
    assert crowd.backwards() == backwards
    assert (saved.manifest, saved.step, saved.missing) == (MANIFEST, 4, [])


async def test_what_could_not_be_fetched_is_said_and_done_without(crowd: Crowd, tmp_path: Path) -> None:
    trunk = await asyncio.to_thread(train, crowd)
    for server in crowd.servers.values():
        await server.drop(GONE)
    _, missing = await fetch_experts(MANIFEST, crowd.network, crowd.directory, [GONE])
    assert missing == {GONE: f"{NOT_HOSTED}: {GONE} is not here"}
    del crowd.directory.places[GONE]
    _, missing = await fetch_experts(MANIFEST, crowd.network, crowd.directory, [GONE])
    assert missing == {GONE: "nobody hosts it now"}
    remote = await asyncio.to_thread(worth, crowd, trunk)
    saved = await taken_home(crowd, tmp_path / "m.safetensors", trunk)
    local = score(saved.model(), batches())
    assert saved.missing == [GONE] and local is not None and local.loss == pytest.approx(remote.loss, abs=1e-5)


async def test_a_host_that_gives_something_else_is_not_believed(crowd: Crowd) -> None:
    other = Manifest(name="gpt-crowd", revision=3, title="test", model=GPTModel(**{**_sizes(MODEL), "expert_hidden": 64}))
    found, missing = await fetch_experts(other, crowd.network, crowd.directory, UIDS[:1])
    assert not found and "something else" in missing[UIDS[0]]


def _sizes(model: GPTModel) -> dict[str, object]:
    return {name: getattr(model, name) for name in model.__struct_fields__}


async def test_weights_of_an_expert_that_is_not_there_are_refused(crowd: Crowd) -> None:
    with pytest.raises(CallRefused, match=NOT_HOSTED):
        await crowd.servers[BOB.peer_id].weights(UIDS[1])


async def test_a_peer_gets_one_copy_of_an_expert_at_a_time(crowd: Crowd) -> None:
    """A small request has a large answer."""
    found, _ = await fetch_experts(MANIFEST, crowd.network, crowd.directory, UIDS)
    _, missing = await fetch_experts(MANIFEST, crowd.network, crowd.directory, UIDS)
    assert len(found) == len(missing) == len(UIDS) and all("at most one copy" in why for why in missing.values())


async def test_a_file_that_is_there_stays_unless_told_otherwise(crowd: Crowd, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved = await taken_home(crowd, path, {n: p.detach() for n, p in build_model(MANIFEST, crowd.experts).named_parameters()})
    before = path.read_bytes()
    with pytest.raises(StorageError, match="--force"):
        modelfile.save(saved, path)
    assert path.read_bytes() == before
    modelfile.save(SavedModel(MANIFEST, 9, saved.trunk, saved.experts), path, replace=True)
    assert modelfile.load(path).step == 9
    for place in (tmp_path, tmp_path / "nowhere" / "m.safetensors"):
        with pytest.raises(StorageError, match="directory"):
            modelfile.save(saved, place, replace=True)


async def test_a_file_that_is_not_such_a_model_is_refused(crowd: Crowd, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved = await taken_home(crowd, path, {n: p.detach() for n, p in build_model(MANIFEST, crowd.experts).named_parameters()})
    whole = path.read_bytes()
    other_format = whole.replace(b"hive-model-1", b"hive-model-2")
    other_manifest = whole.replace(b'\\"title\\":\\"test', b'\\"title\\":\\"tent')
    assert whole not in (other_format, other_manifest)
    for body in (b"", b"nonsense", whole[:-8], other_format, other_manifest):
        path.write_bytes(body)
        with pytest.raises(LocalError):
            modelfile.load(path)
    for trunk in ({}, {**saved.trunk, "more": torch.zeros(1)}, {**saved.trunk, "head.weight": torch.zeros(1)}):
        modelfile.save(SavedModel(MANIFEST, 1, trunk, saved.experts), path, replace=True)
        with pytest.raises(LocalError, match="other parameters"):
            modelfile.load(path)
